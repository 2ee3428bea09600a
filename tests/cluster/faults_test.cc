// A schedule of faults on a real job, as a user runs it: `tutti fault run`.
#include <signal.h>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <thread>

#include "protocol/base/file.h"
#include "tests/cluster/training_specs.h"
#include "worker/launcher/launcher.h"

using namespace tutti;
using test::Cluster;
using test::Finished;
using namespace std::chrono_literals;

namespace {

namespace json = boost::json;

// A small training of two ranks beside the file, as a user's folder has them.
std::string write_files(const Cluster& cluster, const std::string& faults, unsigned steps = 90) {
  const auto text = test::write_prose(cluster.files());
  const std::string spec = test::training_spec(text, {.ranks = 2, .steps = steps, .every = 20});
  REQUIRE(write_file_atomically(cluster.files() / "job.yaml", spec));
  const std::string file = (cluster.files() / "faults.yaml").string();
  REQUIRE(write_file_atomically(file, "spec: job.yaml\n" + faults));
  return file;
}

json::value report_of(const Finished& finished) {
  INFO(finished.out << finished.err);
  boost::system::error_code failed;
  json::value report = json::parse(finished.out, failed);
  REQUIRE_FALSE(failed);
  return report;
}

// The checks that do not hold, and those that were not made.
std::string not_held(const json::value& report) {
  std::string out;
  for (const json::value& check : report.at("checks").as_array()) {
    if (check.at("held") == json::value(true)) continue;
    out += std::string(check.at("check").as_string()) + ": " +
           std::string(check.at("seen").as_string()) + "; ";
  }
  return out;
}

// As SIGSTOP leaves it.
bool is_stopped(pid_t pid) {
  const auto status = read_file("/proc/" + std::to_string(pid) + "/status");
  return status && status->find("State:\tT") != std::string::npos;
}

}  // namespace

TEST_CASE("cluster: a schedule of faults from a seed, and every promise that is checked holds") {
  Cluster cluster(2);
  const std::string file = write_files(cluster,
                                       "faults:\n"
                                       "  seed: 3\n"
                                       "  inject:\n"
                                       "    - {fault: kill-rank, at: step 5..15}\n"
                                       "    - {fault: stop-rank, at: step 22..30, for: 300ms}\n"
                                       "    - {fault: kill-worker, at: step 40..50}\n"
                                       "    - {fault: kill-coordinator, at: step 60..65}\n");
  const Finished planned = cluster.tutti({"fault", "run", file, "--plan"});
  CHECK(planned.code == 0);
  CHECK(planned.out == cluster.tutti({"fault", "run", file, "--plan"}).out);
  CHECK(planned.out != cluster.tutti({"fault", "run", file, "--plan", "--seed", "4"}).out);
  CHECK(cluster.get("/api/v1/jobs").body.find("tiny") == std::string::npos);

  const Finished finished = cluster.tutti({"fault", "run", file, "-o", "json"}, 120s);
  const json::value report = report_of(finished);
  INFO(finished.out);
  CHECK(not_held(report).empty());
  CHECK(finished.code == 0);
  CHECK(report.at("faults").as_array().size() == 4);
  CHECK(report.at("faults").at(0).at("recovery").is_object());
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a fault that the job does not live to see is told, and what is wrong refused") {
  Cluster cluster(2);
  const std::string file = write_files(cluster,
                                       "faults: {seed: 1, inject: [{fault: kill-rank, at: 1h}]}\n"
                                       "compare: none\n",
                                       5);
  const Finished finished = cluster.tutti({"fault", "run", file, "-o", "json"}, 120s);
  CHECK(finished.code == 1);
  CHECK(not_held(report_of(finished)) ==
        "bits: compare: none; schedule: 0 of 1; fault 1 (kill-rank at 3600.0 s): the job had "
        "ended; ");
  const Finished refused = cluster.tutti({"fault", "run", file, "--set", "resources.ranks=9"});
  CHECK(refused.code != 0);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: Ctrl-C on a run of faults lets the stopped rank go on and cancels the job") {
  Cluster cluster(2);
  const std::string file = write_files(
      cluster, "faults: {seed: 1, inject: [{fault: stop-rank, at: step 3, for: never}]}\n",
      test::kEndless);
  Finished finished;
  std::thread user([&] { finished = cluster.tutti({"fault", "run", file}, 120s); });
  const bool stopped = test::eventually([&] {
    const auto ranks = cluster.ranks_of(1);
    return std::any_of(ranks.begin(), ranks.end(), is_stopped);
  });
  for (const pid_t pid : worker::find_marked({"TUTTI_STATE=" + cluster.state().string()})) {
    if (worker::command_of(pid).find(file) != std::string::npos) ::kill(pid, SIGINT);
  }
  user.join();
  CHECK(stopped);
  INFO(finished.out << finished.err);
  CHECK(finished.code == 128 + SIGINT);
  CHECK(finished.err.find("of job 1 goes on") != std::string::npos);
  CHECK(finished.err.find("job 1 is cancelled") != std::string::npos);
  CHECK(test::eventually([&] { return cluster.state_of(1) == "cancelled"; }));
  CHECK(cluster.stop() == 0);
}
