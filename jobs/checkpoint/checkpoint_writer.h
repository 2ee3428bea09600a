// Writing a checkpoint in two phases: every rank its part, then one rank the commit (DESIGN
// compute, checkpoints).
//
//   <root>/.step-N.gG/   private to a generation; parts are written, synced and hashed here
//   <root>/step-N/       the same folder after manifest.json was written and the folder renamed
//
// Of folders that nobody commits, the first rank keeps the newest 16 and removes those before them.
//
// With replicated state the ranks split the tensors: rank r of n writes
// model-0000R-of-0000N.safetensors and optimizer-0000R-of-0000N.safetensors (model.safetensors and
// optimizer.safetensors for one rank), by global tensor names; the first also writes config.json,
// tokenizer.json, training.json and the index. Hugging Face tools read the folder as a model.
//
// Threads: any; different ranks at the same time. Errors: exhausted (disk full), from the system;
// what a failed part wrote is removed, and nothing that was committed is touched.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "jobs/checkpoint/manifest.h"
#include "jobs/models/decoder.h"
#include "jobs/models/state_layout.h"
#include "kernels/tensor/buffer.h"

namespace tutti::checkpoint {

// A tensor set over the decoder's layout, besides the weights: fp32 numbers, or packed words, which
// are written as bytes.
struct NamedArena {
  std::string name;
  std::span<const float> values;
  models::PackedWords packed = nullptr;
};

struct CheckpointState {
  const models::Decoder& decoder;
  std::span<const float> weights;     // of the model's files
  std::vector<NamedArena> optimizer;  // with kWeightsBeside where the state's own weights differ
  StateEntry entry;
  std::filesystem::path tokenizer;  // copied as tokenizer.json; empty: none
  kernels::FloatBuffer model = {};  // the memory of `weights`, where they were made to be written
};

struct PartPlace {
  std::filesystem::path root;  // <job folder>/checkpoints; made if missing
  std::uint64_t generation = 0;
  std::uint32_t rank = 0;
  std::uint32_t ranks = 1;
};

// The files that this rank wrote and synced.
Result<std::vector<FileEntry>> write_part(const CheckpointState& state, const PartPlace& place);

struct CommitOrder {
  std::filesystem::path root;
  std::uint64_t step = 0;
  std::uint64_t generation = 0;
  std::vector<FileEntry> files = {};       // of all parts
  std::uint32_t keep = 0;                  // newest checkpoints to keep; 0: all
  std::vector<std::uint64_t> in_use = {};  // steps that are not pruned
};

// The committed folder. Idempotent: a step that is committed already stays as it is, also where
// several ranks are at it at the same time.
Result<std::filesystem::path> commit(const CommitOrder& order);

std::string step_folder_name(std::uint64_t step);
std::string private_folder_name(std::uint64_t step, std::uint64_t generation);

}  // namespace tutti::checkpoint
