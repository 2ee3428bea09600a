#include "kernels/ops/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/ops/math.h"
#include "kernels/ops/random.h"
#include "protocol/base/assert.h"

namespace tutti::kernels {

namespace {
constexpr std::uint64_t kPurpose = purpose_of("sampling");
constexpr double kNever = std::numeric_limits<double>::infinity();
}  // namespace

std::int32_t argmax(std::span<const float> logits) {
  TUTTI_ASSERT(!logits.empty());
  std::size_t best = 0;
  float largest = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > largest) {
      largest = logits[i];
      best = i;
    }
  }
  return static_cast<std::int32_t>(best);
}

bool Sampler::before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

void Sampler::collect(std::span<const float> logits) {
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > -std::numeric_limits<float>::infinity()) {
      candidates_.push_back({logits[i], static_cast<std::int32_t>(i)});
    }
  }
}

Sampler::Walked Sampler::walk(CandidateOrder order, double until) const {
  const auto stretch_of = [&](std::size_t i) {
    return order == CandidateOrder::by_logit
               ? 0
               : static_cast<std::size_t>(candidates_[i].token) / kSampleStretch;
  };
  double passed = 0.0;
  for (std::size_t i = 0; i < candidates_.size();) {
    const std::size_t begin = i;
    double own = 0.0;
    for (; i < candidates_.size() && stretch_of(i) == stretch_of(begin); ++i) own += weights_[i];
    if (passed + own > until) {
      double inside = 0.0;
      for (std::size_t at = begin; at < i; ++at) {
        inside += weights_[at];
        if (passed + inside > until) return {passed + inside, at};
      }
    }
    passed += own;
  }
  return {passed, candidates_.size() - 1};
}

// Sorts only as far as the mass reaches: a vocabulary is long, its head is short.
double Sampler::keep_mass(double top_p, double top, double total, double temperature) {
  constexpr std::size_t kStretch = 64;
  const double wanted = top_p * total;
  double mass = 0.0;
  std::size_t sorted = 0;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    if (i == sorted) {
      const std::size_t next = std::min(candidates_.size(), sorted * 2 + kStretch);
      std::partial_sort(candidates_.begin() + static_cast<std::ptrdiff_t>(sorted),
                        candidates_.begin() + static_cast<std::ptrdiff_t>(next), candidates_.end(),
                        before);
      sorted = next;
    }
    mass += exp((static_cast<double>(candidates_[i].logit) - top) / temperature);
    if (mass >= wanted) {
      candidates_.resize(i + 1);
      break;
    }
  }
  return mass;
}

// Of equal distances the larger logit comes first.
void Sampler::keep_typical(double typical_p, double top, double temperature) {
  double total = 0.0;
  double moment = 0.0;  // sum of weight * log weight
  surprises_.clear();
  for (const Candidate& candidate : candidates_) {
    const double scaled = (static_cast<double>(candidate.logit) - top) / temperature;
    const double weight = exp(scaled);
    total += weight;
    if (weight > 0.0) moment += weight * scaled;
    surprises_.push_back({scaled, weight, candidate});
  }
  // -log p = log total - scaled, and the entropy is its mean: their difference has no log total.
  const double mean = moment / total;
  for (Surprise& surprise : surprises_) surprise.away = std::abs(surprise.away - mean);
  std::sort(surprises_.begin(), surprises_.end(), [](const Surprise& a, const Surprise& b) {
    return a.away < b.away || (a.away == b.away && before(a.candidate, b.candidate));
  });
  double mass = 0.0;
  candidates_.clear();
  for (const Surprise& surprise : surprises_) {
    candidates_.push_back(surprise.candidate);
    mass += surprise.weight;
    if (mass >= typical_p * total) break;
  }
  std::sort(candidates_.begin(), candidates_.end(), before);
}

void Sampler::penalise(std::span<float> logits, const Penalties& penalties,
                       std::span<const std::int32_t> seen) {
  const bool any =
      penalties.repetition != 1.0F || penalties.frequency != 0.0F || penalties.presence != 0.0F;
  if (any) {
    sorted_.assign(seen.begin(), seen.end());
    std::sort(sorted_.begin(), sorted_.end());
  } else {
    sorted_.clear();
  }
  for (std::size_t i = 0; i < sorted_.size();) {
    std::size_t next = i;
    while (next < sorted_.size() && sorted_[next] == sorted_[i]) ++next;
    TUTTI_ASSERT(sorted_[i] >= 0 && static_cast<std::size_t>(sorted_[i]) < logits.size());
    float& logit = logits[static_cast<std::size_t>(sorted_[i])];
    logit = logit > 0.0F ? logit / penalties.repetition : logit * penalties.repetition;
    logit -= penalties.frequency * static_cast<float>(next - i) + penalties.presence;
    i = next;
  }
  for (const TokenBias& bias : penalties.biases) {
    if (bias.token >= 0 && static_cast<std::size_t>(bias.token) < logits.size()) {
      logits[static_cast<std::size_t>(bias.token)] += bias.bias;
    }
  }
}

std::int32_t Sampler::sample(std::span<const float> logits, const SamplingSettings& settings,
                             std::uint64_t position) {
  const std::int32_t best = argmax(logits);
  if (!(settings.temperature > 0.0) || settings.top_k == 1) return best;
  collect(logits);
  if (candidates_.empty()) return best;
  CandidateOrder order = CandidateOrder::by_index;
  const auto limit = static_cast<std::size_t>(std::max(settings.top_k, 0));
  if (limit > 0 && limit < candidates_.size()) {
    std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(limit),
                      candidates_.end(), before);
    candidates_.resize(limit);
    order = CandidateOrder::by_logit;
  }
  const double top = static_cast<double>(logits[static_cast<std::size_t>(best)]);
  // Beside an infinite logit all others weigh nothing, and it has no weight to compute with.
  if (std::isinf(top)) return best;
  const auto weigh = [&] {
    weights_.clear();
    for (const Candidate& candidate : candidates_) {
      weights_.push_back(exp((static_cast<double>(candidate.logit) - top) / settings.temperature));
    }
  };
  if (settings.typical_p < 1.0) {
    keep_typical(settings.typical_p, top, settings.temperature);
    order = CandidateOrder::by_logit;
  }
  weigh();
  double total = walk(order, kNever).sum;
  if (settings.top_p < 1.0) {
    total = keep_mass(settings.top_p, top, total, settings.temperature);
    order = CandidateOrder::by_logit;
    weigh();
  }
  if (settings.min_p > 0.0) {
    // The most probable of all weighs 1.
    std::size_t kept = 0;
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      if (weights_[i] < settings.min_p) continue;
      candidates_[kept] = candidates_[i];
      weights_[kept++] = weights_[i];
    }
    candidates_.resize(kept);
    weights_.resize(kept);
    if (candidates_.empty()) return best;
    total = walk(order, kNever).sum;
  }
  const double drawn = random_uniform({settings.seed, kPurpose}, position) * total;
  return candidates_[walk(order, drawn).at].token;
}

}  // namespace tutti::kernels
