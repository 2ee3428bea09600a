// Matrices as products in fp8 read them (e4m3: 4 bits of exponent, 3 of mantissa, up to 448): a
// code for each number, and a scale for each row.
//
// A number is rounded to bf16 first, as other products of the same device read it. A row's scale is
// the least power of two with which no finite number of the row is beyond 448; 1 of a row of zeros,
// 2^-126 at least. A code is the number over the scale, to the nearest, ties to the even one; NaN
// of what is not finite, so that it is seen where it is read. So a row's codes depend on that row
// alone, and a power of two multiplies sums exactly, wherever the library does it.
//
// Who has them: a device that was opened for fp8 (open_device.h).
#pragma once

#include <cstdint>

#include "kernels/tensor/matrix.h"
#include "protocol/base/error.h"

namespace tutti::kernels {

// Rows and columns of what has codes are multiples of it: cuBLASLt reads 16 bytes at a time.
inline constexpr Index kFp8Unit = 16;

// Codes lie row by row, [rows, columns], from an address that is a multiple of 16.
struct Fp8Rows {
  const std::uint8_t* codes = nullptr;
  const float* scales = nullptr;  // [rows]

  explicit operator bool() const { return codes != nullptr; }
};

// A weight [N, K] as both directions of a layer read it: its rows, and its columns as rows [K, N].
struct Fp8Weight {
  Fp8Rows rows = {};
  Fp8Rows columns = {};

  explicit operator bool() const { return static_cast<bool>(rows); }
};

inline Error codes_on_fp8_only() {
  return {ErrorCode::unsupported, "codes of fp8 are of a device that was opened for fp8"};
}

inline bool has_fp8_shape(Index rows, Index columns) {
  return rows > 0 && columns > 0 && rows % kFp8Unit == 0 && columns % kFp8Unit == 0;
}

}  // namespace tutti::kernels
