// AdamW, block sums of squares and block hashes: passes over flattened parameters, one thread block
// for each grid block.
#include "kernels/ops/adamw.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/optimizers/grid_range.h"
#include "kernels/cuda/reduce.h"
#include "kernels/ops/gradient_norm.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = kGridThreads;

struct AdamWArrays : Weights {
  AdamWArrays() = default;
  explicit AdamWArrays(const AdamWRange& args)
      : Weights(args),
        first(args.first.data()),
        second(args.second.data()),
        constants(args.settings) {}

  float* first;
  float* second;
  AdamWConstants constants;
};

__global__ void __launch_bounds__(kThreads)
    adamw_kernel(const __grid_constant__ RangeTable<AdamWArrays> table) {
  TUTTI_SHARED(Word, room, kKibsMax * kAccumulators);
  GridRange range(0);
  const AdamWArrays& a = table.own(range);
  const AdamWConstants& c = a.constants;
  float* const weights = a.weight + range.begin;
  const float* const gradients = a.gradient + range.begin;
  float* const firsts = a.first + range.begin;
  float* const seconds = a.second + range.begin;
  update_and_hash(a.weight, range, room, a.hashes, [&](unsigned i, unsigned left) {
    const Four gradient = load_four(gradients + i, left);
    Four first = load_four(firsts + i, left);
    Four second = load_four(seconds + i, left);
    Four weight = load_four(weights + i, left);
    for (unsigned j = 0; j < kInFour; ++j) {
      const float g = gradient.at[j] * c.factor;
      first.at[j] = fmaf(c.beta1, first.at[j], c.rest1 * g);
      second.at[j] = fmaf(c.beta2, second.at[j], c.rest2 * g * g);
      const float scale = sqrtf(second.at[j]) / c.root + c.epsilon;
      weight.at[j] = fmaf(-c.step, first.at[j] / scale, weight.at[j] * c.keep);
    }
    store_four(weights + i, left, weight);
    store_four(firsts + i, left, first);
    store_four(seconds + i, left, second);
    return weight;
  });
}

struct HashArrays {
  HashArrays() = default;
  explicit HashArrays(const HashRange& args)
      : values(args.values.data()),
        hashes(args.hashes.data()),
        count(static_cast<Index>(args.values.size())) {}

  const float* values;
  Hash128* hashes;
  Index count;
};

__global__ void __launch_bounds__(kThreads)
    hash_blocks_kernel(const __grid_constant__ RangeTable<HashArrays> table) {
  TUTTI_SHARED(Word, room, kKibsMax * kAccumulators);
  GridRange range(0);
  const HashArrays& a = table.own(range);
  store_hash(a.values, range, room, a.hashes);
}

struct SquareArrays {
  SquareArrays() = default;
  explicit SquareArrays(const SquareRange& args)
      : values(args.values.data()),
        sums(args.sums.data()),
        count(static_cast<Index>(args.values.size())) {}

  const float* values;
  double* sums;
  Index count;
};

// Each thread a chain in double precision over its elements, where a square of an fp32 number is
// exact.
__global__ void __launch_bounds__(kThreads)
    square_sums_kernel(const __grid_constant__ RangeTable<SquareArrays> table) {
  TUTTI_SHARED(double, room, kThreads / kWarp);
  GridRange range(0);
  const SquareArrays& a = table.own(range);
  const float* const values = a.values + range.begin;
  double sum = 0.0;
  for (unsigned i = threadIdx.x; i < range.size; i += kThreads) {
    const auto value = static_cast<double>(values[i]);
    sum = fma(value, value, sum);
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) a.sums[range.block] = sum;
}

}  // namespace

Result<> CudaDevice::enqueue(const AdamWUpdate& args) {
  begin_op();
  launch_ranges<AdamWArrays>(args.ranges, [&](const auto& table, const LaunchShape& shape) {
    TUTTI_LAUNCH(stream(), shape, adamw_kernel, table);
  });
  return end_op();
}

Result<> CudaDevice::enqueue(const HashBlocks& args) {
  begin_op();
  launch_ranges<HashArrays>(args.ranges, [&](const auto& table, const LaunchShape& shape) {
    TUTTI_LAUNCH(stream(), shape, hash_blocks_kernel, table);
  });
  return end_op();
}

Result<> CudaDevice::enqueue(const SquareSums& args) {
  begin_op();
  launch_ranges<SquareArrays>(args.ranges, [&](const auto& table, const LaunchShape& shape) {
    TUTTI_LAUNCH(stream(), shape, square_sums_kernel, table);
  });
  return end_op();
}

}  // namespace tutti::kernels::cuda
