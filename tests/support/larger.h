// The largest of many distances to what was expected, where one that is no number must not pass.
#pragma once

#include <cmath>

namespace tutti::test {

// As std::max, but a NaN on either side stays: any comparison with a bound then fails.
// (std::max(largest, NaN) is `largest`; turned round, the next number replaces the NaN.)
inline double larger(double largest, double next) {
  return std::isnan(largest) || next <= largest ? largest : next;
}

}  // namespace tutti::test
