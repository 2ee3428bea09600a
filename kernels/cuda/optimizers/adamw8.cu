// AdamW with states of 8 bits: a thread block takes the blocks of states of its grid block one
// after the other, each of them in registers between reading its codes and writing the new ones.
#include "kernels/ops/optimizers/adamw8.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/optimizers/grid_range.h"
#include "kernels/cuda/reduce.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = kGridThreads;
constexpr int kOwn = kState8Block / static_cast<int>(kThreads);  // elements of a thread
static_assert(kOwn * static_cast<int>(kThreads) == kState8Block && kGridBlock % kState8Block == 0);

struct AdamW8Arrays : Weights {
  AdamW8Arrays() = default;
  explicit AdamW8Arrays(const AdamW8Range& args)
      : Weights(args),
        first(args.first.data()),
        second(args.second.data()),
        first_scales(args.first_scales.data()),
        second_scales(args.second_scales.data()),
        constants(args.settings) {}

  std::int8_t* first;
  std::uint8_t* second;
  float* first_scales;
  float* second_scales;
  AdamWConstants constants;
};

__device__ float first_of(std::int8_t code, float scale) {
  const float c = static_cast<float>(code) * (1.0F / 127.0F);
  return c * fabsf(c) * scale;
}
__device__ float second_of(std::uint8_t code, float scale) {
  const float d = static_cast<float>(code) * (1.0F / 255.0F);
  return d * d * (d * d) * scale;
}

// What is not finite shows in the scale; its code is 0.
__device__ std::int8_t first_code(float x, float scale) {
  const float size = rintf(sqrtf(fabsf(x) / scale) * 127.0F);
  const float code = x < 0.0F ? 0.0F - size : size;
  return static_cast<std::int8_t>(code >= -127.0F && code <= 127.0F ? code : 0.0F);
}
__device__ std::uint8_t second_code(float y, float scale) {
  if (!(y > 0.0F)) return 0;
  const float near = rintf(sqrtf(sqrtf(y / scale)) * 255.0F);
  const float code = near > 1.0F ? near : 1.0F;
  return static_cast<std::uint8_t>(code <= 255.0F ? code : 0.0F);
}

// A scale of zero divides zeros by one.
__device__ float divisor(float scale) { return scale > 0.0F ? scale : 1.0F; }

// The block of states at `begin`; all threads call.
__device__ void step_block(const AdamW8Arrays& a, Index begin, float* room) {
  const AdamWConstants& c = a.constants;
  const Index block = begin / kState8Block;
  const float first_scale = a.first_scales[block];
  const float second_scale = a.second_scales[block];
  float first[kOwn];
  float second[kOwn];
  float first_top = 0.0F;
  float second_top = 0.0F;
  for (int own = 0; own < kOwn; ++own) {
    const Index i = begin + own * static_cast<Index>(kThreads) + threadIdx.x;
    first[own] = second[own] = 0.0F;
    if (i >= a.count) continue;
    const float g = a.gradient[i] * c.factor;
    first[own] = fmaf(c.beta1, first_of(a.first[i], first_scale), c.rest1 * g);
    second[own] = fmaf(c.beta2, second_of(a.second[i], second_scale), c.rest2 * g * g);
    const float scale = sqrtf(second[own]) / c.root + c.epsilon;
    a.weight[i] = fmaf(-c.step, first[own] / scale, a.weight[i] * c.keep);
    const float size = fabsf(first[own]);
    first_top = size > first_top ? size : first_top;
    second_top = second[own] > second_top ? second[own] : second_top;
  }
  first_top = block_max(first_top, room);
  second_top = block_max(second_top, room);
  if (threadIdx.x == 0) {
    a.first_scales[block] = first_top;
    a.second_scales[block] = second_top;
  }
  for (int own = 0; own < kOwn; ++own) {
    const Index i = begin + own * static_cast<Index>(kThreads) + threadIdx.x;
    if (i >= a.count) continue;
    a.first[i] = first_code(first[own], divisor(first_top));
    a.second[i] = second_code(second[own], divisor(second_top));
  }
}

__global__ void __launch_bounds__(kThreads)
    adamw8_kernel(const __grid_constant__ RangeTable<AdamW8Arrays> table) {
  TUTTI_SHARED(Word, room, kKibsMax * kAccumulators);
  TUTTI_SHARED(float, tops, kThreads / kWarp);
  GridRange range(0);
  const AdamW8Arrays& a = table.own(range);
  for (Index begin = range.begin; begin < range.end; begin += kState8Block) {
    step_block(a, begin, tops);
  }
  hash_updated(a.weight, range, room, a.hashes);
}

}  // namespace

Result<> CudaDevice::enqueue(const AdamW8Update& args) {
  begin_op();
  launch_ranges<AdamW8Arrays>(args.ranges, [&](const auto& table, const LaunchShape& shape) {
    TUTTI_LAUNCH(stream(), shape, adamw8_kernel, table);
  });
  return end_op();
}

}  // namespace tutti::kernels::cuda
