// `tutti` as a shell sees it: what is wrong with a command line, and a replay that proves a run.
#include <catch2/catch.hpp>

#include <boost/json/parse.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include "protocol/base/file.h"
#include "tests/cluster/training_specs.h"
#include "tests/support/cluster.h"

using namespace tutti;
using test::Cluster;
using test::Finished;
using test::run_tutti;

namespace {

constexpr int kUsage = 2;

void check_refused(const std::vector<std::string>& words, const std::string& part, int code) {
  const Finished finished = run_tutti(words);
  INFO(finished.err);
  CHECK(finished.code == code);
  CHECK(finished.out.empty());
  CHECK(finished.err.find("tutti: ") == 0);
  CHECK(finished.err.find(part) != std::string::npos);
  CHECK(std::count(finished.err.begin(), finished.err.end(), '\n') == 1);
}

}  // namespace

TEST_CASE("command line: what cannot be meant is one line with the nearest word, and ends with 2") {
  check_refused({"submt"}, "did you mean \"submit\"?", kUsage);
  check_refused({"fault"}, "kill-rank", kUsage);
  check_refused({"fault", "kil-rank", "1", "0"}, "did you mean \"fault kill-rank\"?", kUsage);
  check_refused({"logs", "1", "--folow"}, "did you mean --follow?", kUsage);
  check_refused({"job"}, "JOB", kUsage);
  check_refused({"jobs", "-o", "xml"}, "xml", kUsage);
  check_refused({"verify", "1", "--steps", "5:2"}, "FIRST:LAST", kUsage);
  check_refused({"spec", "check", "/no/such/spec.yaml"}, "/no/such/spec.yaml", kUsage);
  check_refused({"worker", "--config", "/no/such/worker.yaml"}, "/no/such/worker.yaml", kUsage);
}

TEST_CASE("command line: help and the resolved spec need no cluster; what needs one says so") {
  CHECK(run_tutti({"help"}).out.find("submit F.yaml") != std::string::npos);
  CHECK(run_tutti({"submit", "--help"}).out.find("--follow") != std::string::npos);
  CHECK(run_tutti({"tokenize", "--help"}).out.find("--tokenizer") != std::string::npos);

  const test::TemporaryFolder folder;
  const std::string text = test::training_spec("/data/prose.txt", {.ranks = 2});
  REQUIRE(write_file_atomically(folder.path() / "job.yaml", text));
  const Finished resolved = run_tutti({"spec", "check", (folder.path() / "job.yaml").string()});
  REQUIRE(resolved.code == 0);
  REQUIRE(write_file_atomically(folder.path() / "resolved.yaml", resolved.out));
  CHECK(run_tutti({"spec", "check", (folder.path() / "resolved.yaml").string()}).out ==
        resolved.out);
  const Finished memory =
      run_tutti({"memory", (folder.path() / "job.yaml").string(), "-o", "json"});
  INFO(memory.err);
  CHECK(memory.code == 0);
  CHECK(memory.out.find(R"({"bytes":)") == 0);
  CHECK(run_tutti({"memory", "/no/such/spec.yaml"}).code == kUsage);

  const std::string nowhere = "TUTTI_STATE=" + (folder.path() / "none").string();
  const Finished jobs = run_tutti({"jobs"}, {nowhere});
  CHECK(jobs.code == 3);
  CHECK(jobs.err.find("start one with `tutti up`") != std::string::npos);
}

TEST_CASE("command line: verify finds the hashes of a run equal, and knows which steps there are") {
  Cluster cluster;
  const auto text = test::write_prose(cluster.files());
  const auto job = cluster.submit(test::training_spec(text, {.ranks = 2, .steps = 12, .every = 5}));
  CHECK(cluster.wait(job) == 0);

  const Finished verified =
      cluster.tutti({"verify", std::to_string(job), "--steps", "11:12", "-o", "json"});
  INFO(verified.err);
  REQUIRE(verified.code == 0);
  const boost::json::value report = boost::json::parse(verified.out);
  CHECK(report.at("equal").as_bool());
  CHECK(report.at("from_step").to_number<int>() == 10);
  CHECK(report.at("steps").as_array().size() == 2);
  CHECK(cluster.hashes(job).size() == 12);

  const Finished beyond = cluster.tutti({"verify", std::to_string(job), "--steps", "10:13"});
  CHECK(beyond.code == kUsage);
  CHECK(beyond.err.find("no record of step 13") != std::string::npos);
  const auto program = cluster.submit("name: p\nkind: run\ncommand: ['true']\n");
  CHECK(cluster.wait(program) == 0);
  CHECK(cluster.tutti({"verify", std::to_string(program), "--steps", "1:1"}).code == kUsage);
  CHECK(cluster.stop() == 0);
}
