#include <sys/stat.h>

#include <boost/json/parse.hpp>

#include "tests/unit/api/coordinator_fixture.h"
#include "tests/unit/api/fake_worker.h"

namespace tutti {
namespace {

using api::HttpAnswer;
using test::FakeWorker;
using test::RunningCoordinator;

boost::json::value json_in(const HttpAnswer& answer) {
  boost::system::error_code failure;
  boost::json::value value = boost::json::parse(answer.body, failure);
  REQUIRE_FALSE(failure);
  return value;
}

// Everything behind the cursor, until the answer says that nothing will follow.
boost::json::array read_to_end(RunningCoordinator& coordinator, const std::string& path,
                               std::string_view name) {
  boost::json::array out;
  std::uint64_t next = 0;
  for (int polls = 0; polls < 100; ++polls) {
    const auto page =
        json_in(coordinator.ask("GET", path + "?wait_ms=10000&after=" + std::to_string(next)));
    for (const auto& item : page.at(name).as_array()) out.push_back(item);
    next = page.at("next").to_number<std::uint64_t>();
    if (page.at("end").as_bool()) return out;
  }
  FAIL("no end of " << path);
  return out;
}

std::string code_of(const HttpAnswer& answer) {
  return std::string(to_string(api::error_of(answer).code));
}

const std::string kRunSpec =
    R"({"spec": "name: hello\nkind: run\ncommand: [echo, hi]\n", "key": "k1"})";

TEST_CASE("api: without the token there is 401 and nothing else") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  for (const std::string& token :
       {std::string(), std::string("wrong"), coordinator.token() + "x"}) {
    auto client = *api::HttpClient::connect_to({.url = coordinator.url(), .token = token});
    for (const char* target :
         {"/api/v1/jobs", "/api/v1/jobs/1", "/metrics", "/v1/models", "/nowhere", "/%zz"}) {
      const auto answer = client->request({.method = "GET", .target = target});
      REQUIRE(answer.ok());
      CHECK(answer->status == 401);
      CHECK(code_of(*answer) == "permission_denied");
    }
    CHECK(client
              ->request(
                  {.method = "POST", .target = "/api/v1/jobs", .body = std::string(5 << 20, 'x')})
              ->status == 401);
    const auto health = client->request({.method = "GET", .target = "/healthz"});
    INFO((health ? "" : health.error().message));
    REQUIRE(health.ok());
    CHECK(health->status == 200);
    CHECK(health->body == "ok\n");
  }
}

TEST_CASE(
    "api: the files that lead to the cluster are their owner's only, and nothing listens beyond "
    "loopback") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  for (const char* file : {"token", "join.json", "join.token", "address", "coordinator.key",
                           "ports.json", "ledger.sqlite"}) {
    struct stat status {};
    REQUIRE(::stat((folder.path() / file).c_str(), &status) == 0);
    CHECK((status.st_mode & 077) == 0);
  }
  CHECK(coordinator.line_of("address") == coordinator.url());
  CHECK(coordinator.url().starts_with("http://127.0.0.1:"));
  CHECK(coordinator.line_of("join.json").find("tcp://127.0.0.1:") != std::string::npos);
}

TEST_CASE(
    "api: a second coordinator on the folder is refused, and a successor takes the same ports and "
    "jobs") {
  const test::TemporaryFolder folder;
  std::string url;
  {
    RunningCoordinator coordinator(folder.path());
    url = coordinator.url();
    spec::CoordinatorConfig config;
    config.state = folder.path().string();
    const auto second = coordinator::CoordinatorService::open(config);
    REQUIRE_FALSE(second.ok());
    CHECK(second.error().code == ErrorCode::already_exists);
    CHECK(json_in(coordinator.ask("POST", "/api/v1/jobs", kRunSpec)).at("id") == 1);
    CHECK(coordinator.end() == 0);
  }
  RunningCoordinator successor(folder.path());
  CHECK(successor.url() == url);
  const auto again = json_in(successor.ask("POST", "/api/v1/jobs", kRunSpec));
  CHECK(again.at("id") == 1);
  CHECK(again.at("existing") == true);
  CHECK(json_in(successor.ask("GET", "/api/v1/jobs")).at("jobs").as_array().size() == 1);
}

