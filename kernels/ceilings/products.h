// What products reach of the arithmetic ceilings (ceilings.h), measured: the row of a machine's
// roofline that says what our kernels make of its arithmetic, packing included.
//
// Threads: the pool's. Units: 1e9 operations a second (a multiply-add is two).
#pragma once

#include <span>
#include <string_view>

#include "kernels/ceilings/ceilings.h"

namespace tutti::kernels {

struct ProductKind {
  std::string_view name;
  std::string_view of;  // the ceiling's name
  std::string_view unit;
  Ceiling (*measure)(ThreadPool& pool, const MeasureTime& time);
};
// fp32, bf16 by pairs and by tiles, int8; 1,024 rows by a weight of 1,024 x 1,024 each, the fastest
// run in time.seconds. None where the path has no such arithmetic.
std::span<const ProductKind> product_kinds();

}  // namespace tutti::kernels
