// Promise 1 on real processes: the weights at every step depend on the spec and the seed, and on
// nothing else.
#include <catch2/catch.hpp>

#include "protocol/base/rng.h"
#include "tests/cluster/training_specs.h"

using namespace tutti;
using test::Cluster;
using test::eventually;
using test::training_spec;
using test::TrainingCase;

TEST_CASE(
    "cluster: the weight hash of every step is the same for any ranks, threads and micro-batch") {
  Cluster cluster(4);
  const auto text = test::write_prose(cluster.files());
  const auto run = [&](const TrainingCase& with) {
    const auto job = cluster.submit(training_spec(text, with));
    REQUIRE(cluster.wait(job) == 0);
    return cluster.hashes(job);
  };
  const auto expected = run({.ranks = 1});
  REQUIRE(expected.size() == 40);
  CHECK(expected.at(1) != expected.at(40));
  for (const TrainingCase& one :
       {TrainingCase{.ranks = 2}, TrainingCase{.ranks = 3}, TrainingCase{.ranks = 4},
        TrainingCase{.ranks = 1, .threads = 2}, TrainingCase{.ranks = 2, .threads = 2, .micro = 1},
        TrainingCase{.ranks = 1, .micro = 2}, TrainingCase{.ranks = 2, .recompute = "selective"},
        TrainingCase{.ranks = 1, .recompute = "full"}}) {
    INFO(one.ranks << " ranks, " << one.threads << " threads, micro " << one.micro << ", recompute "
                   << one.recompute);
    CHECK(run(one) == expected);
  }
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: ranks killed at three random moments change no bit") {
  Cluster cluster(3);
  const auto text = test::write_prose(cluster.files());
  const std::string spec = training_spec(text, {.ranks = 3, .steps = test::kEndless, .every = 50});
  const auto job = cluster.submit(spec);
  Rng rng(static_cast<std::uint64_t>(::getpid()));
  std::uint64_t after = 0;
  for (int kill = 0; kill < 3; ++kill) {
    after += 10 + rng.below(30);
    const std::uint64_t rank = rng.below(3);
    INFO("rank " << rank << " killed after step " << after);
    REQUIRE(eventually([&] { return cluster.step_of(job) >= after; }));
    REQUIRE(cluster.tutti({"fault", "kill-rank", std::to_string(job), std::to_string(rank)}).code ==
            0);
    REQUIRE(eventually([&] {
      return cluster.job(job).at("generation").to_number<int>() >= kill + 2 &&
             cluster.state_of(job) == "running";
    }));
  }
  CHECK(cluster.job(job).at("recoveries").as_array().size() == 3);
  test::check_undisturbed(cluster, job, spec);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: with dropout and recompute a killed rank changes no bit, and verify agrees") {
  Cluster cluster(2);
  const auto text = test::write_prose(cluster.files());
  const auto spec_of = [&](unsigned ranks, const std::string& recompute) {
    return training_spec(text, {.ranks = ranks,
                                .steps = test::kEndless,
                                .every = 20,
                                .recompute = recompute,
                                .dropout = 0.1});
  };
  const auto job = cluster.submit(spec_of(2, "full"));
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 25; }));
  REQUIRE(cluster.tutti({"fault", "kill-rank", std::to_string(job), "1"}).code == 0);
  REQUIRE(eventually([&] { return cluster.job(job).at("recoveries").as_array().size() == 1; }));
  test::check_undisturbed(cluster, job, spec_of(1, "none"));
  const auto verified = cluster.tutti({"verify", std::to_string(job), "--steps", "21:23"});
  INFO(verified.out << verified.err);
  CHECK(verified.code == 0);
  CHECK(cluster.stop() == 0);
}

