// The manifest of a checkpoint: which files it has, what they hash to, and which state it is.
//
// A folder is a checkpoint only by its manifest, and the manifest only by its own hash: one that
// was cut or altered at any byte does not parse or does not check. File: manifest.json,
// {"manifest": {...}, "hash": XXH3-128 of the inner object's text}.
//
// Errors: corrupt, naming what does not check.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/result.h"

namespace tutti::checkpoint {

// The tensors beside the optimizer's states that are the weights of the state, where the model's
// files hold another model (decision 0026). The hash in a manifest is theirs.
inline constexpr std::string_view kWeightsBeside = "weights";

// One file: name within the folder, size, XXH3-128 in hexadecimal.
struct FileEntry {
  std::string name;
  std::uint64_t bytes = 0;
  std::string hash;

  bool operator==(const FileEntry&) const = default;
};

// The scale of the losses, and the steps that it came from.
struct ScaleEntry {
  float value = 1.0F;
  std::uint64_t good_steps = 0;
  std::uint64_t skipped_steps = 0;

  bool operator==(const ScaleEntry&) const = default;
};

// Which state it is: also the content of training.json, which the first rank writes into its part.
struct StateEntry {
  std::uint64_t step = 0;
  std::uint64_t generation = 0;  // that wrote it
  std::string optimizer = {};
  std::vector<std::string> states = {};       // names of the optimizer's states
  std::string weights = {};                   // the weight hash
  std::string profile = {};                   // the numerics profile
  std::string choices = {};                   // a device's algorithms of products; empty: none
  std::optional<ScaleEntry> loss_scale = {};  // of fp16
  std::string spec = {};                      // the resolved spec, YAML

  bool operator==(const StateEntry&) const = default;
};

struct Manifest {
  StateEntry state;
  std::vector<FileEntry> files;

  bool operator==(const Manifest&) const = default;
};

std::string to_json(const StateEntry& state);
Result<StateEntry> parse_state(std::string_view json);

std::string to_json(const Manifest& manifest);
Result<Manifest> parse_manifest(std::string_view json);

// XXH3-128 in 32 hexadecimal digits.
std::string hash_text(std::string_view bytes);

// Size and hash of a file. Errors: not_found, from the system.
Result<FileEntry> hash_file(const std::filesystem::path& folder, const std::string& name);

}  // namespace tutti::checkpoint
