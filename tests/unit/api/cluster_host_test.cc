#include "coordinator/cluster_host.h"

#include <future>
#include <thread>

#include "coordinator/state_folder.h"
#include "protocol/spec/parse.h"
#include "tests/unit/api/coordinator_fixture.h"
#include "tests/unit/api/fake_worker.h"

namespace tutti::coordinator {
namespace {

SubmitJob submit_of(std::size_t argument_bytes) {
  SubmitJob submit;
  submit.spec = *spec::parse_job_spec("name: x\nkind: run\ncommand: [echo, " +
                                      std::string(argument_bytes, 'y') + "]\n");
  submit.yaml = spec::to_yaml(submit.spec);
  submit.owner = "admin";
  return submit;
}

template <class T>
T wait_for(std::future<T> future) {
  REQUIRE(future.wait_for(test::patient(std::chrono::seconds(20))) == std::future_status::ready);
  return future.get();
}

AnswerBody ask_to_submit(ClusterHost& cluster, std::size_t argument_bytes) {
  auto answered = std::make_shared<std::promise<AnswerBody>>();
  REQUIRE(cluster.host()
              .tell([&cluster, argument_bytes, answered] {
                cluster.ask(submit_of(argument_bytes), {},
                            [answered](AnswerBody body) { answered->set_value(std::move(body)); });
              })
              .ok());
  return wait_for(answered->get_future());
}

AnswerBody ask_to_change(ClusterHost& cluster, const AccessChange& change) {
  auto answered = std::make_shared<std::promise<AnswerBody>>();
  Caller caller;
  caller.user = "admin";
  caller.action = "token";
  REQUIRE(cluster.host()
              .tell([&cluster, change, caller, answered] {
                cluster.change_access(change, caller, [answered](AnswerBody body) {
                  answered->set_value(std::move(body));
                });
              })
              .ok());
  return wait_for(answered->get_future());
}

AnswerBody ask_to_cancel(ClusterHost& cluster, JobId job) {
  auto answered = std::make_shared<std::promise<AnswerBody>>();
  REQUIRE(cluster.host()
              .tell([&cluster, job, answered] {
                CancelJob cancel;
                cancel.job = job;
                cluster.ask(cancel, {},
                            [answered](AnswerBody body) { answered->set_value(std::move(body)); });
              })
              .ok());
  return wait_for(answered->get_future());
}

JobState state_of(ClusterHost& cluster, JobId job) {
  auto state = std::make_shared<std::promise<JobState>>();
  REQUIRE(cluster.host()
              .tell([&cluster, job, state] {
                state->set_value(cluster.settled_state().find_job(job)->state);
              })
              .ok());
  return wait_for(state->get_future());
}

std::string submit_with_key(test::RunningCoordinator& coordinator, const std::string& key) {
  const auto answer = coordinator.ask(
      "POST", "/api/v1/jobs",
      R"({"spec": "name: x\nkind: run\ncommand: ['true']\n", "file": "x", "key": ")" + key + "\"}");
  REQUIRE(answer.status == 200);
  return answer.body;
}

TEST_CASE("coordinator: what a crash left of forgotten jobs goes at the next start, no more") {
  const test::TemporaryFolder folder;
  const auto records = [&](const std::string& job) {
    return folder.path() / "jobs" / job / "records";
  };
  {
    test::RunningCoordinator coordinator(folder.path());
    for (int i = 0; i < 2; ++i) submit_with_key(coordinator, std::to_string(i));
    CHECK(coordinator.end() == 0);
  }
  for (const char* job : {"0", "1", "2", "77"}) std::filesystem::create_directories(records(job));
  {
    test::RunningCoordinator coordinator(folder.path());
    coordinator.ask("GET", "/api/v1/jobs/1/logs");  // which waits for its turn behind that
    CHECK(coordinator.end() == 0);
  }
  CHECK_FALSE(std::filesystem::exists(folder.path() / "jobs" / "0"));
  CHECK(std::filesystem::exists(records("1")));
  CHECK(std::filesystem::exists(records("2")));
}

TEST_CASE("coordinator: copies of the ledger that a dead one was sending are removed, no others") {
  const test::TemporaryFolder folder;
  const auto left = folder.path() / (std::string(kLedgerCopyPrefix) + "0123456789abcdef");
  const auto kept = folder.path() / "ledger.backup";
  for (const auto& file : {left, kept}) REQUIRE(write_file_atomically(file, "rows").ok());
  test::RunningCoordinator coordinator(folder.path());
  CHECK_FALSE(std::filesystem::exists(left));
  CHECK(std::filesystem::exists(kept));
}

TEST_CASE("coordinator: jobs of a journal that is gone keep their numbers, folders and records") {
  const test::TemporaryFolder folder;
  const auto jobs = folder.path() / "jobs";
  const auto log_of = [&](const std::string& job, const std::string& where) {
    return jobs / job / where / "log-00000000000000000000";
  };
  std::filesystem::create_directories(jobs / "77" / "records");
  REQUIRE(write_file_atomically(log_of("77", "records"), "theirs").ok());
  for (const char* expected : {"78", "79"}) {  // and another coordinator after it
    test::RunningCoordinator coordinator(folder.path());
    CHECK(submit_with_key(coordinator, expected).find(std::string(":") + expected) !=
          std::string::npos);
    CHECK(coordinator.ask("GET", "/api/v1/jobs/77").status == 404);
    CHECK(coordinator.end() == 0);
    CHECK_FALSE(std::filesystem::exists(jobs / "77" / "records"));
    CHECK(*read_file(log_of("77", "records.replaced")) == "theirs");
  }
  // Put back is what a journal knows that comes after them.
  std::filesystem::create_directories(jobs / "78" / "records.replaced");
  REQUIRE(write_file_atomically(log_of("78", "records.replaced"), "own").ok());
  test::RunningCoordinator coordinator(folder.path());
  CHECK(*read_file(log_of("78", "records")) == "own");
  CHECK(coordinator.end() == 0);
}

// A ClusterHost without the HTTP server around it.
struct Hosted {
  explicit Hosted(ClusterHostOptions options = {}, ClusterSettings settings = {}) {
    ClusterHostLinks links;
    links.stores = &stores;
    links.notices = &notices;
    links.access = &access;
    links.open_serving = [](const OpenServing&) {};
    links.close_serving = [](const CloseServing&) {};
    links.on_fatal = [](const Error&) {};
    cluster = std::make_unique<ClusterHost>(runtime, std::move(links));
    options.host = "127.0.0.1";
    options.keys = transport::make_keys();
    settings.job_folders = (folder.path() / "jobs").string();
    settings.join_token = "join";
    auto ledger =
        Ledger::open({.folder = folder.path(), .events_max = kEventsMax, .pages_max = 100});
    REQUIRE(ledger.ok());
    REQUIRE(cluster->open(options, settings, *std::move(ledger)).ok());
    join = "{\"endpoint\": \"" + cluster->control_address() + "\", \"server_key\": \"" +
           options.keys.public_key + "\", \"join_token\": \"join\"}";
    runtime.start();
  }
  Hosted(const Hosted&) = delete;
  Hosted& operator=(const Hosted&) = delete;
  ~Hosted() { runtime.stop(); }

