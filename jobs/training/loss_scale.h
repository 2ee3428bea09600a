// The scale of the losses in fp16 training (Micikevicius et al. 2018): gradients are multiplied by
// it where the loss begins, so that what products read of them is in the range of fp16, and divided
// by it again in the optimizer pass.
//
// It is found as it goes. A step whose gradients are not finite changes no weight and halves the
// scale; `train.scaling.every` good steps in a row double it, up to kMost. Whether a step is good
// all ranks know alike, and the scale after a step is a part of the state after it: copied to
// newcomers, written to checkpoints. So it is the same for any ranks and after any loss.
//
// Gradients are those of a sum over tokens, and the slope of a token's loss is near -1 at its
// target. That fits into fp16 up to kMost, which does not follow the number of tokens.
//
// Threads: plain data. Units: scales are powers of two; of other precisions it is 1 for ever.
#pragma once

#include <cstdint>

#include "protocol/spec/job_spec.h"

namespace tutti::training {

struct LossScale {
  static constexpr float kMost = 32768.0F;

  float value = 1.0F;
  std::uint64_t good_steps = 0;  // since it changed
  std::uint64_t skipped = 0;     // steps of the run that changed no weight

  bool operator==(const LossScale&) const = default;
};

// Whether losses are scaled, and steps may be skipped.
inline bool scales_losses(const spec::TrainSpec& train) { return train.precision == "fp16"; }

// Before the first step.
LossScale first_scale(const spec::TrainSpec& train);

LossScale after_good_step(LossScale scale, const spec::TrainSpec& train);

// `scale.value` above 1: with that, gradients that are not finite are not for want of range.
LossScale after_skipped_step(LossScale scale);

}  // namespace tutti::training
