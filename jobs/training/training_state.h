// The state of a training run: weights, optimizer states, and the step after which they stand so.
//
// Any rank's completed step t is *the* state of step t (DESIGN numerics), so a state is copied
// between ranks, written to checkpoints and read back without a word about who made it.
//
// Ownership: owns its arenas, all of the decoder's layout. Threads: the computing one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/models/decoder.h"
#include "jobs/optimizers/optimizer.h"
#include "kernels/ops/weight_hash.h"
#include "kernels/tensor/buffer.h"

namespace tutti::training {

// The numerics profile of this build (DESIGN numerics, profiles).
inline constexpr std::string_view kNumericsProfile = "portable";

class TrainingState {
 public:
  TrainingState(const models::Decoder& decoder, const optimizers::Optimizer& optimizer)
      : weights_(static_cast<kernels::Index>(decoder.layout().elements())) {
    for (std::size_t i = 0; i < optimizer.states.size(); ++i) {
      optimizer_.emplace_back(weights_.size());
      optimizer_spans_.push_back(optimizer_.back().span());
    }
  }

  std::span<float> weights() { return weights_.span(); }
  std::span<const float> weights() const { return weights_.span(); }
  std::span<const std::span<float>> optimizer() const { return optimizer_spans_; }

  // Whether the arenas hold the state after `step`; not while they are being filled.
  bool whole = false;
  std::uint64_t step = 0;
  kernels::Hash128 weights_hash;

  // Optimizer states start at zero.
  void clear_optimizer() {
    for (const std::span<float> state : optimizer_spans_)
      std::fill(state.begin(), state.end(), 0.0F);
  }

  std::uint64_t bytes() const { return (1 + optimizer_.size()) * weights_.span().size_bytes(); }

 private:
  kernels::FloatBuffer weights_;
  std::vector<kernels::FloatBuffer> optimizer_;
  std::vector<std::span<float>> optimizer_spans_;
};

}  // namespace tutti::training
