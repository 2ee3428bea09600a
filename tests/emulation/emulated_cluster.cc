#include "tests/emulation/emulated_cluster.h"

#include <fmt/core.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>

namespace tutti::test {

ClusterOptions emulated(unsigned slots, std::vector<std::string> more) {
  const char* const folder = std::getenv("TUTTI_BIN");
  ClusterOptions options{
      .slots = slots,
      .rank_binary = std::filesystem::absolute(
          std::string(folder == nullptr ? "build/bin" : folder) + "/tutti-rank-emulation"),
      .environment = std::move(more)};
  options.environment.emplace_back("TUTTI_DEVICE=gpu");
  return options;
}

std::string tiny_spec(const Cluster& cluster, unsigned ranks, unsigned steps) {
  const auto text = cluster.files() / "prose.txt";
  REQUIRE(write_file_atomically(text, some_prose(1'000)));
  return fmt::format(
      "name: tiny\n"
      "kind: train\n"
      "model: {{family: llama, layers: 1, width: 16, heads: 2, kv_heads: 1, feed_forward: 32, "
      "vocabulary: 270}}\n"
      "data: {{text: [{}], sequence: 12}}\n"
      "train: {{steps: {}, batch: 4, micro: 1, seed: 3}}\n"
      "parallel: {{data: {}, shards: 4}}\n"
      "resources: {{device: gpu, ranks: {{min: {}, max: {}}}, threads: 1}}\n"
      "checkpoint: {{every: {}, keep: 2}}\n",
      text.string(), steps, ranks, ranks, ranks, steps);
}

}  // namespace tutti::test
