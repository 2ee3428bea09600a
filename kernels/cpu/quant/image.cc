// Lays a quantised weight out for the registers, and reads groups of it back as f32 panels.
#include "kernels/cpu/quant/image.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/cpu/product/product_call.h"
#include "kernels/cpu/quant/cells.h"
#include "kernels/cpu/quant/fp8_values.h"

namespace tutti::kernels {

namespace {

void put_codes(int bits, const std::uint8_t* code, Index output, std::uint8_t* cell) {
  for (Index k = 0; k < kCell; ++k) {
    const Index quad = k / 4;
    const Index at = output * 4 + k % 4;
    const std::uint8_t value = code[k];
    if (bits == 8) {
      cell[quad * 64 + at] = value;
      continue;
    }
    std::uint8_t& nibbles = cell[quad % 4 * 64 + at];
    nibbles = static_cast<std::uint8_t>(nibbles | (value & 15) << (quad / 4 * 4));
    if (bits == 4) continue;
    std::uint8_t& high = cell[256 + (bits == 6 ? quad / 4 * 64 : 0) + at];
    const Index shift = bits == 6 ? quad % 4 * 2 : quad;
    high = static_cast<std::uint8_t>(high | (value >> 4) << shift);
  }
}

// The codes of a cell, quad by quad, a byte each.
void take_codes(int bits, const std::uint8_t* cell, std::uint8_t (&codes)[kQuads][64]) {
  if (bits == 8) {
    std::memcpy(codes, cell, sizeof codes);
    return;
  }
  for (int j = 0; j < 4; ++j) {
    const std::uint8_t* const nibbles = cell + 64 * j;
    for (int at = 0; at < 64; ++at) {
      codes[j][at] = nibbles[at] & 15;
      codes[j + 4][at] = nibbles[at] >> 4;
    }
  }
  if (bits == 4) return;
  for (int j = 0; j < kQuads; ++j) {
    const std::uint8_t* const high = cell + 256 + (bits == 6 ? j / 4 * 64 : 0);
    const int shift = bits == 6 ? j % 4 * 2 : j;
    const int mask = bits == 6 ? 3 : 1;
    for (int at = 0; at < 64; ++at) {
      const int upper = (high[at] >> shift & mask) << 4;
      codes[j][at] = static_cast<std::uint8_t>(codes[j][at] | upper);
    }
  }
}

void put_half_at(std::uint16_t half, Index output, std::uint8_t* to) {
  std::memcpy(to + output * 2, &half, 2);
}
float half_at(const std::uint8_t* from, Index output) {
  std::uint16_t half;
  std::memcpy(&half, from + output * 2, 2);
  return from_half(half);
}

// By input and output, for no product takes four inputs at once; the scale beside its cells.
void put_fp8(WeightFormat format, const RowCodes& row, Index c, Index output, std::uint8_t* group) {
  const CellLayout layout = layout_of(format);
  std::uint8_t* const cell = group + layout.cell_at(c);
  for (Index k = 0; k < kCell; ++k) {
    cell[k * kGroup + output] = row.code[static_cast<std::size_t>(c * kCell + k)];
  }
  const float scale = row.scale[static_cast<std::size_t>(c / kFp8Cells)];
  const float held = format == WeightFormat::fp8_e4m3 ? scale * 256.0F : scale;
  std::memcpy(group + layout.super_at(c) + c % kSuperCells / kFp8Cells * 64 + output * 4, &held, 4);
}

void put_scales(WeightFormat format, const RowCodes& row, Index c, Index output,
                std::uint8_t* group) {
  const CellLayout layout = layout_of(format);
  std::uint8_t* const scales = group + layout.cell_at(c) + layout.codes();
  std::uint8_t* const super = group + layout.super_at(c);
  const auto at = static_cast<std::size_t>(c);
  switch (format) {
    case WeightFormat::bf16:
    case WeightFormat::fp8_e4m3:
    case WeightFormat::fp8_e5m2: break;
    case WeightFormat::int4_zero:
    case WeightFormat::int8_zero:
    case WeightFormat::int4_order:
    case WeightFormat::int8_order:
      put_half_at(row.half[at], output, scales);
      scales[kZerosAt + output] = row.sub[at];
      // The same for all outputs.
      if (is_ordered(format)) {
        std::memcpy(scales + kEntriesAt, row.wide.data() + c * kCell, 2 * kCell);
      }
      break;
    case WeightFormat::int8_channel: std::memcpy(group + output * 4, row.scale.data(), 4); break;
    case WeightFormat::nf4: std::memcpy(scales + output * 4, &row.scale[at / 2], 4); break;
    case WeightFormat::int4_group:
      put_half_at(row.half[at], output, scales);
      put_half_at(row.half_min[at], output, scales + 32);
      break;
    case WeightFormat::q4_k:
    case WeightFormat::q5_k:
      scales[output] = row.sub[at];
      scales[16 + output] = row.sub_min[at];
      put_half_at(row.half[at / 8], output, super);
      put_half_at(row.half_min[at / 8], output, super + 32);
      break;
    case WeightFormat::q6_k:
      scales[output] = row.sub[at * 2];
      scales[16 + output] = row.sub[at * 2 + 1];
      put_half_at(row.half[at / 8], output, super);
      break;
    default: put_half_at(row.half[at], output, scales); break;
  }
}

// Of one cell, by output: value = scale (code - zero) + add; two scales where halves differ.
struct CellScales {
  alignas(32) float scale[2][kGroup];
  alignas(32) float add[kGroup];
};

void read_scales(WeightFormat format, const std::uint8_t* group, Index c, CellScales& s) {
  const CellLayout layout = layout_of(format);
  const std::uint8_t* const scales = group + layout.cell_at(c) + layout.codes();
  const std::uint8_t* const super = group + layout.super_at(c);
  for (Index o = 0; o < kGroup; ++o) {
    s.add[o] = 0.0F;
    switch (format) {
      case WeightFormat::bf16:
      case WeightFormat::fp8_e4m3:
      case WeightFormat::fp8_e5m2:
      case WeightFormat::int4_zero:
      case WeightFormat::int8_zero:
      case WeightFormat::int4_order:
      case WeightFormat::int8_order: break;
      case WeightFormat::int8_channel: std::memcpy(&s.scale[0][o], group + o * 4, 4); break;
      case WeightFormat::nf4: break;
      case WeightFormat::int4_group:
        s.scale[0][o] = half_at(scales, o);
        s.add[o] = half_at(scales + 32, o);
        break;
      case WeightFormat::q4_k:
      case WeightFormat::q5_k:
        s.scale[0][o] = half_at(super, o) * static_cast<float>(scales[o]);
        s.add[o] = -(half_at(super + 32, o) * static_cast<float>(scales[16 + o]));
        break;
      case WeightFormat::q6_k:
        s.scale[0][o] = half_at(super, o) * static_cast<float>(static_cast<std::int8_t>(scales[o]));
        s.scale[1][o] =
            half_at(super, o) * static_cast<float>(static_cast<std::int8_t>(scales[16 + o]));
        break;
      default: s.scale[0][o] = half_at(scales, o); break;
    }
    if (format != WeightFormat::q6_k) s.scale[1][o] = s.scale[0][o];
  }
}

}  // namespace

void lay_out_row(WeightFormat format, const RowCodes& row, Index cells, Index output,
                 std::uint8_t* group) {
  const CellLayout layout = layout_of(format);
  if (format == WeightFormat::bf16) {
    for (Index k = 0; k < cells * kCell; ++k) {
      std::memcpy(group + (k * kImagePanel + output) * 2, &row.wide[static_cast<std::size_t>(k)],
                  2);
    }
    return;
  }
  for (Index c = 0; c < cells; ++c) {
    if (is_fp8(format)) {
      put_fp8(format, row, c, output, group);
      continue;
    }
    put_codes(layout.bits, row.code.data() + c * kCell, output, group + layout.cell_at(c));
    put_scales(format, row, c, output, group);
  }
}

namespace {

// How far ahead a group's next cells are asked for: groups are read a piece at a time in turn,
// which the machine's own streams do not follow across pages.
constexpr Index kAheadBytes = 4096;

void read_bf16(const std::uint8_t* from, Index depth, float* panel, Index stride) {
  for (Index k = 0; k < depth; ++k) {
    for (Index half = 0; half < 2; ++half) {
      const __m128i words =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k * kImagePanel * 2 + half * 16));
      _mm256_storeu_ps(panel + k * stride + half * 8,
                       _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16)));
    }
  }
}

