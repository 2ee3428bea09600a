// The small training jobs of the cluster tests: two layers, 64 wide, on made-up prose.
#pragma once

#include <fmt/core.h>

#include <filesystem>
#include <string>

#include "tests/support/cluster.h"

namespace tutti::test {

struct TrainingCase {
  unsigned ranks = 1;
  unsigned threads = 1;
  unsigned micro = 0;
  unsigned steps = 40;
  unsigned every = 10;
  std::string optimizer = "adamw";
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
      "train: {{steps: {}, batch: 8, micro: {}, seed: 3, optimizer: {{name: {}}}}}\n"
      "parallel: {{data: {}, shards: 8}}\n"
      "resources: {{ranks: {{min: {}, max: {}}}, threads: {}}}\n"
      "checkpoint: {{every: {}, keep: 2}}\n",
      text.string(), with.steps, with.micro, with.optimizer, with.ranks, with.ranks, with.ranks,
      with.threads, with.every);
}

}  // namespace tutti::test
