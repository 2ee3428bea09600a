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

std::int32_t Sampler::sample(std::span<const float> logits, const SamplingSettings& settings,
                             std::uint64_t position) {
  const std::int32_t best = argmax(logits);
  if (!(settings.temperature > 0.0) || settings.top_k == 1) return best;
  collect(logits);
  if (candidates_.empty()) return best;
  const auto limit = static_cast<std::size_t>(std::max(settings.top_k, 0));
  if (limit > 0 && limit < candidates_.size()) {
    std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(limit),
                      candidates_.end(), before);
    candidates_.resize(limit);
  }
  const double top = static_cast<double>(logits[static_cast<std::size_t>(best)]);
  const auto weight = [&](const Candidate& candidate) {
    return exp((static_cast<double>(candidate.logit) - top) / settings.temperature);
  };
  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += weight(candidate);
  if (settings.top_p < 1.0) {
    total = keep_mass(settings.top_p, top, total, settings.temperature);
  }
  const double drawn = random_uniform({settings.seed, kPurpose}, position) * total;
  double passed = 0.0;
  for (const Candidate& candidate : candidates_) {
    passed += weight(candidate);
    if (passed > drawn) return candidate.token;
  }
  return candidates_.back().token;
}

}  // namespace tutti::kernels
