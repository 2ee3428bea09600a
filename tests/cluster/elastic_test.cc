// Jobs that leave their slots, or change their ranks, on real processes: no step is lost and no bit
// changes.
#include <catch2/catch.hpp>

#include <boost/json/array.hpp>

#include <set>

#include "tests/cluster/training_specs.h"

using namespace tutti;
using test::Cluster;
using test::eventually;

namespace {

std::string elastic_spec(const std::filesystem::path& text, unsigned ranks_min,
                         const std::string& resume = {}) {
  return fmt::format(
      "name: elastic\n"
      "kind: train\n"
      "model: {{family: llama, layers: 2, width: 64, heads: 4, kv_heads: 2, vocabulary: 300}}\n"
      "data: {{text: [{}], sequence: 32}}\n"
      "train: {{steps: {}, batch: 8, seed: 3{}}}\n"
      "parallel: {{shards: 8}}\n"
      "resources: {{ranks: {{min: {}, max: 2}}, threads: 1}}\n"
      "checkpoint: {{every: 0, keep: 0}}\n",
      text.string(), test::kEndless, resume.empty() ? "" : ", resume: " + resume, ranks_min);
}

// A state folder whose coordinator is set up like this.
std::filesystem::path state_with(const test::TemporaryFolder& folder, const std::string& settings) {
  const auto state = folder.path() / "state";
  std::filesystem::create_directories(state);
  REQUIRE(write_file_atomically(state / "coordinator.yaml",
                                "state: " + state.string() + "\n" + settings));
  return state;
}

std::set<std::string> nodes_of(Cluster& cluster, std::uint64_t job) {
  std::set<std::string> out;
  const auto answer = cluster.job(job);
  for (const auto& process : answer.at("processes").as_array()) {
    out.emplace(process.at("worker").as_string());
  }
  return out;
}

bool runs_with(Cluster& cluster, std::uint64_t job, int ranks) {
  return cluster.state_of(job) == "running" &&
         cluster.job(job).at("ranks").to_number<int>() == ranks;
}

// The folder of the last checkpoint and its step.
std::pair<std::string, std::uint64_t> last_checkpoint(Cluster& cluster, std::uint64_t job) {
  const auto answer = cluster.job(job);
  const auto& checkpoints = answer.at("checkpoints").as_array();
  REQUIRE_FALSE(checkpoints.empty());
  return {std::string(checkpoints.back().at("folder").as_string()),
          checkpoints.back().at("step").to_number<std::uint64_t>()};
}

}  // namespace

TEST_CASE("cluster: folders of jobs are made where the coordinator's file says") {
  const test::TemporaryFolder folder;
  const auto jobs = folder.path() / "elsewhere";
  Cluster cluster(1, state_with(folder, "job_folders: " + jobs.string() + "\n"));
  const auto text = test::write_prose(cluster.files());
  const auto job = cluster.submit(test::training_spec(text, {.ranks = 1, .steps = 4, .every = 2}));
  REQUIRE(cluster.wait(job) == 0);
  const auto own = jobs / std::to_string(job);
  CHECK(cluster.job(job).at("folder").as_string() == own.string());
  CHECK(std::filesystem::exists(own / "checkpoints" / "step-4"));
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a run whose node dies goes on with the ranks that are left, to the same bits") {
  Cluster cluster(1);
  cluster.add_worker("second", 1);
  const auto text = test::write_prose(cluster.files());
  const auto job = cluster.submit(elastic_spec(text, 1) + "on_loss: {of_node: shrink}\n");
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 20; }));
  REQUIRE(runs_with(cluster, job, 2));
  cluster.kill_worker("second");
  CHECK(eventually([&] { return runs_with(cluster, job, 1); }));
  test::check_undisturbed(cluster, job, elastic_spec(text, 1));
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a run that began on the only free slot grows when the other one is free") {
  const test::TemporaryFolder folder;
  Cluster cluster(2, state_with(folder, "grow_after_ms: 100\n"));
  const auto text = test::write_prose(cluster.files());
  const auto flag = cluster.files() / "enough";
  const auto other = cluster.submit(fmt::format(
      "name: other\nkind: run\ncommand: [sh, -c, \"until test -e {}; do sleep 0.02; done\"]\n",
      flag.string()));
  REQUIRE(eventually([&] { return cluster.state_of(other) == "running"; }));
  const auto job = cluster.submit(elastic_spec(text, 1));
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 20; }));
  REQUIRE(runs_with(cluster, job, 1));
  REQUIRE(write_file_atomically(flag, ""));
  CHECK(eventually([&] { return runs_with(cluster, job, 2); }));
  CHECK(cluster.wait(other) == 0);
  test::check_undisturbed(cluster, job, elastic_spec(text, 2));  // each step once: none was redone
  const auto answer = cluster.job(job);
  CHECK(answer.at("restarts").to_number<int>() == 1);
  CHECK(cluster.tutti({"events", std::to_string(job)}).out.find("grows from 1 to 2 ranks") !=
        std::string::npos);
  CHECK(cluster.stop() == 0);
}

