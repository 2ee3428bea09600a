// What runs in AVX2 on every machine has no other path to agree with: each element against a scalar
// loop of what its header says.
#include <limits>

#include "kernels/ops/elementwise/bf16.h"
#include "kernels/ops/elementwise/dropout.h"
#include "kernels/ops/weights/product_int8.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

// The sixteen bits of an element: half-word index mod 8 of Philox draw index / 8.
std::uint32_t half_word_of(const RandomKey& key, std::uint64_t index) {
  const std::uint32_t word = random_words(key, index / 8)[index % 8 / 2];
  return index % 2 == 0 ? word & 0xffffU : word >> 16;
}

// Indices whose draws are counted across 32 bits of the counter, and others.
const std::uint64_t kFirst[] = {0, 3, 8ULL * 0xfffffffdULL + 5, 0x7fffffffffULL};
const RandomKey kKey = {0x0123456789abcdefULL, purpose_of("scalar loops")};

Bf16 rounded_by(float value, std::uint32_t draw) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<Bf16>((std::isfinite(value) ? bits + draw : bits) >> 16);
}

struct Rounded {
  float scale = 0.0F;
  std::vector<float> codes;
};

// A row, or a cell, of int8.
Rounded int8_of(std::span<const float> x) {
  float largest = 0.0F;
  bool finite = true;
  for (const float value : x) {
    finite = finite && std::isfinite(value);
    largest = std::max(largest, std::abs(value));
  }
  if (!finite) return {kNan, Floats(x.size())};
  Rounded result{largest / 127.0F, {}};
  const float inverse = std::min(127.0F / largest, std::numeric_limits<float>::max());
  for (const float value : x) {
    result.codes.push_back(largest > 0.0F ? std::nearbyint(value * inverse) : 0.0F);
  }
  return result;
}

void require_scale(float actual, float expected) {
  if (std::isnan(expected)) {
    REQUIRE(std::isnan(actual));
  } else {
    REQUIRE(actual == expected);
  }
}

// Ties between codes, numbers below the normal ones, zeros, what is not finite; of a multiple of
// 32 columns and others.
Floats rows_of(Index rows, Index columns) {
  Floats x = draw(rows * columns, 1);
  const auto at = [&](Index row, Index column) -> float& {
    return x[size_of(row * columns + column)];
  };
  for (Index c = 0; c < columns; ++c) {
    // Of a largest of 127 each number is its own code, and halves lie between two.
    at(0, c) = c == 0 ? -127.0F : static_cast<float>(c % 127) - 63.5F;
    at(1, c) = 0.0F;
    at(2, c) *= 0x1p-140F;
    at(3, c) *= 3e38F;
  }
  at(4, columns - 1) = kInfinity;
  at(5, columns / 2) = kNan;
  return x;
}

}  // namespace

TEST_CASE("scalar loops: dropout keeps by each element's own sixteen bits") {
  constexpr Index kColumns = 203;
  const Floats x = draw(5 * kColumns, 1);
  for (const std::uint64_t first : kFirst) {
    for (const double rate : {0.0, 0.1, 0.5, 0.999}) {
      Dropout args{kKey, first / size_of(kColumns), rate, matrix(x, 5, kColumns), {}};
      Floats y(x.size());
      args.y = matrix(y, 5, kColumns);
      REQUIRE(dropout(single(), args));
      const double dropped = std::floor(rate * 65536.0 + 0.5);
      const auto scale = static_cast<float>(65536.0 / (65536.0 - dropped));
      for (std::size_t i = 0; i < y.size(); ++i) {
        const std::uint32_t drawn = half_word_of(kKey, args.first_row * size_of(kColumns) + i);
        INFO("row " << args.first_row << ", element " << i << ", rate " << rate);
        REQUIRE(y[i] == (static_cast<double>(drawn) >= dropped ? x[i] * scale : 0.0F));
      }
    }
  }
}

TEST_CASE("scalar loops: stochastic bf16 rounds by each element's own sixteen bits") {
  Floats x = draw(1003, 1);
  x[1] = kInfinity;
  x[2] = -kInfinity;
  x[3] = kNan;
  x[5] = 0x1p-140F;
  x[6] = std::numeric_limits<float>::max();
  x[7] = -0.0F;
  for (const std::uint64_t first : kFirst) {
    std::vector<Bf16> to(x.size());
    REQUIRE(to_bf16_stochastic(single(), {kKey, first, x, to}));
    for (std::size_t i = 0; i < x.size(); ++i) {
      INFO("first " << first << ", element " << i);
      if (std::isnan(x[i])) {
        REQUIRE((to[i] & 0x7fffU) > 0x7f80U);
      } else {
        REQUIRE(to[i] == rounded_by(x[i], half_word_of(kKey, first + i)));
      }
    }
  }
}

TEST_CASE("scalar loops: int8 codes by row and by cell, ties to even") {
  constexpr Index kRows = 8;
  for (const Index columns : {1, 8, 31, 32, 96, 133}) {
    const Floats x = rows_of(kRows, columns);
    const Index cells = (columns + 31) / 32;
    for (const Index scales_of_row : {Index{1}, cells}) {
      std::vector<std::int8_t> codes(x.size());
      Floats scales(size_of(kRows * scales_of_row));
      REQUIRE(to_int8_rows(single(), {.x = matrix(x, kRows, columns),
                                      .codes = {codes.data(), kRows, columns},
                                      .scales = matrix(scales, kRows, scales_of_row)}));
      const Index width = scales_of_row == 1 ? columns : 32;
      for (Index cell = 0; cell < kRows * scales_of_row; ++cell) {
        const Index column = cell % scales_of_row * width;
        const std::size_t first = size_of(cell / scales_of_row * columns + column);
        const std::size_t count = size_of(std::min(width, columns - column));
        const Rounded expected = int8_of(std::span(x).subspan(first, count));
        INFO(columns << " columns, cell " << cell);
        require_scale(scales[size_of(cell)], expected.scale);
        for (std::size_t i = 0; i < count; ++i) {
          REQUIRE(static_cast<float>(codes[first + i]) == expected.codes[i]);
        }
      }
    }
  }
}

}  // namespace tutti::kernels::parity
