#include "jobs/training/loss_scale.h"

#include <algorithm>

namespace tutti::training {

LossScale first_scale(const spec::TrainSpec& train) {
  if (!scales_losses(train)) return {};
  return {.value = static_cast<float>(train.scaling.first)};
}

LossScale after_good_step(LossScale scale, const spec::TrainSpec& train) {
  if (!scales_losses(train)) return scale;
  if (++scale.good_steps == train.scaling.every) {
    scale.value = std::min(2.0F * scale.value, LossScale::kMost);
    scale.good_steps = 0;
  }
  return scale;
}

LossScale after_skipped_step(LossScale scale) {
  scale.value /= 2.0F;
  scale.good_steps = 0;
  ++scale.skipped;
  return scale;
}

}  // namespace tutti::training
