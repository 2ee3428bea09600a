// AVX2 on every machine: each step is one correctly rounded operation an element, or an integer
// one, so vectors cannot change a bit.
#include "kernels/cpu/quant/activations.h"

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/product/rounded.h"
#include "kernels/cpu/row_split.h"

namespace tutti::kernels {

namespace {

constexpr std::uint32_t kInfinity = 0x7f800000U;

// The largest magnitude, or NaN where one is not finite. Magnitudes are in the order of their bits.
float magnitude(const float* x, Index count) {
  const __m256i no_sign = _mm256_set1_epi32(0x7fffffff);
  __m256i largest = _mm256_setzero_si256();
  Index i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    largest = _mm256_max_epu32(largest, _mm256_and_si256(bits, no_sign));
  }
  alignas(32) std::uint32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), largest);
  std::uint32_t most = *std::max_element(lanes, lanes + 8);
  for (; i < count; ++i) most = std::max(most, std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffU);
  return most < kInfinity ? std::bit_cast<float>(most) : std::numeric_limits<float>::quiet_NaN();
}

// What values are multiplied by: 127 / largest, bounded so that a denormal number does not make it
// infinite; zero where nothing is to be kept.
float inverse_of(float largest) {
  if (!(largest > 0.0F)) return 0.0F;
  return std::min(127.0F / largest, std::numeric_limits<float>::max());
}

__m256i codes_of(const float* x, __m256 inverse) {
  const __m256 scaled = _mm256_round_ps(_mm256_mul_ps(_mm256_loadu_ps(x), inverse),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return _mm256_cvtps_epi32(
      _mm256_min_ps(_mm256_set1_ps(127.0F), _mm256_max_ps(_mm256_set1_ps(-127.0F), scaled)));
}

void round_codes(const float* x, Index count, float inverse, std::int8_t* codes) {
  if (inverse == 0.0F) {
    std::memset(codes, 0, static_cast<std::size_t>(count));
    return;
  }
  const __m256 by = _mm256_set1_ps(inverse);
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  Index i = 0;
  for (; i + kCell <= count; i += kCell) {
    const __m256i low = _mm256_packs_epi32(codes_of(x + i, by), codes_of(x + i + 8, by));
    const __m256i high = _mm256_packs_epi32(codes_of(x + i + 16, by), codes_of(x + i + 24, by));
    // Packing works within halves of a register.
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), in_order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + i), bytes);
  }
  for (; i < count; ++i) {
    const float bounded = std::min(127.0F, std::max(-127.0F, std::nearbyint(x[i] * inverse)));
    codes[i] = static_cast<std::int8_t>(bounded);
  }
}

void quantise_one(const Int8Rows& rows, const float* from, Index count, Index row, ScaleBy by) {
  std::int8_t* const codes = rows.codes + row * rows.inputs();
  float* const scales = rows.scales + row * rows.cells;
  std::memset(codes + count, 0, static_cast<std::size_t>(rows.inputs() - count));
  if (by == ScaleBy::row) {
    const float scale = round_to_int8(from, count, codes);
    std::fill_n(scales, rows.cells, scale);
  } else {
    for (Index c = 0; c < rows.cells; ++c) {
      const Index here = std::min(kCell, count - c * kCell);
      scales[c] = round_to_int8(from + c * kCell, here, codes + c * kCell);
    }
  }
  sum_halves(rows, row);
}

}  // namespace

float round_to_int8(const float* x, Index count, std::int8_t* codes) {
  const float largest = magnitude(x, count);
  round_codes(x, count, inverse_of(largest), codes);
  return largest / 127.0F;
}

void sum_halves(const Int8Rows& rows, Index row) {
  const std::int8_t* const codes = rows.codes + row * rows.inputs();
  std::int16_t* const halves = rows.halves + row * 2 * rows.cells;
  const __m128i ones = _mm_set1_epi8(1);
  for (Index h = 0; h < 2 * rows.cells; ++h) {
    const auto* const half = reinterpret_cast<const __m128i*>(codes + h * (kCell / 2));
    const __m128i pairs = _mm_maddubs_epi16(ones, _mm_loadu_si128(half));
    const __m128i fours = _mm_hadd_epi16(pairs, pairs);
    const __m128i eights = _mm_hadd_epi16(fours, fours);
    halves[h] = static_cast<std::int16_t>(_mm_extract_epi16(_mm_hadd_epi16(eights, eights), 0));
  }
}

Int8Rows make_int8_rows(const OpContext& ctx, Index rows, Index inputs) {
  Arena& arena = ctx.pool->op_scratch();
  Int8Rows made;
  made.cells = (inputs + kCell - 1) / kCell;
  const auto cells = static_cast<std::size_t>(rows * made.cells);
  made.codes = reinterpret_cast<std::int8_t*>(arena.take(cells * kCell));
  made.scales = reinterpret_cast<float*>(arena.take(cells * sizeof(float)));
  made.halves = reinterpret_cast<std::int16_t*>(arena.take(cells * 2 * sizeof(std::int16_t)));
  return made;
}

Int8Rows quantise_activations(const OpContext& ctx, ConstMatrix x, ScaleBy by) {
  const Int8Rows rows = make_int8_rows(ctx, x.rows, x.columns);
  ctx.pool->parallel_for(x.rows, rows_in_piece(x.columns), [&](int, Index begin, Index end) {
    for (Index r = begin; r < end; ++r) quantise_one(rows, x.row(r), x.columns, r, by);
  });
  return rows;
}

Int8Rows quantise_activations(const OpContext& ctx, const BasicMatrix<const Bf16>& x, ScaleBy by) {
  const Int8Rows rows = make_int8_rows(ctx, x.rows, x.columns);
  ctx.pool->parallel_for(x.rows, rows_in_piece(x.columns), [&](int thread, Index begin, Index end) {
    const Workers alone(ctx.pool->scratch(thread));
    for (Index r = begin; r < end; ++r) {
      const ArenaScope scope(alone.op_scratch());
      quantise_one(rows, in_fp32(alone, x.row_range(r, 1)).data, x.columns, r, by);
    }
  });
  return rows;
}

}  // namespace tutti::kernels
