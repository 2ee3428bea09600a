// Dropout (Srivastava et al. 2014) whose mask is a function of (key, element) alone: forward and
// backward compute it anew, and nothing is kept.
//
//   x, y   [rows, C]   y may be x
//
//   y = x / (1 - dropped / 65536) where the element is kept, else 0
//   dropped = rate * 65536, rounded: the mean of y is x also for rates between two of these
//
// Element c of row r has the index (first_row + r) * C + c; `first_row` is the row's logical index
// (step, sample, position), never its place in a batch. Its 16 random bits are half-word index
// mod 8 of Philox draw index / 8 of the key's stream (random.h); it is kept when they are at least
// `dropped`. The gradient is the same op over dy. Errors: invalid_argument (a rate outside of
// [0, 1), or one that rounds to 1); nothing is written then.
#pragma once

#include <cstdint>

#include "kernels/ops/random.h"
#include "kernels/tensor/matrix.h"

namespace tutti::kernels {

struct Dropout {
  RandomKey key;
  std::uint64_t first_row = 0;
  double rate = 0.1;
  ConstMatrix x;
  Matrix y;
};

// A rate as devices take it: 16 bits below `threshold` drop an element, the others are scaled.
struct DropoutMask {
  static constexpr double kDraws = 65536.0;  // values of the 16 bits

  // `rate` in [0, 1].
  explicit DropoutMask(double rate)
      : threshold(static_cast<std::uint32_t>(rate * kDraws + 0.5)),
        scale(static_cast<float>(kDraws / (kDraws - static_cast<double>(threshold)))) {}
  // What is dropped is this share, so it is also what the others are scaled by.
  bool keeps_any() const { return threshold < static_cast<std::uint32_t>(kDraws); }

  std::uint32_t threshold;
  float scale;
};

Result<> dropout(const OpContext& ctx, const Dropout& args);

}  // namespace tutti::kernels
