// The small training jobs of the cluster tests: two layers, 64 wide, on made-up prose.
//
// A run that a test disturbs has steps without end (kEndless), so that it cannot be over before the
// test has acted, however slow the machine is: end_run ends it, and then the same spec runs as far
// without a disturbance (check_undisturbed).
#pragma once

#include <fmt/core.h>
#include <catch2/catch.hpp>

#include <filesystem>
#include <map>
#include <string>

#include "tests/support/cluster.h"

namespace tutti::test {

constexpr unsigned kEndless = 1'000'000;

using Hashes = std::map<std::uint64_t, std::string>;

struct TrainingCase {
  unsigned ranks = 1;
  unsigned threads = 1;
  unsigned micro = 0;
  unsigned steps = 40;
  unsigned every = 10;
  std::string optimizer = "adamw";
  std::string precision = "fp32";
  std::string recompute = "none";
  double dropout = 0;
};

inline std::filesystem::path write_prose(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "prose.txt";
  const Result<> written = write_file_atomically(file, some_prose(6'000));
  TUTTI_ASSERT(written.ok());
  return file;
}

inline std::string training_spec(const std::filesystem::path& text, const TrainingCase& with) {
  return fmt::format(
      "name: tiny\n"
      "kind: train\n"
      "model: {{family: llama, layers: 2, width: 64, heads: 4, kv_heads: 2, vocabulary: 300}}\n"
      "data: {{text: [{}], sequence: 32}}\n"
      "train: {{steps: {}, batch: 8, micro: {}, seed: 3, precision: {}, recompute: {}, "
      "dropout: {}, optimizer: {{name: {}}}}}\n"
      "parallel: {{data: {}, shards: 8}}\n"
      "resources: {{ranks: {{min: {}, max: {}}}, threads: {}}}\n"
      "checkpoint: {{every: {}, keep: 2}}\n",
      text.string(), with.steps, with.micro, with.precision, with.recompute, with.dropout,
      with.optimizer, with.ranks, with.ranks, with.ranks, with.threads, with.every);
}

// Lets the run go on for some steps and cancels it; what it recorded: each step once, without gaps.
inline Hashes end_run(const Cluster& cluster, std::uint64_t job) {
  const auto recorded = [&] {
    const Hashes hashes = cluster.hashes(job);
    return hashes.empty() ? 0 : hashes.rbegin()->first;
  };
  const std::uint64_t end = recorded() + 10;
  REQUIRE(eventually([&] { return recorded() >= end; }));
  REQUIRE(cluster.tutti({"cancel", std::to_string(job)}).code == 0);
  REQUIRE(eventually([&] { return cluster.state_of(job) == "cancelled"; }));
  Hashes hashes = cluster.hashes(job);
  CHECK(hashes.begin()->first == 1);
  CHECK(hashes.rbegin()->first == hashes.size());
  return hashes;
}

// The hashes of a run of this spec that ends, in peace, after so many of its steps.
inline Hashes undisturbed(const Cluster& cluster, const std::string& spec, std::uint64_t steps) {
  const auto job = cluster.submit(spec, {"--set", "train.stop=" + std::to_string(steps)});
  REQUIRE(cluster.wait(job) == 0);
  return cluster.hashes(job);
}

// Ends the disturbed run: its weights at every step are those of one that nobody disturbs.
inline void check_undisturbed(const Cluster& cluster, std::uint64_t job, const std::string& spec) {
  const Hashes hashes = end_run(cluster, job);
  CHECK(hashes == undisturbed(cluster, spec, hashes.rbegin()->first));
}

}  // namespace tutti::test
