#include <boost/json/parse.hpp>

#include <set>
#include <sstream>

#include "coordinator/ledger/ledger.h"
#include "tests/unit/api/coordinator_fixture.h"
#include "tests/unit/api/fake_worker.h"
#include "tests/unit/api/raw_connection.h"

namespace tutti {
namespace {

using test::FakeWorker;
using test::RawConnection;
using test::RunningCoordinator;

boost::json::value json_in(const api::HttpAnswer& answer) {
  boost::system::error_code failure;
  boost::json::value value = boost::json::parse(answer.body, failure);
  INFO(answer.body);
  REQUIRE_FALSE(failure);
  return value;
}

void submit(RunningCoordinator& coordinator, int count) {
  for (int i = 0; i < count; ++i) {
    REQUIRE(coordinator
                .ask("POST", "/api/v1/jobs",
                     R"({"spec": "name: hello\nkind: run\ncommand: [echo, hi]\n"})")
                .status == 200);
  }
}

// Events of a stream up to the one that says `last`.
std::string stream(RunningCoordinator& coordinator, const std::string& target,
                   const std::string& header, const std::string& last) {
  RawConnection connection(coordinator.url());
  connection.say("GET " + target + " HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n" +
                 "Authorization: Bearer " + coordinator.token() + "\r\n" + header + "\r\n");
  return connection.read_until(last);
}

TEST_CASE("streams: a reader goes on from its last event, also with another coordinator") {
  const test::TemporaryFolder folder;
  std::string first;
  {
    RunningCoordinator coordinator(folder.path());
    submit(coordinator, 3);
    first = stream(coordinator, "/api/v1/events", "", "id: 2\n");
    CHECK(first.find("id: 1\ndata: {") != std::string::npos);
  }
  RunningCoordinator successor(folder.path());
  const std::string rest = stream(successor, "/api/v1/events", "Last-Event-ID: 2\r\n", "id: 3\n");
  CHECK(rest.find("id: 3\ndata: {") != std::string::npos);
  CHECK(rest.find("id: 2\n") == std::string::npos);
  const std::string same = stream(successor, "/api/v1/events?after=2", "", "id: 3\n");
  CHECK(same.find("id: 2\n") == std::string::npos);
}

TEST_CASE("streams: a browser that comes back goes on, whatever its first request asked for") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  submit(coordinator, 3);
  const std::string rest =
      stream(coordinator, "/api/v1/events?after=1", "Last-Event-ID: 2\r\n", "id: 3\n");
  CHECK(rest.find("id: 3\ndata: {") != std::string::npos);
  CHECK(rest.find("id: 2\n") == std::string::npos);
}

// A `run` job's process, of which the worker says no more than what it wrote.
wire::StartRank begin_one(FakeWorker& worker) {
  worker.say(worker.hello());
  REQUIRE(worker.expect<wire::Welcome>().has_value());
  const auto start = worker.expect<wire::StartRank>();
  REQUIRE(start.has_value());
  return *start;
}

void spool(FakeWorker& worker, const wire::StartRank& start, wire::Stream stream,
           std::uint64_t offset, const std::string& bytes) {
  worker.say(wire::SpoolData{.job = start.job,
                             .generation = start.generation,
                             .process = start.process,
                             .rank = start.rank,
                             .stream = stream,
                             .offset = offset,
                             .bytes = bytes,
                             .end = false});
  REQUIRE(worker.expect<wire::SpoolAcked>().has_value());
}

// The id of the last event in it.
std::string last_id(const std::string& stream) {
  const std::size_t at = stream.rfind("id: ");
  REQUIRE(at != std::string::npos);
  return stream.substr(at + 4, stream.find('\n', at) - at - 4);
}

TEST_CASE("streams: logs and steps go on from Last-Event-ID, each piece once and none left out") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  FakeWorker worker(coordinator.line_of("join.json"));
  REQUIRE(worker.connected());
  submit(coordinator, 1);
  const wire::StartRank start = begin_one(worker);
  struct Kind {
    wire::Stream stream;
    std::string target;
    std::string first;
    std::string second;
  };
  const Kind kinds[] = {
      {wire::Stream::log, "/api/v1/jobs/1/logs", "one\n", "two\n"},
      {wire::Stream::steps, "/api/v1/jobs/1/steps", "{\"step\":1,\"weights\":\"one\"}\n",
       "{\"step\":2,\"weights\":\"two\"}\n"}};
  for (const Kind& kind : kinds) {
    INFO(kind.target);
    spool(worker, start, kind.stream, 0, kind.first);
    const std::string before = stream(coordinator, kind.target, "", "one");
    CHECK(before.find("one") != std::string::npos);
    const std::string resume = "Last-Event-ID: " + last_id(before + "\n") + "\r\n";
    spool(worker, start, kind.stream, kind.first.size(), kind.second);
    const std::string rest = stream(coordinator, kind.target, resume, "two");
    CHECK(rest.find("two") != std::string::npos);
    CHECK(rest.find("one") == std::string::npos);
    CHECK(last_id(rest + "\n") != last_id(before + "\n"));
    const std::string all = stream(coordinator, kind.target, "", "two");
    CHECK(all.find("one") < all.find("two"));
  }
}

