// Lays a quantised weight out for the registers, and reads groups of it back as f32 panels.
#include "kernels/cpu/quant/image.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "kernels/cpu/quant/cells.h"

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

std::uint8_t code_at(int bits, const std::uint8_t* cell, Index quad, Index at) {
  if (bits == 8) return cell[quad * 64 + at];
  const int low = cell[quad % 4 * 64 + at] >> (quad / 4 * 4) & 15;
  if (bits == 4) return static_cast<std::uint8_t>(low);
  const int high =
      bits == 6 ? cell[256 + quad / 4 * 64 + at] >> (quad % 4 * 2) & 3 : cell[256 + at] >> quad & 1;
  return static_cast<std::uint8_t>(low | high << 4);
}

void put_half_at(std::uint16_t half, Index output, std::uint8_t* to) {
  std::memcpy(to + output * 2, &half, 2);
}
float half_at(const std::uint8_t* from, Index output) {
  std::uint16_t half;
  std::memcpy(&half, from + output * 2, 2);
  return from_half(half);
}

void put_scales(WeightFormat format, const RowCodes& row, Index c, Index output,
                std::uint8_t* group) {
  const CellLayout layout = layout_of(format);
  std::uint8_t* const scales = group + layout.cell_at(c) + layout.codes();
  std::uint8_t* const super = group + layout.super_at(c);
  const auto at = static_cast<std::size_t>(c);
  switch (format) {
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
  float scale[2][kGroup];
  float add[kGroup];
};

void read_scales(WeightFormat format, const std::uint8_t* group, Index c, CellScales& s) {
  const CellLayout layout = layout_of(format);
  const std::uint8_t* const scales = group + layout.cell_at(c) + layout.codes();
  const std::uint8_t* const super = group + layout.super_at(c);
  for (Index o = 0; o < kGroup; ++o) {
    s.add[o] = 0.0F;
    switch (format) {
      case WeightFormat::int8_channel: std::memcpy(&s.scale[0][o], group + o * 4, 4); break;
      case WeightFormat::nf4: std::memcpy(&s.scale[0][o], scales + o * 4, 4); break;
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
  for (Index c = 0; c < cells; ++c) {
    put_codes(layout.bits, row.code.data() + c * kCell, output, group + layout.cell_at(c));
    put_scales(format, row, c, output, group);
  }
}

void read_group(WeightFormat format, const std::uint8_t* group, Index inputs, float* panel,
                Index stride) {
  const CellLayout layout = layout_of(format);
  const int zero = zero_of(format);
  const bool adds = format == WeightFormat::int4_group || format == WeightFormat::q4_k ||
                    format == WeightFormat::q5_k;
  for (Index c = 0; c * kCell < inputs; ++c) {
    CellScales scales;
    read_scales(format, group, c, scales);
    const std::uint8_t* const cell = group + layout.cell_at(c);
    const Index depth = std::min(kCell, inputs - c * kCell);
    for (Index k = 0; k < depth; ++k) {
      float* const to = panel + (c * kCell + k) * stride;
      const float* const scale = scales.scale[k / 16];
      for (Index o = 0; o < kGroup; ++o) {
        const std::uint8_t code = code_at(layout.bits, cell, k / 4, o * 4 + k % 4);
        if (format == WeightFormat::nf4) {
          to[o] = scale[o] * kNormalFloats[code];
          continue;
        }
        const float scaled = scale[o] * static_cast<float>(code - zero);
        to[o] = adds ? scaled + scales.add[o] : scaled;
      }
    }
  }
}

}  // namespace tutti::kernels