TEST_CASE(
    "cluster: an optimizer of whole matrices gives the same bits for 2 ranks and a killed one") {
  Cluster cluster(2);
  const auto text = test::write_prose(cluster.files());
  const auto spec_of = [&](unsigned ranks) {
    return training_spec(
        text, {.ranks = ranks, .steps = test::kEndless, .every = 20, .optimizer = "muon"});
  };
  const auto job = cluster.submit(spec_of(2));
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 25; }));
  REQUIRE(cluster.tutti({"fault", "kill-rank", std::to_string(job), "1"}).code == 0);
  REQUIRE(eventually([&] { return cluster.job(job).at("recoveries").as_array().size() == 1; }));
  test::check_undisturbed(cluster, job, spec_of(1));
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: fp16 skips the same steps for any ranks and after a kill, and says so") {
  Cluster cluster(2);
  const auto text = test::write_prose(cluster.files());
  const auto spec_of = [&](unsigned ranks) {
    return training_spec(text, {.ranks = ranks,
                                .steps = test::kEndless,
                                .every = 20,
                                .precision = "fp16, scaling: {first: 32768, every: 4}"});
  };
  const auto job = cluster.submit(spec_of(2));
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 25; }));
  REQUIRE(cluster.tutti({"fault", "kill-rank", std::to_string(job), "1"}).code == 0);
  REQUIRE(eventually([&] { return cluster.job(job).at("recoveries").as_array().size() == 1; }));
  test::check_undisturbed(cluster, job, spec_of(1));
  const std::string steps = cluster.tutti({"steps", std::to_string(job), "-o", "json"}).out;
  CHECK(steps.find("\"profile\":\"portable-fp16\",\"loss_scale\":32768,\"skipped\":true}") !=
        std::string::npos);
  CHECK(steps.find("\"skipped\":false}") != std::string::npos);
  CHECK(cluster.tutti({"steps", std::to_string(job)}).out.find("skipped, with losses scaled by ") !=
        std::string::npos);
  const auto verified = cluster.tutti({"verify", std::to_string(job), "--steps", "21:23"});
  INFO(verified.out << verified.err);
  CHECK(verified.code == 0);
  CHECK(cluster.stop() == 0);
}

namespace {

// Of all steps of the job's record.
std::string profile_of(const Cluster& cluster, std::uint64_t job) {
  const std::string steps = cluster.tutti({"steps", std::to_string(job), "-o", "json"}).out;
  constexpr std::string_view kKey = "\"profile\":\"";
  const auto at = steps.find(kKey);
  REQUIRE(at != std::string::npos);
  const auto begin = at + kKey.size();
  return steps.substr(begin, steps.find('"', begin) - begin);
}

}  // namespace

TEST_CASE("cluster: bf16 on CPUs gives the same bits for any ranks, after a kill, and to verify") {
  // The profile that this machine is fastest in, and the one that every CPU has.
  for (const char* const path : {"", "avx2"}) {
    INFO("TUTTI_CPU=" << path);
    Cluster cluster(
        test::ClusterOptions{.slots = 4, .environment = {std::string("TUTTI_CPU=") + path}});
    const auto text = test::write_prose(cluster.files());
    std::uint64_t last = 0;
    const auto run = [&](const TrainingCase& with) {
      const auto job = last = cluster.submit(training_spec(text, with));
      REQUIRE(cluster.wait(job) == 0);
      CHECK(profile_of(cluster, job).ends_with(with.precision == "fp32" ? "portable" : "-bf16"));
      return cluster.hashes(job);
    };
    const auto expected = run({.precision = "bf16"});
    REQUIRE(expected.size() == 40);
    CHECK(run({}) != expected);
    for (const TrainingCase& one :
         {TrainingCase{.ranks = 2, .precision = "bf16"},
          TrainingCase{.ranks = 4, .precision = "bf16"},
          TrainingCase{.ranks = 1, .threads = 3, .micro = 1, .precision = "bf16"}}) {
      INFO(one.ranks << " ranks, " << one.threads << " threads, micro " << one.micro);
      CHECK(run(one) == expected);
    }
    const auto verified = cluster.tutti({"verify", std::to_string(last), "--steps", "31:35"});
    INFO(verified.out << verified.err);
    CHECK(verified.code == 0);
    const std::string spec = training_spec(
        text, {.ranks = 3, .steps = test::kEndless, .every = 20, .precision = "bf16"});
    const auto job = cluster.submit(spec);
    REQUIRE(eventually([&] { return cluster.step_of(job) >= 25; }));
    REQUIRE(cluster.tutti({"fault", "kill-rank", std::to_string(job), "1"}).code == 0);
    REQUIRE(eventually([&] { return cluster.job(job).at("recoveries").as_array().size() == 1; }));
    test::check_undisturbed(cluster, job, spec);
    CHECK(cluster.stop() == 0);
  }
}
