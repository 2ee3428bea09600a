// Rounded matrices with room around them, for tests of ops that leave them or read them.
#pragma once

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/cuda/convert.h"
#include "kernels/ops/elementwise/rounded.h"
#include "tests/emulation/device_runs.h"

namespace tutti::kernels::cuda {

using tutti::test::draw;
using tutti::test::Floats;
using tutti::test::in_each_order;
using tutti::test::open_device_for;
using Halves = std::vector<std::uint16_t>;
using Inputs = Products::Inputs;

inline constexpr Inputs kHalfInputs[] = {Inputs::bf16, Inputs::fp16};

inline Narrow narrow_of(Inputs inputs) {
  return inputs == Inputs::bf16 ? Narrow::bf16 : Narrow::fp16;
}

// Numbers that round up, down, to a tie, to nothing, to infinity, and those that are none.
inline Floats odd_numbers(Index count, std::uint64_t stream) {
  Floats values = draw(count, stream);
  const float odd[] = {std::numeric_limits<float>::quiet_NaN(),
                       std::numeric_limits<float>::infinity(),
                       -std::numeric_limits<float>::infinity(),
                       65519.9F,
                       3.39e38F,
                       -0.0F,
                       1e-41F,
                       6e-8F,
                       1.00390625F,
                       1.00048828125F};
  for (std::size_t i = 0; i < std::size(odd); ++i) values[(i * 37 + 5) % values.size()] = odd[i];
  return values;
}

// What no op may touch: between rows and behind them.
inline constexpr std::uint16_t kUntouched = 0xABCD;

struct RoundedRoom {
  RoundedRoom(Index rows, Index columns, Index behind = 8)
      : numbers(static_cast<std::size_t>(rows * (columns + behind)), kUntouched),
        matrix(numbers.data(), rows, columns, columns + behind) {}
  Halves numbers;
  RoundedMatrix matrix;
};

// By the kernel that rounds products' operands.
inline Halves rounded_behind(CudaDevice& on, const ConstMatrix& from, Inputs inputs,
                             Index behind = 8) {
  RoundedRoom room(from.rows, from.columns, behind);
  Halves dense(static_cast<std::size_t>(from.rows * from.columns));
  REQUIRE(round_rows(on.stream(), from, dense.data(), from.columns, narrow_of(inputs)));
  REQUIRE(on.synchronize());
  for (Index r = 0; r < from.rows; ++r) {
    std::copy_n(dense.data() + r * from.columns, from.columns, room.matrix.row(r));
  }
  return room.numbers;
}

// Bit by bit: a NaN is its bits, too.
inline std::vector<std::uint32_t> bits_of(const Floats& values) {
  std::vector<std::uint32_t> bits(values.size());
  std::memcpy(bits.data(), values.data(), values.size() * sizeof(float));
  return bits;
}

}  // namespace tutti::kernels::cuda
