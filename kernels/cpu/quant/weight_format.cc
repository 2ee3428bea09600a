#include "kernels/ops/weights/weight_format.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/cpu/product/bf16_row.h"
#include "kernels/cpu/quant/row_codes.h"
#include "kernels/tensor/float_mode.h"

namespace tutti::kernels {

namespace {

constexpr std::size_t kFp8Block = kFp8Cells * kCell;

// The nearest code of value / scale + zero, within [0, last]; a scale of zero gives zero.
std::uint8_t nearest(float value, float scale, int zero, int last) {
  if (scale == 0.0F) return static_cast<std::uint8_t>(zero);
  const float code = std::nearbyint(value / scale) + static_cast<float>(zero);
  return static_cast<std::uint8_t>(std::clamp(code, 0.0F, static_cast<float>(last)));
}

struct Extremes {
  float low = 0.0F;  // zero is always within
  float high = 0.0F;

  explicit Extremes(std::span<const float> values) {
    for (const float value : values) {
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  // The one of larger magnitude, with its sign.
  float farthest() const { return -low > high ? low : high; }
};

// Codes around a zero: the value of largest magnitude takes the code at the lower end, of which
// there is one more.
void symmetric(std::span<const float> values, int zero, RowCodes& codes, std::size_t block) {
  const float scale = zero == 128 ? Extremes(values).farthest() / 127.0F
                                  : Extremes(values).farthest() / static_cast<float>(-zero);
  codes.half[block] = to_half(zero == 128 ? std::abs(scale) : scale);
  const float used = from_half(codes.half[block]);
  for (std::size_t i = 0; i < values.size(); ++i) {
    codes.code[block * 32 + i] = nearest(values[i], used, zero, 2 * zero - 1);
  }
}

void group(std::span<const float> values, RowCodes& codes, std::size_t block) {
  const Extremes ends(values);
  codes.half[block] = to_half((ends.high - ends.low) / 15.0F);
  codes.half_min[block] = to_half(ends.low);
  const float scale = from_half(codes.half[block]);
  const float min = from_half(codes.half_min[block]);
  for (std::size_t i = 0; i < values.size(); ++i) {
    codes.code[block * 32 + i] = nearest(values[i] - min, scale, 0, 15);
  }
}

void normal_floats(std::span<const float> values, RowCodes& codes, std::size_t block) {
  const float scale = std::abs(Extremes(values).farthest());
  codes.scale[block] = scale;
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::size_t best = 7;
    const float value = scale == 0.0F ? 0.0F : values[i] / scale;
    for (std::size_t c = 0; c < kNormalFloats.size(); ++c) {
      if (std::abs(kNormalFloats[c] - value) < std::abs(kNormalFloats[best] - value)) best = c;
    }
    codes.code[block * 64 + i] = static_cast<std::uint8_t>(best);
  }
}

void eight_bit_floats(WeightFormat format, std::span<const float> values, RowCodes& codes) {
  for (std::size_t first = 0; first < values.size(); first += kFp8Block) {
    const auto block = values.subspan(first, std::min(kFp8Block, values.size() - first));
    const float scale = std::abs(Extremes(block).farthest()) / fp8_largest(format);
    codes.scale[first / kFp8Block] = scale;
    for (std::size_t i = 0; i < block.size(); ++i) {
      codes.code[first + i] = scale == 0.0F ? 0 : fp8_code(format, block[i] / scale);
    }
  }
}

// Zero is a number between the extremes, so that it is a code; each block its own entry.
void with_zero(WeightFormat format, std::span<const float> values, RowCodes& codes,
               std::size_t block) {
  const int last = layout_of(format).bits == 4 ? 15 : 255;
  const Extremes ends(values);
  codes.half[block] = to_half((ends.high - ends.low) / static_cast<float>(last));
  const float scale = from_half(codes.half[block]);
  codes.sub[block] = nearest(-ends.low, scale, 0, last);
  for (std::size_t i = 0; i < values.size(); ++i) {
    codes.code[block * 32 + i] = nearest(values[i], scale, codes.sub[block], last);
  }
}

// Eight scales and minima of six bits over one pair of f16.
void k_block(std::span<const float> values, int last, RowCodes& codes, std::size_t super) {
  float scales[8];
  float mins[8];
  for (std::size_t s = 0; s < 8; ++s) {
    const Extremes ends(values.subspan(s * 32, 32));
    scales[s] = (ends.high - ends.low) / static_cast<float>(last);
    mins[s] = -ends.low;
  }
  codes.half[super] = to_half(*std::max_element(scales, scales + 8) / 63.0F);
  codes.half_min[super] = to_half(*std::max_element(mins, mins + 8) / 63.0F);
  const float d = from_half(codes.half[super]);
  const float e = from_half(codes.half_min[super]);
  for (std::size_t s = 0; s < 8; ++s) {
    codes.sub[super * 8 + s] = nearest(scales[s], d, 0, 63);
    codes.sub_min[super * 8 + s] = nearest(mins[s], e, 0, 63);
    const float scale = d * static_cast<float>(codes.sub[super * 8 + s]);
    const float min = e * static_cast<float>(codes.sub_min[super * 8 + s]);
    for (std::size_t i = 0; i < 32; ++i) {
      const std::size_t at = s * 32 + i;
      codes.code[super * 256 + at] = nearest(values[at] + min, scale, 0, last);
    }
  }
}

void six_block(std::span<const float> values, RowCodes& codes, std::size_t super) {
  float scales[16];
  float widest = 0.0F;
  for (std::size_t s = 0; s < 16; ++s) {
    scales[s] = Extremes(values.subspan(s * 16, 16)).farthest() / -32.0F;
    if (std::abs(scales[s]) > std::abs(widest)) widest = scales[s];
  }
  codes.half[super] = to_half(widest / -128.0F);
  const float d = from_half(codes.half[super]);
  for (std::size_t s = 0; s < 16; ++s) {
    const float sub = d == 0.0F ? 0.0F : std::clamp(std::nearbyint(scales[s] / d), -128.0F, 127.0F);
    codes.sub[super * 16 + s] = static_cast<std::uint8_t>(static_cast<std::int8_t>(sub));
    for (std::size_t i = 0; i < 16; ++i) {
      const std::size_t at = s * 16 + i;
      codes.code[super * 256 + at] = nearest(values[at], d * sub, 32, 63);
    }
  }
}

void quantise(WeightFormat format, std::span<const float> values, RowCodes& codes) {
  if (format == WeightFormat::bf16) {
    codes.wide.resize(values.size());
    std::transform(values.begin(), values.end(), codes.wide.begin(), upper_half);
    return;
  }
  if (format == WeightFormat::int8_channel) {
    codes.scale[0] = std::abs(Extremes(values).farthest()) / 127.0F;
    for (std::size_t i = 0; i < values.size(); ++i) {
      codes.code[i] = nearest(values[i], codes.scale[0], 128, 255);
    }
    return;
  }
  if (is_fp8(format)) return eight_bit_floats(format, values, codes);
  if (is_ordered(format)) {
    codes.wide.resize(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      codes.wide[i] = static_cast<std::uint16_t>(i / kCell);
    }
  }
  const auto inputs = static_cast<std::size_t>(block_inputs(format));
  for (std::size_t b = 0; b < values.size() / inputs; ++b) {
    const auto block = values.subspan(b * inputs, inputs);
    switch (format) {
      case WeightFormat::int4_group: group(block, codes, b); break;
      case WeightFormat::nf4: normal_floats(block, codes, b); break;
      case WeightFormat::q4_k: k_block(block, 15, codes, b); break;
      case WeightFormat::q5_k: k_block(block, 31, codes, b); break;
      case WeightFormat::q6_k: six_block(block, codes, b); break;
      case WeightFormat::int4_zero:
      case WeightFormat::int8_zero:
      case WeightFormat::int4_order:
      case WeightFormat::int8_order: with_zero(format, block, codes, b); break;
      default: symmetric(block, zero_of(format), codes, b); break;
    }
  }
}

Result<> check(WeightFormat format, std::size_t inputs, std::size_t bytes) {
  const auto count = static_cast<Index>(inputs);
  if (count % block_inputs(format) != 0 || row_bytes(format, count) != bytes) {
    return Error{ErrorCode::invalid_argument,
                 std::string(to_string(format)) + ": a row of " + std::to_string(inputs) +
                     " inputs in " + std::to_string(bytes) + " bytes; blocks are of " +
                     std::to_string(block_inputs(format)) + " inputs and " +
                     std::to_string(row_bytes(format, block_inputs(format))) + " bytes"};
  }
  return {};
}

}  // namespace

std::string_view to_string(WeightFormat format) {
  switch (format) {
    case WeightFormat::bf16: return "bf16";
    case WeightFormat::int8_channel: return "int8_channel";
    case WeightFormat::int4_group: return "int4_group";
    case WeightFormat::nf4: return "nf4";
    case WeightFormat::q8_0: return "q8_0";
    case WeightFormat::q4_0: return "q4_0";
    case WeightFormat::q5_0: return "q5_0";
    case WeightFormat::q4_k: return "q4_k";
    case WeightFormat::q5_k: return "q5_k";
    case WeightFormat::q6_k: return "q6_k";
    case WeightFormat::fp8_e4m3: return "fp8_e4m3";
    case WeightFormat::fp8_e5m2: return "fp8_e5m2";
    case WeightFormat::int4_zero: return "int4_zero";
    case WeightFormat::int8_zero: return "int8_zero";
    case WeightFormat::int4_order: return "int4_order";
    case WeightFormat::int8_order: return "int8_order";
  }
  return "unknown";
}

Index block_inputs(WeightFormat format) {
  switch (format) {
    case WeightFormat::bf16:
    case WeightFormat::int8_channel:
    case WeightFormat::fp8_e4m3:
    case WeightFormat::fp8_e5m2: return 1;
    case WeightFormat::nf4: return 64;
    case WeightFormat::q4_k:
    case WeightFormat::q5_k:
    case WeightFormat::q6_k: return 256;
    default: return 32;
  }
}

std::size_t row_bytes(WeightFormat format, Index inputs) {
  const auto blocks = static_cast<std::size_t>(inputs / block_inputs(format));
  switch (format) {
    case WeightFormat::bf16: return 2 * blocks;
    case WeightFormat::int8_channel: return 4 + blocks;
    case WeightFormat::int4_group: return 20 * blocks;
    case WeightFormat::nf4: return 36 * blocks;
    case WeightFormat::q8_0: return 34 * blocks;
    case WeightFormat::q4_0: return 18 * blocks;
    case WeightFormat::q5_0: return 22 * blocks;
    case WeightFormat::q4_k: return 144 * blocks;
    case WeightFormat::q5_k: return 176 * blocks;
    case WeightFormat::q6_k: return 210 * blocks;
    case WeightFormat::int4_zero: return 19 * blocks;
    case WeightFormat::int8_zero: return 35 * blocks;
    case WeightFormat::int4_order: return 83 * blocks;
    case WeightFormat::int8_order: return 99 * blocks;
    case WeightFormat::fp8_e4m3:
    case WeightFormat::fp8_e5m2: return blocks + (blocks + kFp8Block - 1) / kFp8Block * 4;
  }
  return 0;
}

Index inputs_of(WeightFormat format, std::size_t bytes) {
  const std::size_t fixed = row_bytes(format, 0);
  if (bytes < fixed) return -1;
  Index inputs = 0;
  if (is_fp8(format)) {
    const std::size_t blocks = (bytes + kFp8Block + 3) / (kFp8Block + 4);
    inputs = static_cast<Index>(bytes - 4 * std::min(blocks, bytes / 4));
  } else {
    const std::size_t block = row_bytes(format, block_inputs(format)) - fixed;
    inputs = static_cast<Index>((bytes - fixed) / block) * block_inputs(format);
  }
  return row_bytes(format, inputs) == bytes ? inputs : -1;
}

Result<> quantise_row(WeightFormat format, std::span<const float> values,
                      std::span<std::byte> row) {
  const FloatModeScope mode;
  if (auto checked = check(format, values.size(), row.size()); !checked) return checked;
  for (const float value : values) {
    if (!std::isfinite(value)) {
      return Error{ErrorCode::invalid_argument,
                   std::string(to_string(format)) + ": a weight that is not finite"};
    }
  }
  RowCodes codes;
  const auto inputs = static_cast<Index>(values.size());
  codes.resize(inputs);
  quantise(format, values, codes);
  const auto finite = [](std::uint16_t half) { return std::isfinite(from_half(half)); };
  if (!std::all_of(codes.half.begin(), codes.half.end(), finite) ||
      !std::all_of(codes.half_min.begin(), codes.half_min.end(), finite) ||
      !std::all_of(codes.wide.begin(), codes.wide.end(),
                   [](std::uint16_t wide) { return std::isfinite(widened(wide)); })) {
    return Error{ErrorCode::invalid_argument,
                 std::string(to_string(format)) + ": a weight too large for its sixteen bits"};
  }
  put_together(format, codes, inputs, row.data());
  return {};
}

Result<> dequantise_row(WeightFormat format, std::span<const std::byte> row,
                        std::span<float> values) {
  const FloatModeScope mode;
  if (auto checked = check(format, values.size(), row.size()); !checked) return checked;
  RowCodes codes;
  const auto inputs = static_cast<Index>(values.size());
  take_apart(format, row.data(), inputs, codes);
  if (!entries_fit(format, codes, inputs)) {
    return Error{ErrorCode::invalid_argument,
                 std::string(to_string(format)) + ": an entry that the row's table has not"};
  }
  for (Index b = 0; b * kCell < inputs; ++b) {
    float cell[kCell];
    values_of(format, codes, b, cell);
    std::copy_n(cell, std::min(kCell, inputs - b * kCell), values.data() + b * kCell);
  }
  return {};
}

bool is_half(float value) { return std::isfinite(value) && from_half(to_half(value)) == value; }

Result<> join_row(WeightFormat format, const GroupedRow& from, std::span<std::byte> row) {
  const FloatModeScope mode;
  if (auto checked = check(format, from.codes.size(), row.size()); !checked) return checked;
  const auto inputs = static_cast<Index>(from.codes.size());
  const std::size_t cells = from.codes.size() / kCell;
  const bool ordered = is_ordered(format);
  if (!has_zeros(format) || from.scales.size() != from.zeros.size() ||
      (ordered ? from.scales.size() > cells : from.scales.size() != cells) ||
      from.entries.size() != (ordered ? from.codes.size() : 0)) {
    return Error{ErrorCode::invalid_argument,
                 std::string(to_string(format)) + ": scales, zeros or entries do not match codes"};
  }
  RowCodes codes;
  codes.resize(inputs);
  codes.code.assign(from.codes.begin(), from.codes.end());
  codes.wide.assign(from.entries.begin(), from.entries.end());
  for (std::size_t e = 0; e < from.scales.size(); ++e) {
    if (!is_half(from.scales[e])) {
      return Error{ErrorCode::invalid_argument,
                   std::string(to_string(format)) + ": a scale that is no finite half"};
    }
    codes.half[e] = to_half(from.scales[e]);
    codes.sub[e] = from.zeros[e];
  }
  const auto out_of_table = [&](std::uint16_t e) { return e >= from.scales.size(); };
  if (std::any_of(codes.wide.begin(), codes.wide.end(), out_of_table)) {
    return Error{ErrorCode::invalid_argument,
                 std::string(to_string(format)) + ": an entry that is not there"};
  }
  put_together(format, codes, inputs, row.data());
  return {};
}

}  // namespace tutti::kernels
