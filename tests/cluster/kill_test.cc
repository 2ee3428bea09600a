// kill -9 of each kind of process in the middle of a run: it goes on with the bits of the
// undisturbed one.
#include <catch2/catch.hpp>

#include <signal.h>

#include <algorithm>

#include "tests/cluster/training_specs.h"

using namespace tutti;
using test::Cluster;
using test::eventually;
using test::training_spec;

namespace {

struct Run {
  std::uint64_t job = 0;
  std::string spec;
};

// A run under way, at step 30 or later: one checkpoint is behind it.
Run begin(Cluster& cluster, unsigned ranks = 2) {
  const auto text = test::write_prose(cluster.files());
  Run out;
  out.spec = training_spec(text, {.ranks = ranks, .steps = test::kEndless, .every = 25});
  out.job = cluster.submit(out.spec);
  REQUIRE(eventually([&] { return cluster.step_of(out.job) >= 30; }));
  return out;
}

bool runs_again(const Cluster& cluster, const Run& run) {
  return cluster.state_of(run.job) == "running" &&
         cluster.job(run.job).at("generation").to_number<int>() >= 2;
}

void check_end(Cluster& cluster, const Run& run) {
  test::check_undisturbed(cluster, run.job, run.spec);
  CHECK(cluster.stop() == 0);
}

}  // namespace

TEST_CASE("cluster: a run survives kill -9 of a rank, whose peer keeps its process and its state") {
  Cluster cluster;
  const Run run = begin(cluster);
  const auto ranks = cluster.ranks_of(run.job);
  REQUIRE(ranks.size() == 2);
  REQUIRE(::kill(ranks.front(), SIGKILL) == 0);
  REQUIRE(eventually(
      [&] { return runs_again(cluster, run) && cluster.ranks_of(run.job).size() == 2; }));
  const auto now = cluster.ranks_of(run.job);
  CHECK(std::count(now.begin(), now.end(), ranks.back()) == 1);
  check_end(cluster, run);
}

TEST_CASE("cluster: a run survives kill -9 of the worker, and no rank outlives it") {
  Cluster cluster;
  const Run run = begin(cluster);
  const auto ranks = cluster.ranks_of(run.job);
  REQUIRE(ranks.size() == 2);
  cluster.kill_part("worker");
  REQUIRE(eventually([&] {
    const auto now = cluster.ranks_of(run.job);
    return std::none_of(ranks.begin(), ranks.end(),
                        [&](pid_t old) { return std::count(now.begin(), now.end(), old) > 0; });
  }));
  REQUIRE(eventually([&] { return runs_again(cluster, run); }));
  check_end(cluster, run);
}

TEST_CASE("cluster: a run does not notice kill -9 of the coordinator") {
  Cluster cluster;
  const Run run = begin(cluster);
  auto ranks = cluster.ranks_of(run.job);
  cluster.kill_part("coordinator");
  REQUIRE(eventually([&] { return cluster.state_of(run.job) == "running"; }));
  CHECK(cluster.job(run.job).at("generation").to_number<int>() == 1);
  auto now = cluster.ranks_of(run.job);
  std::sort(ranks.begin(), ranks.end());
  std::sort(now.begin(), now.end());
  CHECK(now == ranks);
  check_end(cluster, run);
}

TEST_CASE(
    "cluster: a worker that falls silent is lost after its lease, and taken back when it speaks "
    "again") {
  Cluster cluster;
  const Run run = begin(cluster);
  const pid_t worker = cluster.pid_of("worker");
  REQUIRE(::kill(worker, SIGSTOP) == 0);
  CHECK(eventually(
      [&] { return cluster.get("/api/v1/nodes").body.find("\"lost\"") != std::string::npos; }));
  REQUIRE(::kill(worker, SIGCONT) == 0);
  REQUIRE(eventually([&] { return cluster.state_of(run.job) == "running"; }));
  check_end(cluster, run);
}

TEST_CASE("cluster: a gang over two workers loses one of them and goes on with a third") {
  Cluster cluster(1);
  cluster.add_worker("second", 2);
  const Run run = begin(cluster, 3);
  cluster.kill_worker("second");
  REQUIRE(eventually([&] { return cluster.state_of(run.job) == "recovering"; }));
  cluster.add_worker("third", 2);
  REQUIRE(eventually([&] { return runs_again(cluster, run); }));
  check_end(cluster, run);
}
