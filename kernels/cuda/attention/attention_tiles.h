// What attention on tensor cores shares, forward and backward: tiles of bf16 rows in shared memory
// and a warp's products of them; for kernels.
//
// A warp owns 16 rows of a tile (queries, or keys) and walks over rows of the other side. Products
// along the width are chains of mma.sync in ascending order; their accumulators, rounded to bf16,
// are the left operand of the product that follows, without a way through memory.
#pragma once

#include <algorithm>
#include <memory_resource>
#include <span>
#include <vector>

#include "kernels/cuda/async_copy.h"
#include "kernels/cuda/row_view.h"
#include "kernels/cuda/tensor_core.h"
#include "kernels/tensor/matrix.h"

namespace tutti::kernels::cuda {

inline constexpr unsigned kTileRows = 64;
inline constexpr unsigned kTileThreads = 128;
inline constexpr unsigned kWarpRows = 16;
// bf16 numbers behind each row in shared memory: other banks for the next row.
inline constexpr unsigned kRowPadding = 8;

template <int kWidth>
constexpr unsigned kTileStride = kWidth + kRowPadding;

// A tile of a sample: rows [position, position + kTileRows) of it, those that there are.
struct SampleTile {
  std::int32_t first;  // row of the sample
  std::int32_t position;
  std::int32_t length;  // of the sample
};

inline std::pmr::vector<SampleTile> tiles_of(std::span<const std::int32_t> sample_offsets,
                                             std::pmr::memory_resource* memory) {
  std::pmr::vector<SampleTile> tiles(memory);
  for (std::size_t s = 0; s + 1 < sample_offsets.size(); ++s) {
    const std::int32_t first = sample_offsets[s];
    const std::int32_t length = sample_offsets[s + 1] - first;
    for (std::int32_t at = 0; at < length; at += static_cast<std::int32_t>(kTileRows)) {
      tiles.push_back({first, at, length});
    }
  }
  return tiles;
}

// A head of a sample's rows, of `width` numbers, a multiple of 8.
struct HeadRows {
  __device__ __forceinline__ HeadRows(const Rows<const Bf16>& rows, Index first, Index head,
                                      Index width_in)
      : data(rows.at(first) + head * width_in),
        stride(static_cast<unsigned>(rows.stride)),
        width(static_cast<unsigned>(width_in)) {}
  const Bf16* data;
  unsigned stride, width;  // 32 bits: registers
};

// Rows [begin, begin + kRows) of the sample that are before `end`, in tiles of kWidth columns; what
// is not there is zeros.
template <int kWidth, unsigned kRows>
__device__ void fetch_rows(Bf16* to, const HeadRows& from, Index begin, Index end) {
  constexpr unsigned kInPiece = 8;  // 16 bytes
  constexpr unsigned kPieces = kWidth / kInPiece;
  for (unsigned i = threadIdx.x; i < kRows * kPieces; i += kTileThreads) {
    const unsigned row = static_cast<unsigned>(begin) + i / kPieces;
    const unsigned column = i % kPieces * kInPiece;
    const bool there = row < static_cast<unsigned>(end) && column < from.width;
    const Bf16* const source =
        from.data + (there ? row * static_cast<std::uint64_t>(from.stride) + column : 0U);
    copy_async_16(to + i / kPieces * kTileStride<kWidth> + column, source, there ? 16 : 0);
  }
}

// Where two neighbours of a result's row go: in fp32, as products read them
// (ops/elementwise/rounded.h), or both; null: not there. The first column is even.
struct PairOutput {
  __device__ __forceinline__ void store(Index row, Index column, float a, float b) const {
    if (wide.data != nullptr) {
      float* const to = wide.at(row) + column;
      to[0] = a;
      to[1] = b;
    }
    if (rounded.data != nullptr) {
      *reinterpret_cast<unsigned*>(rounded.at(row) + column) = pack_bf16(a, b);
    }
  }
  Rows<float> wide;
  Rows<Bf16> rounded;
};

// Where this lane reads the warp's own rows of a tile as a left operand.
template <int kWidth>
__device__ __forceinline__ const Bf16* own_rows(const Bf16* tile) {
  const unsigned lane = threadIdx.x % kWarp;
  return tile + (threadIdx.x / kWarp * kWarpRows + lane % 16) * kTileStride<kWidth> + lane / 16 * 8;
}

// The right operands of a row block's product along the width: rows 8n.. and 8n + 8.. of `rows`,
// columns 16k.., as load_matrices leaves them.
template <int kWidth>
__device__ __forceinline__ void load_across(unsigned (&b)[4], const Bf16* rows, unsigned n,
                                            unsigned k) {
  const unsigned lane = threadIdx.x % kWarp;
  const unsigned row = 8 * n + lane % 8 + lane / 16 * 8;
  load_matrices<false>(b, rows + row * kTileStride<kWidth> + 16 * k + lane / 8 % 2 * 8);
}

// products = own rows times the 8 kTiles rows of `others`, along the width.
template <int kWidth, unsigned kTiles>
__device__ void multiply_rows(const Bf16* own, const Bf16* others, float (&products)[kTiles][4]) {
  for (unsigned n = 0; n < kTiles; ++n) {
    for (unsigned i = 0; i < 4; ++i) products[n][i] = 0.0F;
  }
  for (unsigned k = 0; k < kWidth / 16; ++k) {
    unsigned a[4];
    load_matrices<false>(a, own + 16 * k);
    for (unsigned n = 0; n < kTiles; n += 2) {
      unsigned b[4];
      load_across<kWidth>(b, others, n, k);
      multiply_tiles(products[n], a, b[0], b[1]);
      multiply_tiles(products[n + 1], a, b[2], b[3]);
    }
  }
}

// sums += factors times `rows`: a factor for each own row and each of the 8 kTiles rows.
template <int kWidth, unsigned kTiles>
__device__ void add_products(const float (&factors)[kTiles][4], const Bf16* rows,
                             float (&sums)[kWidth / 8][4]) {
  const unsigned lane = threadIdx.x % kWarp;
  for (unsigned k = 0; k < kTiles / 2; ++k) {
    const unsigned a[4] = {pack_bf16(factors[2 * k][0], factors[2 * k][1]),
                           pack_bf16(factors[2 * k][2], factors[2 * k][3]),
                           pack_bf16(factors[2 * k + 1][0], factors[2 * k + 1][1]),
                           pack_bf16(factors[2 * k + 1][2], factors[2 * k + 1][3])};
    for (unsigned n = 0; n < kWidth / 8; n += 2) {
      // Matrices, turned: rows 16k.. and 16k + 8.. of columns 8n..; then of columns 8n + 8...
      unsigned b[4];
      load_matrices<true>(
          b, rows + (16 * k + lane % 16) * kTileStride<kWidth> + 8 * n + lane / 16 * 8);
      multiply_tiles(sums[n], a, b[0], b[1]);
      multiply_tiles(sums[n + 1], a, b[2], b[3]);
    }
  }
}

}  // namespace tutti::kernels::cuda
