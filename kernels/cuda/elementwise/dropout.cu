// Dropout: a thread takes the eight elements of one draw, of which some may lie in the row before
// or behind.
#include "kernels/ops/elementwise/dropout.h"

#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/elementwise/fours.h"
#include "kernels/cuda/philox.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 128;
// A grid's second dimension ends at 65,535.
constexpr Index kRowsMax = 65535;

struct Mask {
  unsigned long long seed, purpose;
  unsigned long long first_row;
  unsigned threshold;
  float scale;
};

__global__ void dropout_kernel(Mask mask, Rows<const float> x, Rows<float> y, Index width) {
  const Index row = blockIdx.y;
  const unsigned long long first = (mask.first_row + static_cast<unsigned long long>(row)) *
                                   static_cast<unsigned long long>(width);
  const unsigned long long draw =
      first / kInDraw + static_cast<unsigned long long>(blockIdx.x) * kThreads + threadIdx.x;
  // Of the draw's first element; the row begins at 0.
  const Index column = static_cast<Index>(draw * kInDraw - first);
  if (column >= width) return;
  const PhiloxWords words = philox(mask.seed, mask.purpose, draw);
  const float* const from = x.at(row);
  float* const to = y.at(row);
  const auto kept = [&](float value, unsigned i) {
    return words.half(i) >= mask.threshold ? value * mask.scale : 0.0F;
  };
  for (unsigned half = 0; half < kInDraw / kInFour; ++half) {
    const Index c = column + half * kInFour;
    if (c < 0) {
      for (unsigned i = 0; i < kInFour; ++i) {
        const Index at = c + i;
        if (at >= 0 && at < width) to[at] = kept(from[at], half * kInFour + i);
      }
      continue;
    }
    Four four = load_four(from + c, width - c);
    for (unsigned i = 0; i < kInFour; ++i) four.at[i] = kept(four.at[i], half * kInFour + i);
    store_four(to + c, width - c, four);
  }
}

}  // namespace

Result<> CudaDevice::enqueue(const Dropout& args) {
  begin_op();
  const Index width = args.x.columns;
  const DropoutMask constants(args.rate);
  for (Index first = 0; first < args.x.rows && width > 0; first += kRowsMax) {
    const Index rows = std::min(kRowsMax, args.x.rows - first);
    const Mask mask{args.key.seed, args.key.purpose,
                    args.first_row + static_cast<std::uint64_t>(first), constants.threshold,
                    constants.scale};
    // One more than the row has: its first draw may begin in the row before.
    const unsigned draws = blocks_for(width, kInDraw) + 1;
    TUTTI_LAUNCH(
        stream(),
        (LaunchShape{dim3(blocks_for(draws, kThreads), static_cast<unsigned>(rows)), kThreads}),
        dropout_kernel, mask, Rows(args.x.row_range(first, rows)),
        Rows(args.y.row_range(first, rows)), width);
  }
  return end_op();
}

}  // namespace tutti::kernels::cuda