TEST_CASE("api: the list of jobs comes in pages, and of what a reader asks for") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  for (const char* name : {"a", "b", "c", "a", "e"}) {
    const std::string spec =
        std::string(R"({"spec": "name: )") + name + R"(\nkind: run\ncommand: [echo, hi]\n"})";
    REQUIRE(coordinator.ask("POST", "/api/v1/jobs", spec).status == 200);
  }
  REQUIRE(coordinator.ask("POST", "/api/v1/jobs/2/cancel", "{}").status == 200);
  const auto page = [&](const std::string& query) {
    const auto answer = json_in(coordinator.ask("GET", "/api/v1/jobs?" + query));
    std::string ids;
    for (const auto& job : answer.at("jobs").as_array()) {
      ids += std::to_string(job.at("id").to_number<int>());
    }
    return ids + (answer.at("end").as_bool() ? "." : "+") +
           std::to_string(answer.at("next").to_number<int>());
  };
  CHECK(page("") == "12345.5");
  CHECK(page("limit=2") == "12+2");
  CHECK(page("limit=2&after=2") == "34+4");
  CHECK(page("limit=2&after=4") == "5.5");
  CHECK(page("after=5") == ".5");
  CHECK(page("last=2") == "45+5");
  CHECK(page("last=9") == "12345.5");
  CHECK(page("state=cancelled") == "2.2");
  CHECK(page("state=queued,cancelled&limit=4") == "1234+4");
  CHECK(page("name=a") == "14.4");
  CHECK(page("owner=admin&state=queued&limit=4") == "1345.5");
  CHECK(page("owner=nobody") == ".0");
  for (const char* wrong : {"state=runing", "limit=0", "limit=x", "last=1&limit=1"}) {
    INFO(wrong);
    CHECK(coordinator.ask("GET", std::string("/api/v1/jobs?") + wrong).status == 400);
  }
}

TEST_CASE("api: what is wrong with a request is said") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  const auto refused = [&](const std::string& method, const std::string& target,
                           const std::string& body, unsigned status) {
    const HttpAnswer answer = coordinator.ask(method, target, body);
    INFO(method << " " << target << " " << body << ": " << answer.body);
    CHECK(answer.status == status);
    CHECK_FALSE(api::error_of(answer).message.empty());
  };
  refused("POST", "/api/v1/jobs", "{", 400);
  refused("POST", "/api/v1/jobs", "[]", 400);
  refused("POST", "/api/v1/jobs", "{}", 400);
  refused("POST", "/api/v1/jobs", R"({"spec": "name: x\nkind: rnu\n"})", 400);
  refused("POST", "/api/v1/jobs", R"({"spec": "name: x\n", "set": 3})", 400);
  refused("POST", "/api/v1/faults", R"({"action": "explode", "job": 1, "rank": 0})", 400);
  refused("GET", "/api/v1/jobs/99", "", 404);
  refused("GET", "/api/v1/jobs/99/logs", "", 404);
  refused("GET", "/api/v1/jobs/99/events", "", 404);
  refused("POST", "/api/v1/jobs/99/cancel", "{}", 404);
  refused("GET", "/api/v1/jobs/0", "", 404);
  refused("GET", "/api/v1/jobs/x", "", 404);
  refused("DELETE", "/api/v1/jobs/1", "", 404);
  refused("GET", "/api/v1/events?after=x", "", 400);
  REQUIRE(coordinator.ask("POST", "/api/v1/jobs", kRunSpec).status == 200);
  refused("POST", "/api/v1/jobs",
          R"({"spec": "name: other\nkind: run\ncommand: [ls]\n", "key": "k1"})", 409);
  refused("POST", "/api/v1/faults", R"({"action": "kill-rank", "job": 1, "rank": 0})", 403);
  refused("GET", "/api/v1/jobs/1/logs?after=5", "", 404);
}

TEST_CASE("api: what would become of a job is told, and there is no job then") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  const auto told = json_in(coordinator.ask("POST", "/api/v1/plan", kRunSpec));
  CHECK(told.at("reason") == "never_fits");
  CHECK(told.at("ranks_possible") == 0);
  CHECK(coordinator.ask("POST", "/api/v1/plan", R"({"spec": "kind: nothing"})").status == 400);
  CHECK(json_in(coordinator.ask("GET", "/api/v1/jobs")).at("jobs").as_array().empty());
}

