// The next token from one row of logits: greedy, or a seeded draw after temperature, top-k and
// top-p.
//
// A draw is a function of (logits, settings, position) and of nothing else: its random number is
// keyed by (seed, position), so a request moved to another replica, batched with others or replayed
// gets the same tokens. Where top-k or top-p cut, candidates are ordered by logit, ties to the
// lower index; else by index. The draw walks their cumulated probabilities in that order, in double
// precision.
//
//   1. logits / temperature   (temperature 0, or top_k 1: argmax)
//   2. the top_k largest      (0: all)
//   3. the fewest of those whose probabilities reach top_p (1: all; at least one)
//   4. the first whose cumulated probability exceeds u * total, u uniform in [0, 1)
//
// Threads: a Sampler is used by one at a time; it keeps scratch memory. NaN logits are never
// chosen.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tutti::kernels {

struct SamplingSettings {
  double temperature = 1.0;
  std::int32_t top_k = 0;
  double top_p = 1.0;
  std::uint64_t seed = 0;
};

// The index of the largest logit, the lowest of equals. `logits` is not empty.
std::int32_t argmax(std::span<const float> logits);

class Sampler {
 public:
  // `position`: of the token being drawn, in its sequence.
  std::int32_t sample(std::span<const float> logits, const SamplingSettings& settings,
                      std::uint64_t position);

 private:
  struct Candidate {
    float logit;
    std::int32_t token;
  };
  static bool before(const Candidate& a, const Candidate& b);
  void collect(std::span<const float> logits);
  double keep_mass(double top_p, double top, double total, double temperature);

  std::vector<Candidate> candidates_;
};

}  // namespace tutti::kernels
