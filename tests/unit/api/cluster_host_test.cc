#include "coordinator/cluster_host.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>

#include "coordinator/api/cluster_routes.h"
#include "coordinator/state_folder.h"
#include "tests/unit/api/coordinator_fixture.h"
#include "tests/unit/api/fake_worker.h"
#include "tests/unit/api/hosted_cluster.h"

namespace tutti::coordinator {
namespace {

using test::Hosted;

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
  let_in("node-a");
  REQUIRE(hosted.eventually([&] { return hosted.access.of_worker("node-a").has_value(); }));
  REQUIRE(
      hosted.eventually([&] { return !hosted.cluster->settled_state().knows_worker("node-a"); }));
  CHECK(hosted.access.of_worker("node-a"));  // it may come back
  let_in("node-b");
  CHECK(hosted.eventually([&] { return !hosted.access.of_worker("node-a"); }));
  CHECK(hosted.eventually([&] { return hosted.access.of_worker("node-b").has_value(); }));
}

TEST_CASE("api: all nodes are read a few at a time, each once and by name") {
  Hosted hosted;
  std::vector<std::unique_ptr<test::FakeWorker>> workers;
  const std::vector<std::string> names = {"node-a", "node-b", "node-c", "node-d"};
  for (const std::string& name : names) {
    workers.push_back(std::make_unique<test::FakeWorker>(
        hosted.join, test::FakeWorkerOptions{.name = name, .keys = transport::make_keys()}));
    REQUIRE(workers.back()->connected());
    workers.back()->say(workers.back()->hello());
    REQUIRE(workers.back()->expect<wire::Welcome>().has_value());
  }
  for (const std::size_t at_once : {1, 2, 3, 4, 5}) {
    boost::asio::io_context context;
    std::vector<std::string> read;
    const auto reading = [&]() -> boost::asio::awaitable<void> {
      const auto found = co_await api::all_nodes(*hosted.cluster, at_once);
      for (const NodeView& node : *found) read.push_back(node.name);
    };
    boost::asio::co_spawn(context, reading, boost::asio::detached);
    context.run();
    CHECK(read == names);
  }
}

TEST_CASE("coordinator: a token whose time is over goes, and the audit says so") {
  Hosted hosted;
  const std::int64_t soon = wall_now().unix_ms + 20;
  const auto token =
      hosted.access.make({.user = "ann", .expires_unix_ms = soon}, std::string(48, 'a'), soon - 20);
  REQUIRE(token.ok());
  REQUIRE(std::holds_alternative<Done>(hosted.change(token->change)));
  const auto audit = [&] {
    return hosted.ask([&] {
      static_cast<void>(hosted.cluster->settled_state());
      return *hosted.cluster->ledger().audit(0, 10);
    });
  };
  CHECK(hosted.eventually([&] { return hosted.access.list().empty(); }));
  const std::vector<AuditRecord> records = audit();
  REQUIRE(records.size() == 2);
  CHECK(records[1].seq == 2);
  CHECK(records[1].user == "tutti");
  CHECK(records[1].action == "token expire");
  CHECK(records[1].target == "token 1");
}

}  // namespace
}  // namespace tutti::coordinator