TEST_CASE("api: a worker with the wrong join token is refused and does nothing") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  FakeWorker worker(coordinator.line_of("join.json"));
  REQUIRE(worker.connected());
  worker.hello().join_token = "wrong";
  worker.say(worker.hello());
  const auto refused = worker.expect<wire::Refused>();
  REQUIRE(refused.has_value());
  CHECK(refused->code == "permission_denied");
  CHECK(json_in(coordinator.ask("GET", "/api/v1/nodes")).at("nodes").as_array().empty());
}

// What the worker does for one `run` job of one rank, up to the process's end.
wire::StartRank run_one(FakeWorker& worker, std::int32_t exit_code) {
  worker.say(worker.hello());
  REQUIRE(worker.expect<wire::Welcome>().has_value());
  const auto start = worker.expect<wire::StartRank>();
  REQUIRE(start.has_value());
  REQUIRE(worker.begin_rank(*start));
  worker.end_rank(*start, exit_code);
  return *start;
}

wire::SpoolData spool(const wire::StartRank& start, wire::Stream stream, std::string bytes) {
  wire::SpoolData data;
  data.job = start.job;
  data.generation = start.generation;
  data.process = start.process;
  data.stream = stream;
  data.bytes = std::move(bytes);
  data.end = true;
  return data;
}

TEST_CASE("api: a job runs, and its events, logs and steps are there to their end") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  FakeWorker worker(coordinator.line_of("join.json"));
  REQUIRE(worker.connected());
  REQUIRE(coordinator.ask("POST", "/api/v1/jobs", kRunSpec).status == 200);
  const wire::StartRank start = run_one(worker, 0);
  CHECK(start.name == "hello");

  worker.say(spool(start, wire::Stream::log, "hi \xf0\x9f\x8e\xbb\xff\n"));
  const auto log_ack = worker.expect<wire::SpoolAcked>();
  REQUIRE(log_ack.has_value());
  CHECK(log_ack->offset == 9);
  CHECK(log_ack->end);
  worker.say(spool(start, wire::Stream::steps, "{\"step\":1,\"weights\":\"aa\"}\n"));
  REQUIRE(worker.expect<wire::SpoolAcked>().has_value());

  std::string text;
  for (const auto& chunk : read_to_end(coordinator, "/api/v1/jobs/1/logs", "chunks")) {
    text += chunk.at("text").as_string().c_str();
  }
  CHECK(text == "hi \xf0\x9f\x8e\xbb\xef\xbf\xbd\n");
  CHECK(read_to_end(coordinator, "/api/v1/jobs/1/steps", "steps").size() == 1);

  std::vector<std::string> kinds;
  for (const auto& event : read_to_end(coordinator, "/api/v1/jobs/1/events", "events")) {
    kinds.emplace_back(event.at("kind").as_string());
  }
  REQUIRE(kinds.size() >= 3);
  CHECK(kinds.front() == "submitted");
  CHECK(kinds.back() == "finished");
  const auto job = json_in(coordinator.ask("GET", "/api/v1/jobs/1"));
  CHECK(job.at("state") == "done");
  CHECK(job.at("exit_code") == 0);
  CHECK(job.at("spec").as_string().find("echo") != std::string::npos);
  CHECK(
      coordinator.ask("GET", "/metrics").body.find("tutti_jobs{kind=\"run\",state=\"done\"} 1\n") !=
      std::string::npos);
}

TEST_CASE("api: a job says how its program ended, and what was charged to whom") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  FakeWorker worker(coordinator.line_of("join.json"));
  REQUIRE(worker.connected());
  REQUIRE(coordinator.ask("POST", "/api/v1/jobs", kRunSpec).status == 200);
  run_one(worker, 3);
  read_to_end(coordinator, "/api/v1/jobs/1/events", "events");
  const auto job = json_in(coordinator.ask("GET", "/api/v1/jobs/1"));
  CHECK(job.at("failure").at("class") == "user");
  CHECK(job.at("failure").at("code") == 3);
  CHECK(job.at("failure").at("signal").is_null());
  CHECK(job.at("budgets") == boost::json::parse(R"({"user": {"used": 1, "of": 0},
                               "infrastructure": {"used": 0, "of": 20},
                               "own": {"used": 0, "of": 3},
                               "preempted": {"used": 0, "of": null},
                               "drained": 0, "resized": 0})"));
}

