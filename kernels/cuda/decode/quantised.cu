// A warp an output column, eight warps a block; each lane reads four consecutive codes of a group
// of 128, so a warp reads whole sectors of the weight once for all rows.
#include "kernels/cuda/decode/quantised.h"

#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_view.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kWarps = 8;
constexpr unsigned kThreads = kWarps * kWarp;
constexpr Index kCodesOfLane = kQuantGroup / kWarp;

struct Call {
  Rows<const float> x;
  Rows<float> y;
  const std::uint8_t* codes;
  const float* scales;
  Index rows, columns, depth;
};

// Four codes of group `group`, of the lane.
__device__ void read_codes(const Call& a, QuantisedProduct::Bits bits, Index column, Index k,
                           float (&code)[4]) {
  if (bits == QuantisedProduct::Bits::eight) {
    const auto* const from = reinterpret_cast<const std::uint32_t*>(a.codes + column * a.depth + k);
    const std::uint32_t four = *from;
    for (unsigned i = 0; i < 4; ++i)
      code[i] = static_cast<float>(static_cast<std::int8_t>(four >> (8 * i)));
  } else {
    const auto* const from =
        reinterpret_cast<const std::uint16_t*>(a.codes + (column * a.depth + k) / 2);
    const unsigned four = *from;
    for (unsigned i = 0; i < 4; ++i)
      code[i] = static_cast<float>(static_cast<int>(four >> (4 * i) & 15U) - 8);
  }
}

template <int kRows>
__global__ void __launch_bounds__(kThreads)
    quantised_product_kernel(Call a, QuantisedProduct::Bits bits) {
  const Index column = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const Index lane = threadIdx.x % kWarp;
  if (column >= a.columns) return;
  float sums[kRows] = {};
  const Index groups = a.depth / kQuantGroup;
  for (Index group = 0; group < groups; ++group) {
    const Index k = group * kQuantGroup + lane * kCodesOfLane;
    float code[4];
    read_codes(a, bits, column, k, code);
    const float scale = a.scales[column * groups + group];
    for (int r = 0; r < kRows; ++r) {
      if (r >= a.rows) break;
      const float* const x = a.x.at(r) + k;
      float part = 0.0F;
      for (unsigned i = 0; i < 4; ++i) part = fmaf(x[i], code[i], part);
      sums[r] = fmaf(warp_sum(part), scale, sums[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    if (r < a.rows && lane == 0) a.y.at(r)[column] = sums[r];
  }
}

}  // namespace

Result<> quantised_product(cudaStream_t stream, const QuantisedProduct& args) {
  const bool fits = args.x.rows <= kQuantisedRowsMax && args.x.columns % kQuantGroup == 0 &&
                    args.y.rows == args.x.rows;
  if (!fits) {
    return Error{ErrorCode::invalid_argument,
                 "quantised_product: up to 16 rows, a depth that is a multiple of 128"};
  }
  if (args.x.rows == 0 || args.y.columns == 0) return {};
  const Call call{Rows(args.x), Rows(args.y),   args.codes,    args.scales,
                  args.x.rows,  args.y.columns, args.x.columns};
  const LaunchShape shape{blocks_for(args.y.columns, kWarps), kThreads};
  if (args.x.rows == 1) {
    TUTTI_LAUNCH(stream, shape, quantised_product_kernel<1>, call, args.bits);
  } else if (args.x.rows <= 4) {
    TUTTI_LAUNCH(stream, shape, quantised_product_kernel<4>, call, args.bits);
  } else {
    TUTTI_LAUNCH(stream, shape, quantised_product_kernel<16>, call, args.bits);
  }
  return check(cudaGetLastError(), "quantised_product");
}

}  // namespace tutti::kernels::cuda
