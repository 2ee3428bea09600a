// Numbers of a case in bf16, and back.
#pragma once

#include <catch2/catch.hpp>

#include <vector>

#include "kernels/ops/elementwise/bf16.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {

using Halves = std::vector<Bf16>;

inline Halves rounded(const Floats& values) {
  Halves halves(values.size());
  REQUIRE(to_bf16(single(), values, halves));
  return halves;
}

inline Floats widened(const Halves& halves) {
  Floats values(halves.size());
  REQUIRE(from_bf16(single(), halves, values));
  return values;
}

}  // namespace tutti::kernels::parity
