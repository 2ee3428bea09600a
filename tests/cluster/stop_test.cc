// Ctrl-C of `tutti up`: once, and whoever works saves and leaves; twice, and nothing waits.
#include <catch2/catch.hpp>

#include <signal.h>

#include <boost/json/array.hpp>

#include <filesystem>
#include <string>
#include <vector>

#include "protocol/spec/cluster_config.h"
#include "tests/cluster/training_specs.h"
#include "tests/support/cluster.h"

using namespace tutti;
using test::Cluster;
using test::eventually;

namespace {

// So long that who waits it out is taken for one that hangs (Cluster::stop has 30 s).
constexpr std::uint64_t kLongNotice = 10 * 60 * 1000;

// A state folder where the operator has written into the worker's file.
std::filesystem::path state_with(const test::TemporaryFolder& folder, const std::string& keys) {
  std::filesystem::path state = folder.path() / "state";
  std::filesystem::create_directories(state);
  REQUIRE(write_file_atomically(state / "worker.yaml",
                                "state: " + (state / "worker").string() +
                                    "\njoin: " + (state / "join.json").string() + "\n" + keys));
  return state;
}

std::string long_notice() { return "notice_ms: " + std::to_string(kLongNotice) + "\n"; }

// It obeys nobody, and has a child in a session of its own that does not either.
std::uint64_t submit_stubborn(const Cluster& cluster) {
  const std::string stubborn = "trap \"\" TERM INT HUP; while :; do sleep 0.1; done";
  const auto job =
      cluster.submit("name: stubborn\nkind: run\ncommand: [sh, -c, '" + stubborn +
                     " & setsid sh -c \"$0\" & echo up; wait; wait', '" + stubborn + "']\n");
  REQUIRE(eventually([&] {
    return cluster.tutti({"logs", std::to_string(job)}).out.find("up") != std::string::npos;
  }));
  return job;
}

std::vector<pid_t> processes_of(const Cluster& cluster, std::uint64_t job) {
  return worker::find_marked({"TUTTI_JOB=" + std::to_string(job),
                              "TUTTI_WORKER_MARK=" + (cluster.state() / "worker").string()});
}

// A signal that comes before it stands is taken first, whatever the order of the two.
bool stands_still(pid_t pid) {
  const auto status = read_file("/proc/" + std::to_string(pid) + "/status");
  return status && status->find("State:\tT") != std::string::npos;
}

}  // namespace

TEST_CASE("stop: Ctrl-C lets a training job finish its step and save it, and nothing is redone") {
  Cluster cluster;
  const auto text = test::write_prose(cluster.files());
  const std::string spec =
      test::training_spec(text, {.ranks = 2, .steps = test::kEndless, .every = test::kEndless});
  const auto job = cluster.submit(spec);
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 3; }));
  CHECK(cluster.stop(SIGINT) == 0);
  cluster.start();
  REQUIRE(eventually([&] { return cluster.state_of(job) == "running"; }));
  const auto found = cluster.job(job);
  const auto& checkpoints = found.at("checkpoints").as_array();
  REQUIRE(checkpoints.size() == 1);
  const auto saved = checkpoints.at(0).at("step").to_number<std::uint64_t>();
  CHECK(saved >= 3);
  CHECK(found.at("budgets").at("infrastructure").at("used").to_number<int>() == 0);
  REQUIRE(eventually([&] { return cluster.step_of(job) > saved; }));
  const std::string events = cluster.tutti({"events", std::to_string(job)}).out;
  INFO(events);
  CHECK(events.find("rank_lost") == std::string::npos);
  test::end_run(cluster, job);  // each step once
  CHECK(cluster.stop(SIGINT) == 0);
}

TEST_CASE("stop: a second Ctrl-C ends programs that obey nobody, with all that they started") {
  const test::TemporaryFolder folder;
  Cluster cluster(1, state_with(folder, long_notice()));
  const auto job = submit_stubborn(cluster);
  REQUIRE(eventually([&] { return processes_of(cluster, job).size() >= 3; }));
  cluster.signal(SIGINT);
  REQUIRE(eventually(
      [&] { return cluster.log_of("worker").find("leaving within") != std::string::npos; }));
  CHECK_FALSE(processes_of(cluster, job).empty());
  CHECK(cluster.stop(SIGINT) == 0);  // finds nothing of it left
}

TEST_CASE("stop: a worker that cannot obey is killed on the second Ctrl-C, and its programs too") {
  const test::TemporaryFolder folder;
  Cluster cluster(1, state_with(folder, long_notice()));
  submit_stubborn(cluster);
  const pid_t worker = cluster.pid_of("worker");
  REQUIRE(::kill(worker, SIGSTOP) == 0);
  REQUIRE(eventually([&] { return stands_still(worker); }));
  cluster.signal(SIGINT);
  REQUIRE(eventually([&] { return test::is_pending(worker, SIGTERM); }));
  CHECK(cluster.stop(SIGINT) == 0);
}

TEST_CASE("up: what an operator wrote into its files stays there") {
  const test::TemporaryFolder folder;
  const auto state = state_with(folder, "runs_programs: false\nnotice_ms: 7000\nname: here\n");
  Cluster cluster(1, state);
  for (int life = 0; life < 2; ++life) {
    const auto text = read_file(state / "worker.yaml");
    REQUIRE(text);
    const auto config = spec::parse_worker_config(*text, "worker.yaml");
    REQUIRE(config);
    CHECK_FALSE(config->runs_programs);
    CHECK(config->notice_ms == 7'000);
    CHECK(config->name == "here");
    CHECK(config->slots == 1);  // as the command line says
    const auto job = cluster.submit("name: p\nkind: run\ncommand: ['true']\n");
    CHECK(cluster.tutti({"explain", std::to_string(job)}).out.find("runs no programs") !=
          std::string::npos);
    CHECK(cluster.stop() == 0);
    if (life == 0) cluster.start();
  }
}

TEST_CASE("up: a file that cannot be read is an error with its place, and is not written over") {
  const test::TemporaryFolder folder;
  const auto state = state_with(folder, "notice: 7000\n");
  const auto before = read_file(state / "worker.yaml");
  const auto up = test::run_tutti({"up", "--state", state.string()});
  CHECK(up.code == 2);
  CHECK(up.err.find("worker.yaml:3") != std::string::npos);
  CHECK(up.err.find("\"notice\"") != std::string::npos);
  CHECK(*read_file(state / "worker.yaml") == *before);
}
