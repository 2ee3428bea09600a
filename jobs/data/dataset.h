// Samples of a training job: which tokens are sample k of step t, and the tokens themselves.
//
// Sample k of step t is a pure function of (seed, t, k), so a cursor is a number, any rank can read
// any sample, and a job that lost ranks goes on with exactly the samples that come next (DESIGN
// numerics). The token files are one long array, in the order given; sample i is tokens iT .. iT+T,
// the targets are the same shifted by one:
//
//   tokens  | t0 t1 .. tT-1 | tT .. t2T-1 | ...     sample 1: inputs tT .. t2T-1, targets one later
//
// Steps count from 0 here: step t takes the global positions tB .. tB+B. Epochs join: position p is
// the (p mod S)-th sample of epoch p / S, in order, or by a permutation keyed by (seed, epoch) when
// shuffled. No step is short.
//
// Threads: const members from any thread. Cost: one copy of T + 1 ids a sample.
// Errors: those of the token files; invalid_argument: no file, fewer tokens than one sample, a
// token id that the vocabulary does not have (named with its file and position).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "jobs/data/npy.h"
#include "protocol/base/result.h"

namespace tutti::data {

enum class SampleOrder : std::uint8_t { as_stored, shuffled };

struct DatasetOptions {
  std::vector<std::string> tokens;  // paths of .npy files
  std::uint32_t sequence = 0;       // T
  std::uint32_t batch = 0;          // B, samples a step
  std::uint32_t vocabulary = 0;
  SampleOrder order = SampleOrder::shuffled;
  std::uint64_t seed = 0;  // of the shuffle
};

class Dataset {
 public:
  // Opens the files and looks through their first tokens (kScannedTokensMax) for ids outside the
  // vocabulary; those beyond are checked as they are read.
  static Result<Dataset> open(const DatasetOptions& options);

  std::uint64_t tokens() const { return tokens_; }    // of all files
  std::uint64_t samples() const { return samples_; }  // S, in one epoch
  std::uint32_t sequence() const { return options_.sequence; }
  std::uint32_t batch() const { return options_.batch; }

  // Number of the stored sample that is sample k < B of step t.
  std::uint64_t sample_at(std::uint64_t step, std::uint32_t k) const;

  // The T + 1 tokens of stored sample `sample` < samples(): inputs are all but the last, targets
  // all but the first.
  Result<> read(std::uint64_t sample, std::span<std::uint32_t> tokens) const;

  // Both views of sample k of step t, T ids each.
  Result<> read_pair(std::uint64_t step, std::uint32_t k, std::span<std::uint32_t> inputs,
                     std::span<std::uint32_t> targets) const;

 private:
  Dataset() = default;

  // Tokens from `position` of the long array on, all of them in it.
  Result<> copy(std::uint64_t position, std::span<std::uint32_t> tokens) const;

  DatasetOptions options_;
  std::vector<TokenFile> files_;
  std::vector<std::uint64_t> starts_;  // of each file in the long array
  std::uint64_t tokens_ = 0;
  std::uint64_t samples_ = 0;
};

inline constexpr std::uint64_t kScannedTokensMax = std::uint64_t{1} << 28;

// Where position `index` < count goes in the permutation of 0 .. count-1 that `key` names. O(1): a
// Feistel network over the next even power of two, walked until it lands inside (Black & Rogaway
// 2002).
std::uint64_t permuted(std::uint64_t index, std::uint64_t count, std::uint64_t key);

}  // namespace tutti::data