TEST_CASE("api: what a device's driver tells is shown with its node, and in the metrics") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  FakeWorker worker(coordinator.line_of("join.json"));
  REQUIRE(worker.connected());
  worker.hello().devices = {{.uuid = "GPU-0", .name = "Made-up", .memory_bytes = 80},
                            {.uuid = "GPU-1", .name = "Made-up", .memory_bytes = 80}};
  worker.say(worker.hello());
  REQUIRE(worker.expect<wire::Welcome>().has_value());
  worker.say(wire::Heartbeat{.progress = {},
                             .readings = {{.uuid = "GPU-1",
                                           .memory_free_bytes = 7,
                                           .temperature_celsius = 91,
                                           .slowdown_celsius = 90,
                                           .power_limit_watts = 700,
                                           .throttle_reasons = {"power cap"},
                                           .links = {{"GPU-0", 18, 390'000}}}}});
  REQUIRE(worker.expect<wire::HeartbeatAnswered>().has_value());
  const auto nodes = json_in(coordinator.ask("GET", "/api/v1/nodes"));
  const auto& devices = nodes.at("nodes").at(0).at("devices");
  CHECK(devices.at(0).at("reading").is_null());
  const auto& reading = devices.at(1).at("reading");
  CHECK(reading.at("temperature_celsius") == 91);
  CHECK(reading.at("slowdown_celsius") == 90);
  CHECK(reading.at("memory_free_bytes") == 7);
  CHECK(reading.at("throttle_reasons").at(0) == "power cap");
  CHECK(reading.at("links").at(0).at("count") == 18);
  CHECK(reading.at("links").at(0).at("mb_per_s") == 390'000);
  const std::string metrics = coordinator.ask("GET", "/metrics").body;
  for (const char* const line :
       {"tutti_device_temperature_celsius{node=\"node-a\",device=\"GPU-1\"} 91\n",
        "tutti_device_power_limit_watts{node=\"node-a\",device=\"GPU-1\"} 700\n",
        "tutti_device_memory_free_bytes{node=\"node-a\",device=\"GPU-1\"} 7\n",
        "tutti_device_throttled{node=\"node-a\",device=\"GPU-1\",reason=\"power cap\"} 1\n",
        "tutti_device_links{node=\"node-a\",device=\"GPU-1\",peer=\"GPU-0\"} 18\n",
        "tutti_device_link_bytes_per_second{node=\"node-a\",device=\"GPU-1\",peer=\"GPU-0\"} "
        "390000000000\n"}) {
    INFO(line);
    CHECK(metrics.find(line) != std::string::npos);
  }
}

TEST_CASE("api: two different weights for one step fail the job as our own error") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  FakeWorker worker(coordinator.line_of("join.json"));
  REQUIRE(worker.connected());
  REQUIRE(coordinator.ask("POST", "/api/v1/jobs", kRunSpec).status == 200);
  worker.say(worker.hello());
  REQUIRE(worker.expect<wire::Welcome>().has_value());
  const auto start = worker.expect<wire::StartRank>();
  REQUIRE(start.has_value());
  worker.say(spool(*start, wire::Stream::steps,
                   "{\"step\":1,\"weights\":\"aa\"}\n{\"step\":1,\"weights\":\"bb\"}\n"));
  REQUIRE(worker.expect<wire::StopRank>().has_value());
  wire::RankExited exited;
  exited.job = start->job;
  exited.generation = start->generation;
  exited.process = start->process;
  exited.ordered = true;
  worker.report(exited);
  read_to_end(coordinator, "/api/v1/jobs/1/events", "events");
  const auto job = json_in(coordinator.ask("GET", "/api/v1/jobs/1"));
  CHECK(job.at("state") == "failed");
  CHECK(job.at("exit_code") == 4);
}

TEST_CASE("api: events stream as they happen, and the stream ends when the coordinator does") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  auto client =
      *api::HttpClient::connect_to({.url = coordinator.url(), .token = coordinator.token()});
  std::string seen;
  bool submitted = false;
  api::HttpRequest request;
  request.target = "/api/v1/events";
  request.accept = "text/event-stream";
  const auto ended = client->stream(request, [&](std::string_view part) {
    seen.append(part);
    // The first part, a comment, shows that the stream is open.
    if (!std::exchange(submitted, true))
      CHECK(coordinator.ask("POST", "/api/v1/jobs", kRunSpec).status == 200);
    if (seen.find("\"submitted\"") != std::string::npos) coordinator.end();
    return true;
  });
  CHECK(seen.find("id: 1\ndata: {") != std::string::npos);
  CHECK(ended.error().code == ErrorCode::unavailable);
}

}  // namespace
}  // namespace tutti
