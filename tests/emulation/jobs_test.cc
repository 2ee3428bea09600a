// Whole jobs on the emulated GPU under a real cluster: ranks are processes of tutti-rank-emulation,
// NCCL is emulated between them.
#include <catch2/catch.hpp>

#include <signal.h>
#include <boost/json/parse.hpp>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "tests/emulation/emulated_cluster.h"
#include "tests/support/temporary_folder.h"

using namespace tutti;
using test::Cluster;
using test::emulated;
using test::eventually;
using test::tiny_spec;

namespace {

constexpr auto npos = std::string::npos;

std::string logs_of(const Cluster& cluster, std::uint64_t job) {
  return cluster.tutti({"logs", std::to_string(job)}).out;
}

// So that nobody takes what a job logged for a GPU's: each line says what it was.
void check_that_all_say_emulation(const std::string& log) {
  CHECK(log.find("emulation: computes on emulation (gpu:GPU-") != npos);
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    INFO(line);
    CHECK(line.find("emulation: ") != npos);
  }
}

// Ends a job that must fail; its messages.
std::string why_it_fails(const Cluster& cluster, int expected,
                         const std::vector<std::string>& options = {}) {
  const auto job = cluster.submit(tiny_spec(cluster, 1), options);
  CHECK(cluster.wait(job) == expected);
  return cluster.tutti({"job", std::to_string(job)}).out;
}

}  // namespace

TEST_CASE("emulation: a cluster's job has the same hashes for 1, 2 and 4 ranks and after a kill") {
  Cluster cluster(emulated(4, {"TUTTI_EMULATION_NCCL=tell_ids"}));
  // Of several ranks one makes it, once a generation.
  const auto ids_made = [&](std::uint64_t job) {
    const std::string logs = logs_of(cluster, job);
    int count = 0;
    for (auto at = logs.find("an NCCL identifier was made"); at != npos;
         at = logs.find("an NCCL identifier was made", at + 1)) {
      ++count;
    }
    return count;
  };
  const auto run = [&](unsigned ranks) {
    const auto job = cluster.submit(tiny_spec(cluster, ranks));
    REQUIRE(cluster.wait(job) == 0);
    return job;
  };
  const auto first = run(1);
  const auto expected = cluster.hashes(first);
  REQUIRE(expected.size() == 5);
  CHECK(expected.at(1) != expected.at(5));
  check_that_all_say_emulation(logs_of(cluster, first));
  const auto second = run(2);
  check_that_all_say_emulation(logs_of(cluster, second));
  CHECK(cluster.hashes(second) == expected);
  CHECK(ids_made(first) == 0);
  CHECK(ids_made(second) == 1);
  // Each slot has a GPU of its own, by UUID.
  const boost::json::value nodes = boost::json::parse(cluster.get("/api/v1/nodes").body);
  const auto& node = nodes.at("nodes").at(0);
  CHECK(node.at("profiles").at(0).as_string() == "sm_90-fp32-cublaslt-130000");
  REQUIRE(node.at("devices").as_array().size() == 4);
  for (const int slot : {0, 1}) {
    const std::string uuid(node.at("devices").at(slot).at("uuid").as_string());
    CHECK(logs_of(cluster, second).find("(gpu:" + uuid + "), numerics profile sm_90") != npos);
  }
  CHECK(cluster.hashes(run(4)) == expected);

  // One rank is replaced; the others stay and go on through a communicator of the next generation.
  for (const unsigned ranks : {2U, 4U}) {
    INFO(ranks << " ranks");
    const auto job = cluster.submit(tiny_spec(cluster, ranks));
    REQUIRE(eventually([&] { return cluster.step_of(job) >= 1; }));
    const auto before = cluster.ranks_of(job);
    REQUIRE(before.size() == ranks);
    REQUIRE(::kill(before.front(), SIGKILL) == 0);
    REQUIRE(cluster.wait(job) == 0);
    CHECK(cluster.hashes(job) == expected);
    CHECK(cluster.job(job).at("generation").to_number<int>() == 2);
    const std::string stand =
        "emulation: generation 2: " + std::to_string(ranks) + " ranks stand at step";
    CHECK(logs_of(cluster, job).find(stand) != npos);
    check_that_all_say_emulation(logs_of(cluster, job));
    CHECK(ids_made(job) == 2);
  }
  CHECK(cluster.stop() == 0);
}