// The table's entries by the four bits at `shift` of each word.
inline __m256 look_up(__m256i words, int shift, __m256 table_low, __m256 table_high) {
  const __m256i code = _mm256_srl_epi32(words, _mm_cvtsi32_si128(shift));
  const __m256 upper = _mm256_castsi256_ps(_mm256_sll_epi32(words, _mm_cvtsi32_si128(28 - shift)));
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table_low, code),
                          _mm256_permutevar8x32_ps(table_high, code), upper);
}

void read_nf4(const std::uint8_t* cell, float* panel, Index stride) {
  const __m256 table_low = _mm256_loadu_ps(kNormalFloats.data());
  const __m256 table_high = _mm256_loadu_ps(kNormalFloats.data() + 8);
  const auto* const scales = reinterpret_cast<const float*>(cell + 256);
  for (Index line = 0; line < 320; line += 64) __builtin_prefetch(cell + line + kAheadBytes);
  for (Index half = 0; half < 2; ++half) {
    const __m256 scale = _mm256_loadu_ps(scales + half * 8);
    for (Index quad = 0; quad < 4; ++quad) {
      const __m256i words =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(cell + quad * 64 + half * 32));
      float* const to = panel + quad * 4 * stride + half * 8;
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const __m256 value = look_up(words, i % 4 * 8 + i / 4 * 4, table_low, table_high);
        _mm256_storeu_ps(to + (i / 4 * 16 + i % 4) * stride, _mm256_mul_ps(scale, value));
      }
    }
  }
}