  // What it gives, on the host's strand.
  template <class Question>
  auto ask(Question question) {
    using T = decltype(question());
    auto answered = std::make_shared<std::promise<T>>();
    REQUIRE(cluster->host().tell([question, answered] { answered->set_value(question()); }).ok());
    return wait_for(answered->get_future());
  }

  const test::TemporaryFolder folder;
  actor::Runtime runtime{2};
  Notices notices;
  JobStores stores{runtime, folder.path() / "jobs", folder.path() / "jobs", notices};
  AccessTable access{"admin", "join"};
  std::string join;
  std::unique_ptr<ClusterHost> cluster;
};

TEST_CASE("coordinator: keys of workers that are forgotten are kept for the newest of them") {
  ClusterHostOptions options;
  options.forgotten_keys_max = 0;
  ClusterSettings settings;
  settings.lease = settings.forget = std::chrono::milliseconds(100);
  Hosted hosted(options, settings);
  const auto let_in = [&](const std::string& name) {
    test::FakeWorker worker(hosted.join, {.name = name, .keys = transport::make_keys()});
    REQUIRE(worker.connected());
    worker.say(worker.hello());
    REQUIRE(worker.expect<wire::Welcome>().has_value());
  };
  const auto until = std::chrono::steady_clock::now() + test::patient(std::chrono::seconds(10));
  const auto eventually = [&](auto holds) {
    while (!holds() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    return holds();
  };
  let_in("node-a");
  REQUIRE(eventually([&] { return hosted.access.of_worker("node-a").has_value(); }));
  REQUIRE(eventually([&] {
    return hosted.ask([&] { return !hosted.cluster->settled_state().knows_worker("node-a"); });
  }));
  CHECK(hosted.access.of_worker("node-a"));  // it may come back
  let_in("node-b");
  CHECK(eventually([&] { return !hosted.access.of_worker("node-a"); }));
  CHECK(eventually([&] { return hosted.access.of_worker("node-b").has_value(); }));
}

TEST_CASE("coordinator: a token whose time is over goes, and the audit says so") {
  Hosted hosted;
  const std::int64_t soon = wall_now().unix_ms + 20;
  const auto token =
      hosted.access.make({.user = "ann", .expires_unix_ms = soon}, std::string(48, 'a'), soon - 20);
  REQUIRE(token.ok());
  REQUIRE(std::holds_alternative<Done>(ask_to_change(*hosted.cluster, token->change)));
  const auto audit = [&] {
    return hosted.ask([&] {
      static_cast<void>(hosted.cluster->settled_state());
      return *hosted.cluster->ledger().audit(0, 10);
    });
  };
  const auto until = std::chrono::steady_clock::now() + test::patient(std::chrono::seconds(10));
  while (!hosted.access.list().empty() && std::chrono::steady_clock::now() < until)
    std::this_thread::yield();
  CHECK(hosted.access.list().empty());
  const std::vector<AuditRecord> records = audit();
  REQUIRE(records.size() == 2);
  CHECK(records[1].seq == 2);
  CHECK(records[1].user == "tutti");
  CHECK(records[1].action == "token expire");
  CHECK(records[1].target == "token 1");
}

TEST_CASE("coordinator: a full disk refuses submits, and the job that runs goes on") {
  ClusterHostOptions options;
  options.answer_within = Duration::zero();  // at the first look
  Hosted hosted(options);
  const auto& folder = hosted.folder;
  AccessTable& access = hosted.access;
  ClusterHost& cluster = *hosted.cluster;
  test::FakeWorker worker(hosted.join);
  REQUIRE(worker.connected());
  REQUIRE(std::holds_alternative<JobAccepted>(ask_to_submit(cluster, 10)));
  worker.say(worker.hello());
  REQUIRE(worker.expect<wire::Welcome>().has_value());
  REQUIRE(worker.expect<wire::StartRank>().has_value());
  // The folder may be on a disk that hangs: it is the worker's to make.
  CHECK_FALSE(std::filesystem::exists(folder.path() / "jobs" / "1"));

  const std::string secret(48, 'a');
  const auto token = access.make({.user = "ann"}, secret, wall_now().unix_ms);
  REQUIRE(token.ok());
  REQUIRE(std::holds_alternative<Done>(ask_to_change(cluster, token->change)));
  REQUIRE(access.of_token(token->token, wall_now().unix_ms));

  AnswerBody answer;
  for (int i = 0; i < 20 && !std::holds_alternative<Error>(answer); ++i)
    answer = ask_to_submit(cluster, 100'000);
  REQUIRE(std::holds_alternative<Error>(answer));
  CHECK(std::get<Error>(answer).code == ErrorCode::unavailable);
  CHECK(std::holds_alternative<Error>(ask_to_submit(cluster, 10)));
  worker.say(wire::Heartbeat{});
  CHECK(worker.expect<wire::HeartbeatAnswered>().has_value());
  CHECK(state_of(cluster, JobId{1}) == JobState::placed);
  // Nor does anybody wait for ever for what is decided and cannot be made durable.
  const AnswerBody cancelled = ask_to_cancel(cluster, JobId{1});
  REQUIRE(std::holds_alternative<Error>(cancelled));
  CHECK(std::get<Error>(cancelled).code == ErrorCode::unavailable);
  CHECK(std::get<Error>(cancelled).message.find("disk is full") != std::string::npos);
  // Who loses access loses it all the same, and is told what that is worth.
  const AnswerBody revoked = ask_to_change(cluster, {token->change.record, true});
  CHECK_FALSE(access.of_token(token->token, wall_now().unix_ms));
  REQUIRE(std::holds_alternative<Error>(revoked));
  CHECK(std::get<Error>(revoked).message.find("it is good no more") != std::string::npos);
}

}  // namespace
}  // namespace tutti::coordinator
