#include "ops/bench/gpu/operands.h"

#include <algorithm>

#include "jobs/models/layer.h"
#include "kernels/ops/random.h"
#include "kernels/tensor/thread_pool.h"

namespace tutti::bench::gpu {

namespace {

using kernels::Index;
using kernels::cuda::CudaDevice;

constexpr std::size_t kPattern = std::size_t{1} << 20;

std::span<const float> pattern(std::size_t count) {
  static const std::vector<float> numbers = [] {
    std::vector<float> values(kPattern);
    kernels::ThreadPool pool(1);
    models::must(kernels::fill_normal({&pool}, {.key = {.seed = 1, .purpose = 1}, .out = values}));
    return values;
  }();
  return std::span(numbers).first(std::min(count, kPattern));
}

void repeat(CudaDevice& device, std::span<float> numbers, std::span<const float> some) {
  if (numbers.empty()) return;
  models::must(device.upload(numbers.data(), some.data(), some.size_bytes()));
  for (std::size_t done = some.size(); done < numbers.size();) {
    const std::size_t more = std::min(done, numbers.size() - done);
    models::must(device.copy(numbers.data() + done, numbers.data(), more * sizeof(float)));
    done += more;
  }
}

}  // namespace

void fill(CudaDevice& device, std::span<float> numbers, double deviation) {
  const auto unit = pattern(numbers.size());
  std::vector<float> scaled(unit.size());
  const auto factor = static_cast<float>(deviation);
  std::ranges::transform(unit, scaled.begin(), [factor](float value) { return value * factor; });
  repeat(device, numbers, scaled);
}

kernels::FloatBuffer drawn(CudaDevice& device, Index count, double deviation) {
  kernels::FloatBuffer numbers(count, &device);
  fill(device, numbers.span(), deviation);
  return numbers;
}

void initialise(CudaDevice& device, const models::ParameterLayout& layout,
                std::span<float> weights) {
  for (const models::Parameter& parameter : layout.parameters()) {
    const auto values = weights.subspan(parameter.offset, parameter.elements);
    if (parameter.init_deviation > 0) {
      fill(device, values, parameter.init_deviation);
    } else {
      const std::vector<float> all(values.size(), parameter.init_value);
      repeat(device, values, all);
    }
  }
}

std::vector<std::byte> quantised_rows(kernels::WeightFormat format, Index rows, Index inputs) {
  constexpr Index kSome = 64;
  const std::size_t row = kernels::row_bytes(format, inputs);
  std::vector<std::byte> bytes(row * static_cast<std::size_t>(rows));
  const Index some = std::min(rows, kSome);
  const auto numbers = pattern(static_cast<std::size_t>(some * inputs));
  for (Index r = 0; r < rows; ++r) {
    const auto at = std::span(bytes).subspan(static_cast<std::size_t>(r) * row, row);
    if (r >= some) {
      std::copy_n(bytes.data() + static_cast<std::size_t>(r % some) * row, row, at.data());
      continue;
    }
    models::must(kernels::quantise_row(
        format,
        numbers.subspan(static_cast<std::size_t>(r * inputs), static_cast<std::size_t>(inputs)),
        at));
  }
  return bytes;
}

}  // namespace tutti::bench::gpu
