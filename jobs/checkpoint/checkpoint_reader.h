// Reading checkpoints: only what its manifest vouches for, byte by byte, exists.
//
// Errors: not_found (no folder, no manifest), corrupt (a file is missing, cut or altered; the
// message names it), invalid_argument (a tensor of another shape than the model's).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "jobs/checkpoint/manifest.h"
#include "jobs/models/decoder.h"
#include "jobs/models/state_layout.h"

namespace tutti::checkpoint {

enum class Depth { sizes, hashes };

// The manifest, after every file was checked against it.
Result<Manifest> verify(const std::filesystem::path& folder, Depth depth = Depth::hashes);

struct FoundCheckpoint {
  std::filesystem::path folder;
  std::uint64_t step = 0;
};

// Committed steps under `root` by name, newest first; not verified.
std::vector<FoundCheckpoint> list_checkpoints(const std::filesystem::path& root);

// The newest that verifies, with a step of at most `step_max`.
std::optional<FoundCheckpoint> newest_valid(const std::filesystem::path& root,
                                            std::uint64_t step_max = UINT64_MAX);

struct StateTarget {
  const models::Decoder& decoder;
  std::span<float> weights;
  std::string optimizer;
  std::vector<std::string> states;                 // names
  std::span<const std::span<float>> state_values;  // by name, in that order
  models::PackedWords packed = nullptr;            // how the states lie
  bool weights_beside = false;                     // among the states, and not in the model's files
};

struct LoadedState {
  StateEntry entry;
  std::uint64_t bytes = 0;
};

// Verifies, then fills weights and optimizer states. On error the target may be partly filled.
Result<LoadedState> load(const std::filesystem::path& folder, const StateTarget& target);

}  // namespace tutti::checkpoint
