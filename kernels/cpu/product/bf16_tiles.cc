#include "kernels/cpu/product/bf16_panels.h"

// Two tiles of rows by two of columns: each of the four sums meets two loads for every two
// products. Compiled for AMX and called only where the machine has it and the system lets this
// process use it.
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/product/edge.h"
#include "kernels/cpu/quant/dots/amx_tiles.h"

namespace tutti::kernels {

namespace {

constexpr Index kSide = 16;  // rows of a tile, and its columns as fp32
constexpr Index kTileRows = 2 * kSide;
constexpr Index kUnitBytes = 4;
static_assert(kTileUnits == kSide);

// The registers while this lives: 0, 1 are the sums of the upper tile, 2, 3 of the lower; 4, 5 the
// left tiles, 6, 7 the right ones.
class Tiles {
 public:
  Tiles() = default;
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
  ~Tiles() { _tile_release(); }

  void take(Index upper, Index lower) {
    if (upper == upper_ && lower == lower_) return;
    upper_ = upper;
    lower_ = lower;
    TileConfig config;
    for (int t = 0; t < 8; ++t) config.row_bytes[t] = kSide * kUnitBytes;
    for (const int t : {0, 1, 4}) config.rows[t] = static_cast<std::uint8_t>(upper);
    // A register of no rows is not allowed.
    for (const int t : {2, 3, 5}) config.rows[t] = static_cast<std::uint8_t>(lower > 0 ? lower : 1);
    for (const int t : {6, 7}) config.rows[t] = kTileUnits;
    settle();
    _tile_loadconfig(&config);
  }

 private:
  Index upper_ = 0;
  Index lower_ = 0;
};

// Rows [0, upper + lower) of 32 columns, or of 16.
template <bool kLower, bool kBeside>
inline void run_tile(const ChainCall& call) {
  const auto left_bytes = static_cast<std::size_t>(call.left_stride * kUnitBytes);
  const auto right_bytes = static_cast<std::size_t>(call.right_stride * kUnitBytes);
  const auto output_bytes = static_cast<std::size_t>(call.output_stride * kUnitBytes);
  float* const output = call.output;
  float* const below = output + kSide * call.output_stride;
  settle();
  if (call.start == ChainStart::zero) {
    _tile_zero(0);
    if constexpr (kBeside) _tile_zero(1);
    if constexpr (kLower) _tile_zero(2);
    if constexpr (kLower && kBeside) _tile_zero(3);
  } else {
    _tile_loadd(0, output, output_bytes);
    if constexpr (kBeside) _tile_loadd(1, output + kSide, output_bytes);
    if constexpr (kLower) _tile_loadd(2, below, output_bytes);
    if constexpr (kLower && kBeside) _tile_loadd(3, below + kSide, output_bytes);
  }
  const float* left = call.left;
  const float* right = call.right;
  for (Index k = 0; k < call.depth; k += kTileUnits) {
    _tile_loadd(6, right, right_bytes);
    _tile_loadd(4, left, left_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kBeside) {
      _tile_loadd(7, right + kSide, right_bytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kLower) {
      _tile_loadd(5, left + kSide * call.left_stride, left_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kBeside) _tile_dpbf16ps(3, 5, 7);
    }
    left += kTileUnits;
    right += kTileUnits * call.right_stride;
  }
  _tile_stored(0, output, output_bytes);
  if constexpr (kBeside) _tile_stored(1, output + kSide, output_bytes);
  if constexpr (kLower) _tile_stored(2, below, output_bytes);
  if constexpr (kLower && kBeside) _tile_stored(3, below + kSide, output_bytes);
  settle();
}

// Up to 32 rows by whole tiles of columns.
template <bool kLower>
inline void run_columns(Index columns, ChainCall call) {
  for (; columns > kSide; columns -= 2 * kSide) {
    run_tile<kLower, true>(call);
    call.right += 2 * kSide;
    call.output += 2 * kSide;
  }
  if (columns > 0) run_tile<kLower, false>(call);
}

void run_rows(Tiles& tiles, Index rows, Index columns, ChainCall call) {
  for (; rows > 0; rows -= kTileRows) {
    const Index upper = std::min(rows, kSide);
    const Index lower = std::clamp<Index>(rows - kSide, 0, kSide);
    tiles.take(upper, lower);
    if (lower > 0) {
      run_columns<true>(columns, call);
    } else {
      run_columns<false>(columns, call);
    }
    call.left += kTileRows * call.left_stride;
    call.output += kTileRows * call.output_stride;
  }
}

void run_stretch(Tiles& tiles, Index rows, Index columns, const ChainCall& call) {
  if (columns % kSide == 0) return run_rows(tiles, rows, columns, call);
  const Index whole = (columns + kSide - 1) / kSide * kSide;
  run_through_tile<kTileRows, kImagePanel>(rows, columns, call,
                                           [&](Index first, Index height, ChainCall& part) {
                                             part.left += first * call.left_stride;
                                             run_rows(tiles, height, whole, part);
                                           });
}

}  // namespace

// In stretches: two tiles of left rows stay in the first cache while all columns pass them.
void run_bf16_tiles(LeftOrder order, Index rows, Index columns, const ChainCall& call) {
  TUTTI_ASSERT(order == LeftOrder::by_row && call.depth % kTileUnits == 0);
  constexpr Index kDepth = 256;
  Tiles tiles;
  for (Index k = 0; k < call.depth; k += kDepth) {
    ChainCall part = call;
    part.depth = std::min(kDepth, call.depth - k);
    part.left += k;
    part.right += k * call.right_stride;
    if (k > 0) part.start = ChainStart::output;
    run_stretch(tiles, rows, columns, part);
  }
}

}  // namespace tutti::kernels
