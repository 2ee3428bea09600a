// AdamW whose two states take 8 bits an element (the idea of Dettmers et al. 2022), over a range of
// one parameter that begins on the grid, and its block hashes.
//
// States are kept in blocks of kState8Block elements, each with its largest magnitude as scale:
//   first  = sign(code) * (code / 127)^2 * scale     code -127 .. 127, in int8
//   second = (code / 255)^4 * scale                  code 0 .. 255; what is above 0 gets at least 1
// The powers spend codes on small numbers, and their roots are exact square roots, so that codes
// are the same on every path. Rounded to the nearest, ties to even. A step reads a block, makes the
// AdamW step of adamw.h in fp32 with the states as read, and writes the new states: a weight moves
// by the unrounded ones.
//
// Unit: block. Many ranges: as in adamw.h. Errors: invalid_argument; nothing is written then.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops/adamw.h"

namespace tutti::kernels {

inline constexpr Index kState8Block = 2048;  // divides the grid's block

inline constexpr Index state8_blocks(Index elements) {
  return (elements + kState8Block - 1) / kState8Block;
}

struct AdamW8Range {
  AdamWSettings settings;
  std::span<float> weight;
  std::span<const float> gradient;
  std::span<std::int8_t> first;  // [n], begins as zeros, as the others
  std::span<std::uint8_t> second;
  std::span<float> first_scales;  // [state8_blocks(n)]
  std::span<float> second_scales;
  std::span<Hash128> hashes = {};
};
struct AdamW8Update {
  std::span<const AdamW8Range> ranges;
};
Result<> adamw8_update(const OpContext& ctx, const AdamW8Update& args);
inline Result<> adamw8_update(const OpContext& ctx, const AdamW8Range& range) {
  return adamw8_update(ctx, AdamW8Update{.ranges = {&range, 1}});
}

}  // namespace tutti::kernels
