#include "jobs/models/parts/rounded_weights.h"

#include "kernels/tensor/device.h"

namespace tutti::models {

Result<> RoundedWeights::round(std::span<const float> weights) {
  const auto count = static_cast<kernels::Index>(weights.size());
  TUTTI_ASSERT(count == 2 * memory_.size());
  return device_.round(kernels::ConstMatrix(weights.data(), 1, count),
                       {reinterpret_cast<std::uint16_t*>(memory_.data()), 1, count});
}

}  // namespace tutti::models
