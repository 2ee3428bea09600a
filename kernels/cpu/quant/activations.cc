#include "kernels/cpu/quant/activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/quant/row_codes.h"
#include "kernels/cpu/row_split.h"

namespace tutti::kernels {

namespace {

// The largest magnitude, or NaN where one is not finite.
float magnitude(const float* x, Index count) {
  float largest = 0.0F;
  bool finite = true;
  for (Index i = 0; i < count; ++i) {
    const float size = std::abs(x[i]);
    finite = finite && size <= std::numeric_limits<float>::max();
    largest = std::max(largest, size);
  }
  return finite ? largest : std::numeric_limits<float>::quiet_NaN();
}

// What values are multiplied by: 127 / largest, bounded so that a denormal number does not make it
// infinite; zero where nothing is to be kept.
float inverse_of(float largest) {
  if (!(largest > 0.0F)) return 0.0F;
  return std::min(127.0F / largest, std::numeric_limits<float>::max());
}

void round_codes(const float* x, Index count, float inverse, std::int8_t* codes) {
  for (Index i = 0; i < count; ++i) {
    const float scaled = inverse == 0.0F ? 0.0F : x[i] * inverse;
    const float bounded = std::min(127.0F, std::max(-127.0F, std::nearbyint(scaled)));
    codes[i] = static_cast<std::int8_t>(bounded);
  }
}

void quantise_one(const Int8Rows& rows, ConstMatrix x, Index row, ScaleBy by) {
  const float* const from = x.row(row);
  std::int8_t* const codes = rows.codes + row * rows.cells * kCell;
  float* const scales = rows.scales + row * rows.cells;
  std::memset(codes, 0, static_cast<std::size_t>(rows.cells * kCell));
  const float whole = by == ScaleBy::row ? magnitude(from, x.columns) : 0.0F;
  for (Index c = 0; c < rows.cells; ++c) {
    const Index count = std::min(kCell, x.columns - c * kCell);
    const float largest = by == ScaleBy::row ? whole : magnitude(from + c * kCell, count);
    scales[c] = largest / 127.0F;
    round_codes(from + c * kCell, count, inverse_of(largest), codes + c * kCell);
    for (Index h = 0; h < 2; ++h) {
      std::int32_t sum = 0;
      for (Index i = 0; i < kCell / 2; ++i) sum += codes[c * kCell + h * (kCell / 2) + i];
      rows.halves[(row * rows.cells + c) * 2 + h] = static_cast<std::int16_t>(sum);
    }
  }
}

}  // namespace

Int8Rows quantise_activations(const OpContext& ctx, ConstMatrix x, ScaleBy by) {
  Arena& arena = ctx.pool->op_scratch();
  Int8Rows rows;
  rows.cells = (x.columns + kCell - 1) / kCell;
  const auto cells = static_cast<std::size_t>(x.rows * rows.cells);
  rows.codes = reinterpret_cast<std::int8_t*>(arena.take(cells * kCell));
  rows.scales = reinterpret_cast<float*>(arena.take(cells * sizeof(float)));
  rows.halves = reinterpret_cast<std::int16_t*>(arena.take(cells * 2 * sizeof(std::int16_t)));
  ctx.pool->parallel_for(x.rows, rows_in_piece(x.columns), [&](int, Index begin, Index end) {
    for (Index r = begin; r < end; ++r) quantise_one(rows, x, r, by);
  });
  return rows;
}

}  // namespace tutti::kernels
