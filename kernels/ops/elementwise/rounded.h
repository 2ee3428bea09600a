// Matrices as a device's products read them: numbers rounded to the 16 bits that it was opened for
// (bf16 or fp16, open_device.h).
//
// Such a device rounds what a product reads first. An operand that several products read, or that
// nobody else reads, is rounded once in its place by whoever makes it: the same rounding of the
// same number, so the same bits.
//
//   what an op writes   beside the fp32 matrix of the same numbers, or in its place, which has no
//                       data then
//   what a product reads   in place of its operand, which gives the shape only
//
// Rows begin at multiples of 16 bytes, where the library's fastest loads do; of what ops write,
// columns are a multiple of 8. Errors, of ops that take one: invalid_argument (another shape,
// rows that begin elsewhere), unsupported (a CPU, and a device that rounds nothing or to others).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/tensor/matrix.h"
#include "protocol/base/error.h"

namespace tutti::kernels {

using RoundedMatrix = BasicMatrix<std::uint16_t>;
using ConstRoundedMatrix = BasicMatrix<const std::uint16_t>;

inline constexpr Index kRoundedUnit = 8;  // numbers in 16 bytes

inline bool is_rounded_shape(const ConstRoundedMatrix& rounded, const ConstMatrix& of) {
  return rounded.rows == of.rows && rounded.columns == of.columns &&
         rounded.stride >= rounded.columns && rounded.stride % kRoundedUnit == 0 &&
         reinterpret_cast<std::uintptr_t>(rounded.data) % (kRoundedUnit * sizeof(*rounded.data)) ==
             0;
}

// Of what a product reads: none, or one that fits.
inline bool fits_operand(const ConstRoundedMatrix& rounded, const ConstMatrix& operand) {
  return !rounded || is_rounded_shape(rounded, operand);
}

// Of what an op writes, `wide` and `rounded`, in the shape of `x`: either, or both. An empty one
// needs no memory.
inline bool fits_outputs(const ConstMatrix& x, const Matrix& wide, const RoundedMatrix& rounded) {
  const bool is_wide = wide.rows == x.rows && wide.columns == x.columns;
  if (!rounded) return is_wide;
  return is_rounded_shape(rounded, x) && x.columns % kRoundedUnit == 0 && (!wide || is_wide);
}

inline Error rounded_on_devices_only(std::string_view op) {
  return {ErrorCode::unsupported,
          std::string(op) + ": rounded matrices are of a device that rounds what products read"};
}

}  // namespace tutti::kernels
