#include "kernels/cpu/quant/row_codes.h"

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/product/bf16_row.h"

namespace tutti::kernels {

namespace {

using Bytes = const std::uint8_t*;

std::uint16_t half_at(Bytes from) { return static_cast<std::uint16_t>(from[0] | (from[1] << 8)); }
void put_half(std::uint16_t half, std::uint8_t* to) {
  to[0] = static_cast<std::uint8_t>(half & 0xff);
  to[1] = static_cast<std::uint8_t>(half >> 8);
}
std::uint8_t byte(int value) { return static_cast<std::uint8_t>(value & 0xff); }

// q8_0, q4_0, q5_0: f16 d, for q5_0 the fifth bits of inputs 0..31, then codes: bytes, or nibbles
// with input i in the low half and i + 16 in the high half.
void take_simple(WeightFormat format, Bytes block, std::uint16_t& half, std::uint8_t* code) {
  half = half_at(block);
  block += 2;
  if (format == WeightFormat::q8_0) {
    for (int i = 0; i < 32; ++i) code[i] = byte(block[i] ^ 0x80);
    return;
  }
  std::uint32_t fifth = 0;
  if (format == WeightFormat::q5_0) {
    std::memcpy(&fifth, block, 4);
    block += 4;
  }
  for (int i = 0; i < 16; ++i) {
    code[i] = byte((block[i] & 15) | static_cast<int>((fifth >> i & 1) << 4));
    code[i + 16] = byte((block[i] >> 4) | static_cast<int>((fifth >> (i + 16) & 1) << 4));
  }
}

void put_simple(WeightFormat format, std::uint16_t half, Bytes code, std::uint8_t* block) {
  put_half(half, block);
  block += 2;
  if (format == WeightFormat::q8_0) {
    for (int i = 0; i < 32; ++i) block[i] = byte(code[i] ^ 0x80);
    return;
  }
  if (format == WeightFormat::q5_0) {
    std::uint32_t fifth = 0;
    for (int i = 0; i < 32; ++i) fifth |= static_cast<std::uint32_t>(code[i] >> 4 & 1) << i;
    std::memcpy(block, &fifth, 4);
    block += 4;
  }
  for (int i = 0; i < 16; ++i) block[i] = byte((code[i] & 15) | (code[i + 16] & 15) << 4);
}

// The twelve bytes of eight 6-bit scales s and minima m: bytes 0..3 hold s of 0..3, bytes 4..7 m of
// 0..3, each with two high bits of s and m of 4..7 on top; bytes 8..11 hold their low halves.
void take_six_bits(Bytes from, std::uint8_t* sub, std::uint8_t* sub_min) {
  for (int j = 0; j < 4; ++j) {
    sub[j] = byte(from[j] & 63);
    sub_min[j] = byte(from[j + 4] & 63);
    sub[j + 4] = byte((from[j + 8] & 15) | (from[j] >> 6) << 4);
    sub_min[j + 4] = byte((from[j + 8] >> 4) | (from[j + 4] >> 6) << 4);
  }
}
void put_six_bits(Bytes sub, Bytes sub_min, std::uint8_t* to) {
  for (int j = 0; j < 4; ++j) {
    to[j] = byte(sub[j] | (sub[j + 4] >> 4) << 6);
    to[j + 4] = byte(sub_min[j] | (sub_min[j + 4] >> 4) << 6);
    to[j + 8] = byte((sub[j + 4] & 15) | (sub_min[j + 4] & 15) << 4);
  }
}

// q4_k, q5_k: 64 inputs share 32 bytes of nibbles, the first 32 in the low halves; bit 2c (+ 1) of
// fifth byte l belongs to input 64c (+ 32) + l.
void take_k(bool fifth, Bytes block, Index super, RowCodes& codes) {
  codes.half[static_cast<std::size_t>(super)] = half_at(block);
  codes.half_min[static_cast<std::size_t>(super)] = half_at(block + 2);
  take_six_bits(block + 4, codes.sub.data() + super * 8, codes.sub_min.data() + super * 8);
  const Bytes high = block + 16;
  const Bytes low = fifth ? high + 32 : high;
  std::uint8_t* const code = codes.code.data() + super * 256;
  for (int c = 0; c < 4; ++c) {
    for (int l = 0; l < 32; ++l) {
      const int bits = fifth ? high[l] >> (2 * c) : 0;
      code[64 * c + l] = byte((low[32 * c + l] & 15) | (bits & 1) << 4);
      code[64 * c + 32 + l] = byte((low[32 * c + l] >> 4) | (bits >> 1 & 1) << 4);
    }
  }
}
void put_k(bool fifth, const RowCodes& codes, Index super, std::uint8_t* block) {
  put_half(codes.half[static_cast<std::size_t>(super)], block);
  put_half(codes.half_min[static_cast<std::size_t>(super)], block + 2);
  put_six_bits(codes.sub.data() + super * 8, codes.sub_min.data() + super * 8, block + 4);
  std::uint8_t* const high = block + 16;
  std::uint8_t* const low = fifth ? high + 32 : high;
  if (fifth) std::memset(high, 0, 32);
  const Bytes code = codes.code.data() + super * 256;
  for (int c = 0; c < 4; ++c) {
    for (int l = 0; l < 32; ++l) {
      const int first = code[64 * c + l];
      const int second = code[64 * c + 32 + l];
      low[32 * c + l] = byte((first & 15) | (second & 15) << 4);
      if (fifth) high[l] = byte(high[l] | (first >> 4) << (2 * c) | (second >> 4) << (2 * c + 1));
    }
  }
}

// q6_k: by halves of 128 inputs, 64 bytes of low bits (inputs l, l + 32 low; l + 64, l + 96 high)
// and 32 of high bits (two each); then sixteen int8 scales and d.
void take_six(Bytes block, Index super, RowCodes& codes) {
  std::uint8_t* const code = codes.code.data() + super * 256;
  for (int h = 0; h < 2; ++h) {
    const Bytes low = block + 64 * h;
    const Bytes high = block + 128 + 32 * h;
    for (int l = 0; l < 32; ++l) {
      std::uint8_t* const to = code + 128 * h + l;
      to[0] = byte((low[l] & 15) | (high[l] & 3) << 4);
      to[32] = byte((low[l + 32] & 15) | (high[l] >> 2 & 3) << 4);
      to[64] = byte((low[l] >> 4) | (high[l] >> 4 & 3) << 4);
      to[96] = byte((low[l + 32] >> 4) | (high[l] >> 6 & 3) << 4);
    }
  }
  std::memcpy(codes.sub.data() + super * 16, block + 192, 16);
  codes.half[static_cast<std::size_t>(super)] = half_at(block + 208);
}
void put_six(const RowCodes& codes, Index super, std::uint8_t* block) {
  const Bytes code = codes.code.data() + super * 256;
  for (int h = 0; h < 2; ++h) {
    std::uint8_t* const low = block + 64 * h;
    std::uint8_t* const high = block + 128 + 32 * h;
    for (int l = 0; l < 32; ++l) {
      const Bytes from = code + 128 * h + l;
      low[l] = byte((from[0] & 15) | (from[64] & 15) << 4);
      low[l + 32] = byte((from[32] & 15) | (from[96] & 15) << 4);
      high[l] =
          byte(from[0] >> 4 | (from[32] >> 4) << 2 | (from[64] >> 4) << 4 | (from[96] >> 4) << 6);
    }
  }
  std::memcpy(block + 192, codes.sub.data() + super * 16, 16);
  put_half(codes.half[static_cast<std::size_t>(super)], block + 208);
}

// fp8: blocks of 128 inputs, the last one shorter: f32 s, then codes.
constexpr Index kFp8Block = kFp8Cells * kCell;

void take_fp8(Bytes row, Index inputs, RowCodes& codes) {
  for (Index first = 0; first < inputs; first += kFp8Block) {
    const Index count = std::min(kFp8Block, inputs - first);
    std::memcpy(&codes.scale[static_cast<std::size_t>(first / kFp8Block)], row, 4);
    std::memcpy(codes.code.data() + first, row + 4, static_cast<std::size_t>(count));
    row += 4 + count;
  }
}
void put_fp8(const RowCodes& codes, Index inputs, std::uint8_t* row) {
  for (Index first = 0; first < inputs; first += kFp8Block) {
    const Index count = std::min(kFp8Block, inputs - first);
    std::memcpy(row, &codes.scale[static_cast<std::size_t>(first / kFp8Block)], 4);
    std::memcpy(row + 4, codes.code.data() + first, static_cast<std::size_t>(count));
    row += 4 + count;
  }
}

void take_nibbles(Bytes from, Index count, std::uint8_t* code) {
  for (Index i = 0; i < count / 2; ++i) {
    code[i] = byte(from[i] & 15);
    code[i + count / 2] = byte(from[i] >> 4);
  }
}
void put_nibbles(Bytes code, Index count, std::uint8_t* to) {
  for (Index i = 0; i < count / 2; ++i) {
    to[i] = byte((code[i] & 15) | (code[i + count / 2] & 15) << 4);
  }
}

// Blocks of f16 s, u8 z, of *_order entries, and codes.
void take_grouped(WeightFormat format, Bytes row, Index inputs, RowCodes& codes) {
  if (is_ordered(format)) codes.wide.assign(static_cast<std::size_t>(inputs), 0);
  for (Index b = 0; b < inputs / kCell; ++b) {
    const auto at = static_cast<std::size_t>(b);
    codes.half[at] = half_at(row);
    codes.sub[at] = row[2];
    row += 3;
    if (is_ordered(format)) {
      std::memcpy(codes.wide.data() + b * kCell, row, 2 * kCell);
      row += 2 * kCell;
    }
    if (layout_of(format).bits == 4) {
      take_nibbles(row, kCell, codes.code.data() + b * kCell);
    } else {
      std::memcpy(codes.code.data() + b * kCell, row, kCell);
    }
    row += layout_of(format).bits * kCell / 8;
  }
}
void put_grouped(WeightFormat format, const RowCodes& codes, Index inputs, std::uint8_t* row) {
  for (Index b = 0; b < inputs / kCell; ++b) {
    const auto at = static_cast<std::size_t>(b);
    put_half(codes.half[at], row);
    row[2] = codes.sub[at];
    row += 3;
    if (is_ordered(format)) {
      std::memcpy(row, codes.wide.data() + b * kCell, 2 * kCell);
      row += 2 * kCell;
    }
    if (layout_of(format).bits == 4) {
      put_nibbles(codes.code.data() + b * kCell, kCell, row);
    } else {
      std::memcpy(row, codes.code.data() + b * kCell, kCell);
    }
    row += layout_of(format).bits * kCell / 8;
  }
}

}  // namespace

std::uint16_t upper_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

float fp8_value(WeightFormat format, std::uint8_t code) {
  const float half = from_half(half_of_fp8(format, code));
  if (format == WeightFormat::fp8_e5m2) return half;
  return (code & 0x7f) == 0x7f ? std::numeric_limits<float>::quiet_NaN() : half * 256.0F;
}

std::uint8_t fp8_code(WeightFormat format, float value) {
  const bool wide = format == WeightFormat::fp8_e5m2;  // in its exponent
  const int mantissa = wide ? 2 : 3;
  const int least = wide ? -14 : -6;  // exponent of the smallest normal number
  const unsigned last = wide ? 0x7bU : 0x7eU;
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const unsigned sign = bits >> 31 << 7;
  if (std::isnan(value)) return static_cast<std::uint8_t>(sign | 0x7fU);
  const int exponent = std::max(least, static_cast<int>(bits >> 23 & 255U) - 127);
  if (exponent > 15) return static_cast<std::uint8_t>(sign | last);
  // Steps of 2^(exponent - mantissa); codes count them through all exponents.
  const auto per_step =
      std::bit_cast<float>(static_cast<std::uint32_t>(127 + mantissa - exponent) << 23);
  const auto steps = static_cast<unsigned>(std::nearbyint(std::abs(value) * per_step));
  const unsigned code = (static_cast<unsigned>(exponent - least) << mantissa) + steps;
  return static_cast<std::uint8_t>(sign | std::min(code, last));
}

float fp8_largest(WeightFormat format) {
  return format == WeightFormat::fp8_e5m2 ? 57344.0F : 448.0F;
}

float from_half(std::uint16_t half) { return _cvtsh_ss(half); }
std::uint16_t to_half(float value) {
  return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

void RowCodes::resize(Index inputs) {
  const auto cells = static_cast<std::size_t>((inputs + kCell - 1) / kCell);
  code.resize(cells * kCell);
  scale.resize(cells + 1);
  half.resize(cells);
  half_min.resize(cells);
  sub.resize(cells * 2);
  sub_min.resize(cells);
}

void take_apart(WeightFormat format, const std::byte* row, Index inputs, RowCodes& codes) {
  const Bytes bytes = reinterpret_cast<Bytes>(row);
  if (format == WeightFormat::bf16) {
    codes.wide.assign(static_cast<std::size_t>((inputs + kCell - 1) / kCell * kCell), 0);
    std::memcpy(codes.wide.data(), bytes, static_cast<std::size_t>(inputs) * 2);
    return;
  }
  codes.resize(inputs);
  std::fill(codes.code.begin(), codes.code.end(), byte(zero_of(format)));
  if (is_fp8(format)) return take_fp8(bytes, inputs, codes);
  if (has_zeros(format)) return take_grouped(format, bytes, inputs, codes);
  const std::size_t step = row_bytes(format, block_inputs(format));
  const Index blocks = inputs / block_inputs(format);
  if (format == WeightFormat::int8_channel) {
    std::memcpy(codes.scale.data(), bytes, 4);
    for (Index i = 0; i < inputs; ++i) {
      codes.code[static_cast<std::size_t>(i)] = byte(bytes[4 + i] ^ 0x80);
    }
    return;
  }
  for (Index b = 0; b < blocks; ++b) {
    const Bytes block = bytes + static_cast<std::size_t>(b) * step;
    const auto at = static_cast<std::size_t>(b);
    switch (format) {
      case WeightFormat::int4_group:
        codes.half[at] = half_at(block);
        codes.half_min[at] = half_at(block + 2);
        take_nibbles(block + 4, 32, codes.code.data() + b * 32);
        break;
      case WeightFormat::nf4:
        std::memcpy(&codes.scale[at], block, 4);
        take_nibbles(block + 4, 64, codes.code.data() + b * 64);
        break;
      case WeightFormat::q4_k: take_k(false, block, b, codes); break;
      case WeightFormat::q5_k: take_k(true, block, b, codes); break;
      case WeightFormat::q6_k: take_six(block, b, codes); break;
      default: take_simple(format, block, codes.half[at], codes.code.data() + b * 32); break;
    }
  }
}

void put_together(WeightFormat format, const RowCodes& codes, Index inputs, std::byte* row) {
  auto* const bytes = reinterpret_cast<std::uint8_t*>(row);
  if (format == WeightFormat::bf16) {
    std::memcpy(bytes, codes.wide.data(), static_cast<std::size_t>(inputs) * 2);
    return;
  }
  if (is_fp8(format)) return put_fp8(codes, inputs, bytes);
  if (has_zeros(format)) return put_grouped(format, codes, inputs, bytes);
  if (format == WeightFormat::int8_channel) {
    std::memcpy(bytes, codes.scale.data(), 4);
    for (Index i = 0; i < inputs; ++i) {
      bytes[4 + i] = byte(codes.code[static_cast<std::size_t>(i)] ^ 0x80);
    }
    return;
  }
  const std::size_t step = row_bytes(format, block_inputs(format));
  for (Index b = 0; b < inputs / block_inputs(format); ++b) {
    std::uint8_t* const block = bytes + static_cast<std::size_t>(b) * step;
    const auto at = static_cast<std::size_t>(b);
    switch (format) {
      case WeightFormat::int4_group:
        put_half(codes.half[at], block);
        put_half(codes.half_min[at], block + 2);
        put_nibbles(codes.code.data() + b * 32, 32, block + 4);
        break;
      case WeightFormat::nf4:
        std::memcpy(block, &codes.scale[at], 4);
        put_nibbles(codes.code.data() + b * 64, 64, block + 4);
        break;
      case WeightFormat::q4_k: put_k(false, codes, b, block); break;
      case WeightFormat::q5_k: put_k(true, codes, b, block); break;
      case WeightFormat::q6_k: put_six(codes, b, block); break;
      default: put_simple(format, codes.half[at], codes.code.data() + b * 32, block); break;
    }
  }
}

bool entries_fit(WeightFormat format, const RowCodes& codes, Index inputs) {
  return !is_ordered(format) || std::all_of(codes.wide.begin(), codes.wide.end(),
                                            [&](std::uint16_t e) { return e < inputs / kCell; });
}

const char* fault_of(WeightFormat format, const RowCodes& codes, Index inputs) {
  if (has_zeros(format)) {
    for (Index b = 0; b < inputs / kCell; ++b) {
      if (!std::isfinite(from_half(codes.half[static_cast<std::size_t>(b)]))) {
        return "a scale that is not finite";
      }
    }
    return entries_fit(format, codes, inputs) ? nullptr : "an entry that its table has not";
  }
  if (!is_fp8(format)) return nullptr;
  for (Index i = 0; i < inputs; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (!std::isfinite(fp8_value(format, codes.code[at]))) return "a code that is no finite number";
    if (i % kFp8Block == 0 && !(std::abs(codes.scale[at / kFp8Block]) < 0x1p119F)) {
      return "a scale that is not below 2^119";
    }
  }
  return nullptr;
}

void values_of(WeightFormat format, const RowCodes& codes, Index block, float* values) {
  if (format == WeightFormat::bf16) {
    const std::uint16_t* const wide = codes.wide.data() + block * kCell;
    for (int i = 0; i < kCell; ++i) values[i] = widened(wide[i]);
    return;
  }
  const std::uint8_t* const code = codes.code.data() + block * kCell;
  const auto at = static_cast<std::size_t>(block);
  const int zero = zero_of(format);
  for (int i = 0; i < kCell; ++i) {
    const auto q = static_cast<float>(code[i] - zero);
    switch (format) {
      case WeightFormat::bf16: break;
      case WeightFormat::int8_channel: values[i] = codes.scale[0] * q; break;
      case WeightFormat::int4_group: {
        const float scaled = from_half(codes.half[at]) * q;
        values[i] = scaled + from_half(codes.half_min[at]);
        break;
      }
      case WeightFormat::nf4: values[i] = codes.scale[at / 2] * kNormalFloats[code[i]]; break;
      case WeightFormat::fp8_e4m3:
      case WeightFormat::fp8_e5m2:
        values[i] = codes.scale[at / kFp8Cells] * fp8_value(format, code[i]);
        break;
      case WeightFormat::int4_zero:
      case WeightFormat::int8_zero:
        values[i] = from_half(codes.half[at]) * static_cast<float>(code[i] - codes.sub[at]);
        break;
      case WeightFormat::int4_order:
      case WeightFormat::int8_order: {
        const std::size_t e = codes.wide[static_cast<std::size_t>(block * kCell + i)];
        values[i] = from_half(codes.half[e]) * static_cast<float>(code[i] - codes.sub[e]);
        break;
      }
      case WeightFormat::q4_k:
      case WeightFormat::q5_k: {
        const float scale = from_half(codes.half[at / 8]) * static_cast<float>(codes.sub[at]);
        const float min = from_half(codes.half_min[at / 8]) * static_cast<float>(codes.sub_min[at]);
        const float scaled = scale * q;
        values[i] = scaled - min;
        break;
      }
      case WeightFormat::q6_k: {
        const auto sub =
            static_cast<std::int8_t>(codes.sub[at * 2 + static_cast<std::size_t>(i) / 16]);
        const float scale = from_half(codes.half[at / 8]) * static_cast<float>(sub);
        values[i] = scale * q;
        break;
      }
      default: values[i] = from_half(codes.half[at]) * q; break;
    }
  }
}

}  // namespace tutti::kernels