TEST_CASE(
    "cluster: a run that gives way to an urgent job saves, keeps its place, and loses no step") {
  Cluster cluster(2);
  const auto text = test::write_prose(cluster.files());
  const auto job = cluster.submit(elastic_spec(text, 2));
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 20; }));
  const auto flag = cluster.files() / "enough";
  const std::string until = fmt::format(
      "kind: run\ncommand: [sh, -c, \"until test -e {}; do sleep 0.02; done\"]\n"
      "resources: {{ranks: {{min: 2, max: 2}}}}\n",
      flag.string());
  const auto urgent = cluster.submit("name: urgent\npriority: 10\n" + until);
  const auto later = cluster.submit("name: later\n" + until);
  REQUIRE(eventually([&] { return cluster.state_of(urgent) == "running"; }));
  CHECK(cluster.state_of(job) == "queued");
  const auto [folder, step] = last_checkpoint(cluster, job);
  CHECK(step >= 20);
  REQUIRE(write_file_atomically(flag, ""));
  REQUIRE(cluster.wait(urgent) == 0);
  REQUIRE(eventually([&] { return runs_with(cluster, job, 2); }));
  CHECK(cluster.state_of(later) == "queued");                    // it came after
  test::check_undisturbed(cluster, job, elastic_spec(text, 2));  // each step once: none was redone
  const auto answer = cluster.job(job);
  CHECK(answer.at("budgets").at("preempted").at("used") == 1);
  CHECK(answer.at("budgets").at("infrastructure").at("used") == 0);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: cancel --save leaves the checkpoint of a step that a new run goes on from") {
  Cluster cluster(2);
  const auto text = test::write_prose(cluster.files());
  const auto job = cluster.submit(elastic_spec(text, 2));
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 20; }));
  REQUIRE(cluster.tutti({"cancel", std::to_string(job), "--save", "--reason", "enough"}).code == 0);
  REQUIRE(eventually([&] { return cluster.state_of(job) == "cancelled"; }));
  const auto [folder, step] = last_checkpoint(cluster, job);
  CHECK(step >= 20);
  const auto hashes = test::undisturbed(cluster, elastic_spec(text, 1, folder), step + 20);
  CHECK(hashes.begin()->first == step + 1);
  CHECK(hashes.rbegin()->first == step + 20);
  const auto expected = test::undisturbed(cluster, elastic_spec(text, 2), step + 20);
  for (const auto& [at, hash] : hashes) CHECK(hash == expected.at(at));
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a drained node is left after a common step, and the run goes on elsewhere") {
  Cluster cluster(2);
  const auto text = test::write_prose(cluster.files());
  const auto job = cluster.submit(elastic_spec(text, 2));
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 20; }));
  cluster.add_worker("second", 2);
  const auto answer = cluster.job(job);
  const std::string node(answer.at("processes").as_array().front().at("worker").as_string());
  REQUIRE(node != "second");
  REQUIRE(cluster.tutti({"drain", node, "--reason", "a new disk"}).code == 0);
  CHECK(eventually([&] { return nodes_of(cluster, job) == std::set<std::string>{"second"}; }));
  test::check_undisturbed(cluster, job, elastic_spec(text, 2));  // each step once: none was redone
  CHECK(cluster.job(job).at("recoveries").as_array().empty());
  CHECK(cluster.get("/api/v1/nodes").body.find("drained") != std::string::npos);
  REQUIRE(cluster.tutti({"undrain", node}).code == 0);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: of a run on two nodes only the rank on the drained one moves") {
  Cluster cluster(1);
  cluster.add_worker("second", 1);
  const auto text = test::write_prose(cluster.files());
  const auto job = cluster.submit(elastic_spec(text, 2));
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 20; }));
  cluster.add_worker("third", 1);
  REQUIRE(cluster.tutti({"drain", "second", "--reason", "a new disk"}).code == 0);
  CHECK(eventually([&] { return nodes_of(cluster, job).contains("third"); }));
  test::check_undisturbed(cluster, job, elastic_spec(text, 2));  // each step once: none was redone
  const auto answer = cluster.job(job);
  CHECK(answer.at("restarts").to_number<int>() == 1);
  const std::string events = cluster.tutti({"events", std::to_string(job)}).out;
  INFO(events);
  CHECK(events.find("worker second is drained: a new disk") != std::string::npos);
  CHECK(events.find("queued again") == std::string::npos);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: ranks that went on while their node was cut off lose no step when it is back") {
  const test::TemporaryFolder folder;
  Cluster cluster(2, state_with(folder, "lease_ms: 600\nheartbeat_ms: 100\n"));
  const auto text = test::write_prose(cluster.files());
  const auto job = cluster.submit(elastic_spec(text, 2));
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 20; }));
  const std::string node = *nodes_of(cluster, job).begin();
  REQUIRE(cluster.tutti({"fault", "cut", node, "--for", "2s"}).code == 0);
  REQUIRE(eventually([&] {
    return cluster.tutti({"events", std::to_string(job)}).out.find("is back with its state") !=
           std::string::npos;
  }));
  test::check_undisturbed(cluster, job, elastic_spec(text, 2));  // each step once: none was redone
  const auto answer = cluster.job(job);
  const auto& recoveries = answer.at("recoveries").as_array();
  REQUIRE_FALSE(recoveries.empty());
  CHECK(recoveries.back().at("lost_steps").to_number<int>() == 0);
  CHECK(cluster.stop() == 0);
}