TEST_CASE("streams: a stream of what is not there is 404, of a cursor that is none 400") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  for (const char* name : {"events", "logs", "steps"}) {
    const std::string answer =
        stream(coordinator, std::string("/api/v1/jobs/9/") + name, "", "there is no job");
    CHECK(answer.starts_with("HTTP/1.1 404"));
  }
  CHECK(stream(coordinator, "/api/v1/events", "Last-Event-ID: x\r\n", "cursor")
            .starts_with("HTTP/1.1 400"));
}

TEST_CASE("streams: the stream of a job ends with the job, and says so") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  submit(coordinator, 1);
  REQUIRE(coordinator.ask("POST", "/api/v1/jobs/1/cancel", "{}").status == 200);
  for (const char* name : {"events", "logs", "steps"}) {
    const std::string all =
        stream(coordinator, std::string("/api/v1/jobs/1/") + name, "", "event: end");
    INFO(all);
    CHECK(all.find("event: end\n") != std::string::npos);
  }
}

TEST_CASE("streams: a job's events begin with a gap only if some of its own may be missing") {
  const test::TemporaryFolder folder;
  {
    const auto ledger = coordinator::Ledger::open({.folder = folder.path()});
    REQUIRE(ledger.ok());
    coordinator::JobSubmitted old;
    old.job = JobId{1};
    old.owner = "admin";
    old.spec = "name: x\nkind: run\ncommand: ['true']\n";
    old.terms.name = "x";
    old.terms.kind = "run";
    const std::vector<coordinator::Fact> facts{old};
    coordinator::Event event;
    event.seq = 500;  // those before it are dropped
    REQUIRE((*ledger)->append({.facts = facts, .events = {&event, 1}}).ok());
  }
  RunningCoordinator coordinator(folder.path());
  submit(coordinator, 1);
  const auto first_kind = [&](const std::string& target) {
    const auto value = json_in(coordinator.ask("GET", target));
    return value.at("events").as_array().at(0).at("kind").as_string();
  };
  CHECK(first_kind("/api/v1/events") == "gap");
  CHECK(first_kind("/api/v1/jobs/1/events") == "gap");
  CHECK(first_kind("/api/v1/jobs/2/events") == "submitted");
}

// A ledger whose next event drops the oldest one: 1's first ones are dropped, the rest are others'.
void fill_with_events(const std::filesystem::path& folder, std::uint64_t first) {
  const auto ledger = coordinator::Ledger::open({.folder = folder});
  REQUIRE(ledger.ok());
  coordinator::JobSubmitted old;
  old.job = JobId{1};
  old.owner = "admin";
  old.spec = "name: x\nkind: run\ncommand: ['true']\n";
  old.terms.name = "x";
  old.terms.kind = "run";
  std::vector<coordinator::Event> events(200);
  for (std::size_t i = 0; i < events.size(); ++i) events[i].seq = first + i;
  events.back().seq = first + coordinator::kEventsMax - 1;
  const std::vector<coordinator::Fact> facts{old};
  REQUIRE((*ledger)->append({.facts = facts, .events = events}).ok());
}

TEST_CASE("streams: a follower of an old job is told of one gap, and of all that comes") {
  const test::TemporaryFolder folder;
  fill_with_events(folder.path(), 600);
  RunningCoordinator coordinator(folder.path());
  std::uint64_t next = 0;
  std::vector<std::string> kinds;
  const auto poll = [&] {
    const auto page =
        json_in(coordinator.ask("GET", "/api/v1/jobs/1/events?after=" + std::to_string(next)));
    next = page.at("next").to_number<std::uint64_t>();
    for (const auto& event : page.at("events").as_array())
      kinds.emplace_back(event.at("kind").as_string());
  };
  poll();
  for (int i = 0; i < 3; ++i) {
    submit(coordinator, 2);  // their events drop the oldest ones
    poll();
  }
  // A stream's comment has the cursor, too.
  const std::string stays =
      stream(coordinator, "/api/v1/jobs/1/events", "", "\nid: " + std::to_string(next) + "\n\n");
  CHECK(stays.find("\nid: " + std::to_string(next) + "\n\n") != std::string::npos);
  REQUIRE(coordinator.ask("POST", "/api/v1/jobs/1/cancel", "{}").status == 200);
  submit(coordinator, 1);
  poll();
  CHECK(kinds == std::vector<std::string>{"gap", "waiting", "cancelled"});
}