void read_fp8(WeightFormat format, const std::uint8_t* group, Index c, float* panel, Index stride) {
  const CellLayout layout = layout_of(format);
  const std::uint8_t* const cell = group + layout.cell_at(c);
  const auto* const scales =
      reinterpret_cast<const float*>(group + layout.super_at(c) + c % kSuperCells / kFp8Cells * 64);
  for (Index line = 0; line < layout.cell(); line += 64) {
    __builtin_prefetch(cell + line + kAheadBytes);
  }
  const bool e4m3 = format == WeightFormat::fp8_e4m3;
  for (Index k = 0; k < kCell; ++k) {
    const Fp8Values values = fp8_values(cell + k * kGroup, e4m3);
    float* const to = panel + k * stride;
    _mm256_storeu_ps(to, _mm256_mul_ps(_mm256_loadu_ps(scales), values.low));
    _mm256_storeu_ps(to + 8, _mm256_mul_ps(_mm256_loadu_ps(scales + 8), values.high));
  }
}

// scale (code - zero) with zeros of outputs, and of inputs where groups lie anywhere.
void read_zeros(WeightFormat format, const std::uint8_t* group, Index c, float* panel,
                Index stride) {
  const CellLayout layout = layout_of(format);
  const std::uint8_t* const cell = group + layout.cell_at(c);
  const std::uint8_t* const record = cell + layout.codes();
  for (Index line = 0; line < layout.cell(); line += 64) {
    __builtin_prefetch(cell + line + kAheadBytes);
  }
  alignas(64) std::uint8_t codes[kQuads][64];
  take_codes(layout.bits, cell, codes);
  for (Index k = 0; k < kCell; ++k) {
    const std::uint8_t* scales = record;
    if (is_ordered(format)) {
      std::uint16_t entry;
      std::memcpy(&entry, record + kEntriesAt + 2 * k, 2);
      scales = group + layout.cell_at(entry) + layout.codes();
    }
    for (Index half = 0; half < 2; ++half) {
      const auto* const words = reinterpret_cast<const __m256i*>(codes[k / 4] + half * 32);
      const __m256i code =
          _mm256_and_si256(_mm256_srl_epi32(_mm256_load_si256(words), _mm_cvtsi64_si128(k % 4 * 8)),
                           _mm256_set1_epi32(255));
      const __m256i zero = _mm256_cvtepu8_epi32(
          _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + kZerosAt + half * 8)));
      const __m256 scale =
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + half * 16)));
      _mm256_storeu_ps(panel + k * stride + half * 8,
                       _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_sub_epi32(code, zero))));
    }
  }
}

// scale (code - zero) + add, for formats with integer codes.
void read_codes(WeightFormat format, const std::uint8_t* group, Index c, float* panel,
                Index stride) {
  const CellLayout layout = layout_of(format);
  const __m256i zero = _mm256_set1_epi32(zero_of(format));
  const bool adds = format == WeightFormat::int4_group || format == WeightFormat::q4_k ||
                    format == WeightFormat::q5_k;
  CellScales scales;
  read_scales(format, group, c, scales);
  alignas(64) std::uint8_t codes[kQuads][64];
  take_codes(layout.bits, group + layout.cell_at(c), codes);
  for (Index k = 0; k < kCell; ++k) {
    for (Index half = 0; half < 2; ++half) {
      const auto* const words = reinterpret_cast<const __m256i*>(codes[k / 4] + half * 32);
      const __m128i shift = _mm_cvtsi64_si128(k % 4 * 8);
      const __m256i code = _mm256_and_si256(_mm256_srl_epi32(_mm256_load_si256(words), shift),
                                            _mm256_set1_epi32(255));
      __m256 value = _mm256_cvtepi32_ps(_mm256_sub_epi32(code, zero));
      value = _mm256_mul_ps(_mm256_load_ps(scales.scale[k / 16] + half * 8), value);
      if (adds) value = _mm256_add_ps(value, _mm256_load_ps(scales.add + half * 8));
      _mm256_storeu_ps(panel + k * stride + half * 8, value);
    }
  }
}

}  // namespace

void read_cells(WeightFormat format, const std::uint8_t* group, Index first, Index cells,
                float* panel, Index stride) {
  const CellLayout layout = layout_of(format);
  if (format == WeightFormat::bf16) {
    return read_bf16(group + first * kCell * kImagePanel * 2, cells * kCell, panel, stride);
  }
  for (Index c = 0; c < cells; ++c) {
    float* const to = panel + c * kCell * stride;
    if (format == WeightFormat::nf4) {
      read_nf4(group + layout.cell_at(first + c), to, stride);
    } else if (is_fp8(format)) {
      read_fp8(format, group, first + c, to, stride);
    } else if (has_zeros(format)) {
      read_zeros(format, group, first + c, to, stride);
    } else {
      read_codes(format, group, first + c, to, stride);
    }
  }
}

}  // namespace tutti::kernels
