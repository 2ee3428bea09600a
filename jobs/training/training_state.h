// The state of a training run: weights, optimizer states, and the step after which they stand so.
//
// Any rank's completed step t is *the* state of step t (DESIGN numerics), so a state is copied
// between ranks, written to checkpoints and read back without a word about who made it.
//
// On a device the state lives twice: steps are made there, and host memory is brought up to date
// before it is read (bring_to_host) and goes up after it was written (bring_to_device). Both move
// the whole state, and only if the other side has changed.
//
// Ownership: owns its arenas, of the decoder's layout or, packed states, models::StateLayout's.
// Threads: the computing one.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/models/decoder.h"
#include "jobs/optimizers/optimizer.h"
#include "jobs/training/loss_scale.h"
#include "kernels/ops/product_bf16.h"
#include "kernels/ops/weight_hash.h"
#include "kernels/tensor/buffer.h"

namespace tutti::training {

// The numerics profile of ranks on CPUs (DESIGN numerics, profiles). None: fp32.
inline std::string_view profile_on_cpu(std::optional<kernels::Rounding> rounding) {
  if (!rounding) return "portable";
  const auto* const bf16 = std::get_if<kernels::Bf16Arithmetic>(&*rounding);
  return bf16 == nullptr ? "portable-fp16" : kernels::profile_of(*bf16);
}

class TrainingState {
 public:
  TrainingState(const models::Decoder& decoder, const optimizers::Optimizer& optimizer,
                kernels::Device* device = nullptr);

  // In host memory: what is initialised, loaded, copied between ranks and written to checkpoints.
  std::span<float> weights() { return weights_.span(); }
  std::span<const float> weights() const { return weights_.span(); }
  std::span<const std::span<float>> optimizer() const { return optimizer_spans_; }

  // Where steps are made: the same memory, or the device's.
  std::span<float> working_weights() {
    return device_ == nullptr ? weights_.span() : device_weights_.span();
  }
  std::span<const std::span<float>> working_optimizer() const {
    return device_ == nullptr ? optimizer_spans_ : device_optimizer_spans_;
  }
  // After a step; before host memory is read; after it was written. Errors: the device's.
  void stepped() { host_is_old_ = device_ != nullptr; }
  void host_written() {
    host_is_old_ = false;
    device_is_old_ = device_ != nullptr;
  }
  Result<> bring_to_host();
  Result<> bring_to_device();
  bool host_is_old() const { return host_is_old_; }

  // Whether the arenas hold the state after `step`; not while they are being filled.
  bool whole = false;
  std::uint64_t step = 0;
  kernels::Hash128 weights_hash;
  LossScale loss_scale;

  std::uint64_t bytes() const {
    std::uint64_t bytes = weights_.span().size_bytes();
    for (const std::span<float> state : optimizer_spans_) bytes += state.size_bytes();
    return bytes;
  }

 private:
  kernels::FloatBuffer weights_;
  std::vector<kernels::FloatBuffer> optimizer_;
  std::vector<std::span<float>> optimizer_spans_;
  kernels::Device* device_;
  kernels::FloatBuffer device_weights_;
  std::vector<kernels::FloatBuffer> device_optimizer_;
  std::vector<std::span<float>> device_optimizer_spans_;
  bool host_is_old_ = false;
  bool device_is_old_ = false;
};

}  // namespace tutti::training
