// The next token from one row of logits: greedy, or a seeded draw after temperature, top-k,
// typical, top-p and min-p; and the penalties that come before.
//
// A draw is a function of (logits, settings, position) and of nothing else: its random number is
// keyed by (seed, position), so a request moved to another replica, batched with others or replayed
// gets the same tokens. Where top-k, typical or top-p cut, candidates are ordered by logit, ties to
// the lower index; else by index. The draw walks their cumulated probabilities in that order, in
// double precision: a chain; of candidates by index, a chain over stretches of kSampleStretch
// tokens, each of them a chain of its own, which is what a device can share among threads.
//
//   1. logits / temperature   (temperature 0, or top_k 1: argmax)
//   2. the top_k largest      (0: all)
//   3. the fewest whose surprise is nearest to the entropy and whose probabilities reach typical_p
//      (Meister et al. 2023; 1: all)
//   4. the fewest of those whose probabilities reach top_p (1: all; at least one)
//   5. those at least min_p times as probable as the most probable of all (0: all)
//   6. the first whose cumulated probability exceeds u * total, u uniform in [0, 1)
//
// NaN logits are never chosen. An infinite one is, whatever the settings; the lowest index of
// several.
//
// Threads: a Sampler is used by one at a time; it keeps scratch memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tutti::kernels {

inline constexpr std::size_t kSampleStretch = 256;

struct SamplingSettings {
  double temperature = 1.0;
  std::int32_t top_k = 0;
  double top_p = 1.0;
  std::uint64_t seed = 0;
  double min_p = 0.0;
  double typical_p = 1.0;
};

// What tokens that a request already holds lose, before anything else:
//   logit = logit > 0 ? logit / repetition : logit * repetition     once (Keskar et al. 2019)
//   logit -= frequency * how often it occurred + presence           as OpenAI's API has them
// and a bias for single tokens, added last.
struct TokenBias {
  std::int32_t token = 0;
  float bias = 0.0F;
};
struct Penalties {
  float repetition = 1.0F;
  float frequency = 0.0F;
  float presence = 0.0F;
  std::span<const TokenBias> biases = {};  // tokens outside of the vocabulary are passed over
};

// The index of the largest logit, the lowest of equals. `logits` is not empty.
std::int32_t argmax(std::span<const float> logits);

class Sampler {
 public:
  // `seen`: the tokens that count as held, in any order, all in the vocabulary.
  void penalise(std::span<float> logits, const Penalties& penalties,
                std::span<const std::int32_t> seen);

  // `position`: of the token being drawn, in its sequence.
  std::int32_t sample(std::span<const float> logits, const SamplingSettings& settings,
                      std::uint64_t position);

 private:
  struct Candidate {
    float logit;
    std::int32_t token;
  };
  static bool before(const Candidate& a, const Candidate& b);
  enum class CandidateOrder { by_index, by_logit };
  // Walks over `weights_`, one for each candidate: their sum, or the candidate at which it passes
  // `until`.
  struct Walked {
    double sum = 0.0;
    std::size_t at = 0;
  };
  Walked walk(CandidateOrder order, double until) const;
  void collect(std::span<const float> logits);
  double keep_mass(double top_p, double top, double total, double temperature);

  void keep_typical(double typical_p, double top, double temperature);

  std::vector<Candidate> candidates_;
  std::vector<double> weights_;
  std::vector<std::int32_t> sorted_;
  struct Surprise {
    double away;  // from the entropy
    double weight;
    Candidate candidate;
  };
  std::vector<Surprise> surprises_;
};

}  // namespace tutti::kernels