// Its peer waits for it in NCCL, which sees nothing.
TEST_CASE("emulation: a rank that stands still over NCCL is named and replaced, to the same bits") {
  Cluster cluster(emulated(2));
  const auto undisturbed = cluster.submit(tiny_spec(cluster, 2, 30));
  const auto job = cluster.submit(tiny_spec(cluster, 2, 30) + "hang: {after: 5s}\n");
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 1; }));
  REQUIRE(cluster.tutti({"fault", "stop-rank", std::to_string(job), "1"}).code == 0);
  REQUIRE(cluster.wait(job) == 0);
  // More than one where a busy machine lets the successor stand still, too.
  CHECK(cluster.job(job).at("generation").to_number<int>() >= 2);
  const std::string events = cluster.tutti({"events", std::to_string(job)}).out;
  INFO(events);
  CHECK(events.find("rank 1 ") != npos);
  CHECK(events.find("collective") != npos);
  CHECK(cluster.hashes(job) == cluster.hashes(undisturbed));
  CHECK(cluster.stop() == 0);
}

TEST_CASE("emulation: a cluster trains a GPT-2-shaped model on 1 and 2 ranks, and serves it") {
  Cluster cluster(emulated(2));
  const std::vector<std::string> gpt2{"--set", "model.family=gpt2", "--set", "model.kv_heads=2"};
  const auto run = [&](unsigned ranks) {
    const auto job = cluster.submit(tiny_spec(cluster, ranks), gpt2);
    REQUIRE(cluster.wait(job) == 0);
    return job;
  };
  const auto trained = run(1);
  REQUIRE(cluster.hashes(trained).size() == 5);
  CHECK(cluster.hashes(run(2)) == cluster.hashes(trained));
  const std::string model =
      std::string(cluster.job(trained).at("folder").as_string()) + "/checkpoints/step-5";
  static_cast<void>(cluster.submit("name: tiny\nkind: serve\nmodel: {path: " + model + "}\n"));
  // Of the twelve positions that the model has learned.
  const auto complete = [&] {
    return cluster.post(
        "/v1/completions",
        R"({"model": "tiny", "prompt": "the ", "max_tokens": 5, "temperature": 0})");
  };
  REQUIRE(eventually([&] { return complete().status == 200; }));
  const std::string text(
      boost::json::parse(complete().body).at("choices").at(0).at("text").as_string());
  const auto on_cpu = test::run_tutti(
      {"generate", model, "--prompt", "the ", "--max", "5", "--greedy", "-o", "json"});
  INFO(on_cpu.err);
  REQUIRE(on_cpu.code == 0);
  CHECK(std::string(boost::json::parse(on_cpu.out).at("text").as_string()) == text);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("emulation: a cluster trains in bf16 in the profile of its GPUs") {
  const std::vector<std::string> bf16{"--set", "train.precision=bf16"};
  const test::TemporaryFolder cache;
  Cluster cluster(emulated(2, {"TUTTI_CACHE=" + cache.path().string()}));
  const auto exact = cluster.submit(tiny_spec(cluster, 1));
  const auto one = cluster.submit(tiny_spec(cluster, 1), bf16);
  const auto two = cluster.submit(tiny_spec(cluster, 2), bf16);
  for (const auto job : {exact, one, two}) REQUIRE(cluster.wait(job) == 0);
  CHECK(cluster.hashes(one) == cluster.hashes(two));
  CHECK(cluster.hashes(one) != cluster.hashes(exact));
  const auto steps = cluster.tutti({"steps", std::to_string(two), "-o", "json"}).out;
  // With the hash of the algorithms that it has chosen, and stored.
  CHECK(steps.find("\"profile\":\"sm_90-bf16-cublaslt-130000-") != npos);
  CHECK(std::filesystem::exists(cache.path() / "products-sm_90-emulation-cublaslt-130000.txt"));
}

TEST_CASE("emulation: a cluster trains in fp8 with the hashes of 1 rank on 2, also after a kill") {
  const std::vector<std::string> fp8{"--set", "train.precision=fp8"};
  Cluster cluster(emulated(2));
  const auto coarse = cluster.submit(tiny_spec(cluster, 1), {"--set", "train.precision=bf16"});
  const auto one = cluster.submit(tiny_spec(cluster, 1), fp8);
  const auto two = cluster.submit(tiny_spec(cluster, 2), fp8);
  REQUIRE(eventually([&] { return cluster.step_of(two) >= 1; }));
  const auto ranks = cluster.ranks_of(two);
  REQUIRE(ranks.size() == 2);
  REQUIRE(::kill(ranks.front(), SIGKILL) == 0);
  for (const auto job : {coarse, one, two}) REQUIRE(cluster.wait(job) == 0);
  REQUIRE(cluster.hashes(one).size() == 5);
  CHECK(cluster.hashes(two) == cluster.hashes(one));
  CHECK(cluster.hashes(one) != cluster.hashes(coarse));
  CHECK(cluster.job(two).at("generation").to_number<int>() == 2);
  const auto steps = cluster.tutti({"steps", std::to_string(two), "-o", "json"}).out;
  CHECK(steps.find("\"profile\":\"sm_90-fp8-e4m3_rows-cublaslt-130000-") != npos);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("emulation: a worker whose GPUs have no fp8 does not offer it, and a job says so") {
  Cluster cluster(emulated(1, {"TUTTI_EMULATION_CAPABILITY=80"}));
  const auto job = cluster.submit(tiny_spec(cluster, 1), {"--set", "train.precision=fp8"});
  const std::string why = cluster.tutti({"explain", std::to_string(job)}).out;
  INFO(why);
  CHECK(why.find("fp8") != npos);
  CHECK(cluster.tutti({"cancel", std::to_string(job), "--reason", "no fp8"}).code == 0);
  const boost::json::value nodes = boost::json::parse(cluster.get("/api/v1/nodes").body);
  const auto& profiles = nodes.at("nodes").at(0).at("profiles").as_array();
  REQUIRE_FALSE(profiles.empty());
  for (const auto& profile : profiles) {
    CHECK(std::string(profile.as_string()).find("-fp8") == npos);
  }
  CHECK(cluster.stop() == 0);
}

TEST_CASE("emulation: a served model gives the CPU's tokens, also after its rank was killed") {
  Cluster cluster(emulated(1));
  const auto trained = cluster.submit(tiny_spec(cluster, 1));
  REQUIRE(cluster.wait(trained) == 0);
  const std::string model =
      std::string(cluster.job(trained).at("folder").as_string()) + "/checkpoints/step-5";
  const auto served = cluster.submit("name: tiny\nkind: serve\nmodel: {path: " + model + "}\n");
  const auto complete = [&] {
    return cluster.post(
        "/v1/completions",
        R"({"model": "tiny", "prompt": "the ", "max_tokens": 5, "temperature": 0})");
  };
  const auto text_of = [](const api::HttpAnswer& answer) {
    return std::string(boost::json::parse(answer.body).at("choices").at(0).at("text").as_string());
  };
  REQUIRE(eventually([&] { return complete().status == 200; }));
  const std::string text = text_of(complete());
  CHECK_FALSE(text.empty());
  const auto on_cpu = test::run_tutti(
      {"generate", model, "--prompt", "the ", "--max", "5", "--greedy", "-o", "json"});
  INFO(on_cpu.err);
  REQUIRE(on_cpu.code == 0);
  CHECK(std::string(boost::json::parse(on_cpu.out).at("text").as_string()) == text);
  const auto ranks = cluster.ranks_of(served);
  REQUIRE(ranks.size() == 1);
  REQUIRE(::kill(ranks.front(), SIGKILL) == 0);
  REQUIRE(eventually([&] { return complete().status == 200; }));
  CHECK(text_of(complete()) == text);
  check_that_all_say_emulation(logs_of(cluster, served));
  CHECK(cluster.stop() == 0);
}

TEST_CASE(
    "emulation: a job that the device's memory does not fit is the user's, with the numbers") {
  // It asks for less than it is estimated to take, so that it is placed.
  const std::vector<std::string> too_little{"--set", "resources.device_memory=1MiB"};
  {
    Cluster cluster(emulated(1, {"TUTTI_EMULATION_MEMORY=67108864"}));
    CHECK(why_it_fails(cluster, 1, too_little)
              .find("MB of memory on emulation, which has 64 MB free") != npos);
  }
  // Another process takes it after it was looked at.
  Cluster cluster(
      emulated(1, {"TUTTI_EMULATION_MEMORY=268435456", "TUTTI_EMULATION_TAKEN_LATER=268000000"}));
  CHECK(why_it_fails(cluster, 1, too_little).find("out of memory: the GPU has no") != npos);
}

TEST_CASE("emulation: plan tells what a job takes of a GPU, submit asks for it or refuses") {
  Cluster cluster(emulated(2, {"TUTTI_EMULATION_MEMORY=943718400"}));
  const auto file = (cluster.files() / "job.yaml").string();
  REQUIRE(write_file_atomically(file, tiny_spec(cluster, 1)));
  const test::Finished planned = cluster.tutti({"plan", file});
  INFO(planned.out << planned.err);
  CHECK(planned.code == 0);
  CHECK(planned.out.find("activations") != npos);
  CHECK(planned.out.find("fits: the largest GPU has 900 MiB") != npos);
  CHECK(planned.out.find("of the products is padding on a GPU") != npos);
  const test::Finished sent = cluster.tutti({"submit", file, "--wait"});
  INFO(sent.err);
  CHECK(sent.code == 0);
  CHECK(sent.err.find("by the estimate (resources.device_memory") != npos);

  // Larger than any GPU: nothing is submitted, and a smaller micro-batch would do.
  const std::vector<std::string> large{"--set", "data.sequence=2048", "--set", "model.width=256",
                                       "--set", "train.micro=4",      "--set", "parallel.shards=1"};
  std::vector<std::string> words{"submit", file};
  words.insert(words.end(), large.begin(), large.end());
  const test::Finished refused = cluster.tutti(words);
  INFO(refused.out << refused.err);
  CHECK(refused.code == 5);
  CHECK(refused.out.empty());
  CHECK(refused.err.find("activations") != npos);
  CHECK(refused.err.find("with train.micro=1 it takes") != npos);
  words.front() = "plan";
  words.insert(words.end(), {"-o", "json"});
  const test::Finished plan = cluster.tutti(words);
  CHECK(plan.code == 5);
  const boost::json::value memory = boost::json::parse(plan.out).at("device_memory");
  CHECK(memory.at("fits") == false);
  CHECK(memory.at("largest_device_bytes").to_number<std::uint64_t>() == 943718400);
  const boost::json::value jobs = boost::json::parse(cluster.tutti({"jobs", "-o", "json"}).out);
  CHECK(jobs.at("jobs").as_array().size() == 1);
  CHECK(cluster.stop() == 0);
}

TEST_CASE(
    "emulation: a product that the library has no algorithm for ends the job with its words") {
  // As of some matrices of a model, and no failure that another try would mend.
  Cluster cluster(emulated(1, {"TUTTI_EMULATION_ROWS_MIN=100000"}));
  const std::string said = why_it_fails(cluster, 1);
  INFO(said);
  CHECK(said.find("cublasLtMatmul") != npos);
  CHECK(said.find("not supported (15)") != npos);
}

TEST_CASE(
    "emulation: with a missing or old driver nothing is placed, and node and explain say why") {
  const auto says = [](const std::string& variable, const std::string& why) {
    Cluster cluster(emulated(1, {variable}));
    const auto job = cluster.submit(tiny_spec(cluster, 1));
    const std::string explained = cluster.tutti({"explain", std::to_string(job)}).out;
    INFO(explained);
    CHECK(explained.find("no GPU can be used: " + why) != npos);
    const boost::json::value nodes = boost::json::parse(cluster.get("/api/v1/nodes").body);
    const boost::json::value& node = nodes.at("nodes").at(0);
    CHECK(node.at("slots").to_number<int>() == 0);
    const std::string name(node.at("name").as_string());
    CHECK(cluster.tutti({"node", name}).out.find(why) != npos);
    CHECK(cluster.state_of(job) == "queued");
    CHECK(cluster.stop() == 0);
  };
  says("TUTTI_EMULATION_DRIVER=0", "no NVIDIA driver is loaded: install one");
  says("TUTTI_EMULATION_DRIVER=12040", "the NVIDIA driver knows CUDA 12.4, this build needs 13.0");
}

TEST_CASE("emulation: ranks with different versions of NCCL are one line in the job, at once") {
  Cluster cluster(emulated(2, {"TUTTI_EMULATION_NCCL_VERSIONS=22701 22803"}));
  const auto alone = cluster.submit(tiny_spec(cluster, 1));
  CHECK(cluster.wait(alone) == 0);
  const auto job = cluster.submit(tiny_spec(cluster, 2));
  CHECK(cluster.wait(job) == 1);
  const std::string said = cluster.tutti({"job", std::to_string(job)}).out;
  INFO(said);
  CHECK(said.find("rank 0 has NCCL 2.27.1, this rank 2.28.3: a group needs one version") != npos);
  CHECK(cluster.job(job).at("generation").to_number<int>() == 1);
}
