// Element-wise kernels take four numbers a thread: its loads and stores are of 16 bytes (8 of bf16)
// where an address allows it, so that enough bytes are on their way to keep memory busy
// (kernels/lab/gpu.md); for kernels.
//
// Rows that lie without gaps are one long row; others are walked over by blockIdx.y, so that bands
// of wider matrices need no division.
#pragma once

#include <algorithm>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_view.h"
#include "kernels/cuda/tensor_core.h"

namespace tutti::kernels::cuda {

inline constexpr unsigned kInFour = 4;
inline constexpr unsigned kFourThreads = 128;

struct Four {
  float at[kInFour];
};

__device__ __forceinline__ bool is_multiple(const void* address, std::uintptr_t of) {
  return reinterpret_cast<std::uintptr_t>(address) % of == 0;
}

// The first `count` of the four, which may be more or none; the others are zeros.
__device__ __forceinline__ Four load_four(const float* from, Index count) {
  if (count >= kInFour && is_multiple(from, sizeof(float4))) {
    const float4 all = *reinterpret_cast<const float4*>(from);
    return {{all.x, all.y, all.z, all.w}};
  }
  Four out;
  for (unsigned i = 0; i < kInFour; ++i) out.at[i] = i < count ? from[i] : 0.0F;
  return out;
}

__device__ __forceinline__ void store_four(float* to, Index count, const Four& four) {
  if (count >= kInFour && is_multiple(to, sizeof(float4))) {
    *reinterpret_cast<float4*>(to) = make_float4(four.at[0], four.at[1], four.at[2], four.at[3]);
    return;
  }
  for (unsigned i = 0; i < kInFour; ++i) {
    if (i < count) to[i] = four.at[i];
  }
}

// Four numbers of 16 bits, the lower index in the lower half.
__device__ __forceinline__ uint2 load_halves(const std::uint16_t* from, Index count) {
  if (count >= kInFour && is_multiple(from, sizeof(uint2))) {
    return *reinterpret_cast<const uint2*>(from);
  }
  unsigned halves[kInFour];
  for (unsigned i = 0; i < kInFour; ++i) halves[i] = i < count ? from[i] : 0U;
  return {halves[0] | halves[1] << 16, halves[2] | halves[3] << 16};
}

// Of bf16.
__device__ __forceinline__ Four widened(uint2 halves) {
  const auto one = [](unsigned half) { return from_bf16(static_cast<Bf16>(half)); };
  return {
      {one(halves.x & 0xffffU), one(halves.x >> 16), one(halves.y & 0xffffU), one(halves.y >> 16)}};
}

__device__ __forceinline__ void store_halves(std::uint16_t* to, Index count, uint2 halves) {
  if (count >= kInFour && is_multiple(to, sizeof(uint2))) {
    *reinterpret_cast<uint2*>(to) = halves;
    return;
  }
  for (unsigned i = 0; i < kInFour; ++i) {
    const unsigned pair = i < 2 ? halves.x : halves.y;
    if (i < count) to[i] = static_cast<std::uint16_t>(i % 2 == 0 ? pair & 0xffffU : pair >> 16);
  }
}

__device__ __forceinline__ uint2 narrowed(const Four& four, Narrow narrow) {
  if (narrow == Narrow::bf16) {
    return {pack_bf16(four.at[0], four.at[1]), pack_bf16(four.at[2], four.at[3])};
  }
  return {pack_fp16(four.at[0], four.at[1]), pack_fp16(four.at[2], four.at[3])};
}

// The four of a thread: `count` of them are in the row, none or fewer behind its end.
struct FourPlace {
  __device__ explicit FourPlace(Index width)
      : row(blockIdx.y),
        column((static_cast<Index>(blockIdx.x) * kFourThreads + threadIdx.x) * kInFour),
        count(width - column) {}
  __device__ __forceinline__ Four load(const Rows<const float>& from) const {
    return load_four(from.at(row) + column, count);
  }
  __device__ __forceinline__ void store(const Rows<float>& to, const Four& four) const {
    store_four(to.at(row) + column, count, four);
  }
  Index row, column, count;
};

// Where an op leaves its numbers: in fp32, as products read them (ops/elementwise/rounded.h), or
// both; null: not there.
struct FourOutput {
  __device__ __forceinline__ void store(const FourPlace& at, const Four& four) const {
    if (wide.data != nullptr) at.store(wide, four);
    if (rounded.data != nullptr) {
      store_halves(rounded.at(at.row) + at.column, at.count, narrowed(four, narrow));
    }
  }
  Rows<float> wide;
  Rows<std::uint16_t> rounded;
  Narrow narrow;
};

// The rows that one launch takes, of each of an op's matrices.
struct RowSpan {
  Index first, rows;
  Index width;  // of all of them, where they are one row

  template <class T>
  Rows<T> of(const BasicMatrix<T>& matrix) const {
    return Rows<T>(matrix.data == nullptr ? matrix : matrix.row_range(first, rows));
  }
};

// launch(span, shape) for each of the pieces that a grid takes; its second dimension ends at
// 65,535.
template <class Launch>
void each_row_span(Index rows, Index width, bool without_gaps, const Launch& launch) {
  constexpr Index kRowsMax = 65535;
  if (rows == 0 || width == 0) return;
  const Index in_block = kFourThreads * kInFour;
  if (without_gaps) {
    launch(RowSpan{0, rows, rows * width},
           LaunchShape{blocks_for(rows * width, in_block), kFourThreads});
    return;
  }
  for (Index first = 0; first < rows; first += kRowsMax) {
    const Index count = std::min(kRowsMax, rows - first);
    launch(
        RowSpan{first, count, width},
        LaunchShape{dim3(blocks_for(width, in_block), static_cast<unsigned>(count)), kFourThreads});
  }
}

// Of matrices of one shape.
template <class Launch, class... Matrices>
void each_row_span_of(const Launch& launch, const ConstMatrix& first, const Matrices&... others) {
  const bool without_gaps = ((first.stride == first.columns) && ... &&
                             (others.data == nullptr || others.stride == first.columns));
  each_row_span(first.rows, first.columns, without_gaps, launch);
}

// A span of numbers is a row.
inline LaunchShape span_shape(Index count) {
  return {blocks_for(count, kFourThreads * kInFour), kFourThreads};
}

}  // namespace tutti::kernels::cuda