TEST_CASE("streams: events are asked for by kind, node and time") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  submit(coordinator, 2);
  REQUIRE(coordinator.ask("POST", "/api/v1/jobs/2/cancel", "{}").status == 200);
  const auto count = [&](const std::string& query) {
    return json_in(coordinator.ask("GET", "/api/v1/events?" + query))
        .at("events")
        .as_array()
        .size();
  };
  CHECK(count("kind=submitted") == 2);
  CHECK(count("kind=cancelled") == 1);
  CHECK(count("kind=cancelled,submitted") == 3);
  CHECK(count("kind=submitted&after=1") == 1);
  CHECK(count("node=nobody") == 0);
  CHECK(count("since_unix_ms=" + std::to_string(wall_now().unix_ms + 60'000)) == 0);
  const auto wrong = coordinator.ask("GET", "/api/v1/events?kind=submited");
  CHECK(wrong.status == 400);
  CHECK(api::error_of(wrong).message.find("\"submitted\"") != std::string::npos);
}

// Each name is one family, its samples follow it, and no series comes twice; how many families.
std::size_t check_exposition(const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  std::string family;
  std::string kind;
  std::set<std::string> families;
  std::set<std::string> series;
  while (std::getline(lines, line)) {
    INFO(line);
    if (line.starts_with("# HELP ")) continue;
    if (line.starts_with("# TYPE ")) {
      std::istringstream words(line.substr(7));
      words >> family >> kind;
      CHECK(families.insert(family).second);
      CHECK(family.starts_with("tutti_"));
      CHECK((kind == "counter") == family.ends_with("_total"));
      continue;
    }
    CHECK(line.starts_with(family));
    CHECK(series.insert(line.substr(0, line.rfind(' '))).second);
    CHECK_FALSE(line.substr(line.rfind(' ') + 1).empty());
  }
  return families.size();
}

TEST_CASE("metrics: each name is one family, its samples follow it, and no series comes twice") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  submit(coordinator, 2);
  const auto answer = coordinator.ask("GET", "/metrics");
  CHECK(answer.content_type == "text/plain; version=0.0.4");
  CHECK(check_exposition(answer.body) > 40);
  for (const char* expected :
       {"tutti_jobs{kind=\"run\",state=\"queued\"} 2\n", "tutti_jobs_submitted_total 2\n",
        "tutti_http_requests_total{method=\"POST\",route=\"/api/v1/jobs\",code=\"200\"} 2\n",
        "tutti_ledger_sync_seconds_count ", "tutti_process_resident_memory_bytes ",
        "tutti_build_info{version="}) {
    INFO(expected);
    CHECK(answer.body.find(expected) != std::string::npos);
  }
}

TEST_CASE("metrics: a rank whose node is lost has series of its replacement alone") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path(), 1'000);
  FakeWorker away(coordinator.line_of("join.json"), {.name = "node-a"});
  FakeWorker here(coordinator.line_of("join.json"), {.name = "node-b"});
  REQUIRE(away.connected());
  REQUIRE(here.connected());
  REQUIRE(
      coordinator
          .ask("POST", "/api/v1/jobs", R"({"spec": "name: x\nkind: serve\nmodel: {path: /m}\n"})")
          .status == 200);
  REQUIRE(begin_one(away).rank == 0);
  here.say(here.hello());
  REQUIRE(here.expect<wire::Welcome>().has_value());
  std::string text;
  const auto lost = [&] {
    return text.find("tutti_ranks{phase=\"lost\"} 1\n") != std::string::npos &&
           text.find("tutti_ranks{phase=\"starting\"} 1\n") != std::string::npos;
  };
  const auto until = std::chrono::steady_clock::now() + test::patient(std::chrono::seconds(10));
  while (!lost() && std::chrono::steady_clock::now() < until) {
    here.say(wire::Heartbeat{});
    text = coordinator.ask("GET", "/metrics").body;
    if (text.find("tutti_nodes{state=\"lost\"} 2\n") == std::string::npos) continue;
    // This test did not get its turn for so long.
    ++here.hello().greeting;
    here.say(here.hello());
  }
  INFO(text);
  REQUIRE(lost());
  check_exposition(text);
  CHECK(text.find("tutti_rank_step{job=\"1\",rank=\"0\"} 0\n") != std::string::npos);
}

}  // namespace
}  // namespace tutti
