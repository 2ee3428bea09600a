// A plan of one buffer: bands of token rows are laid out first, then the memory is made once.
//
//   MemoryPlan plan(rows_max);
//   const Band x = plan.band(width);
//   kernels::FloatBuffer memory(plan.floats());
//   Matrix view = x.view(memory, rows);      rows <= rows_max
//
// Rows that products alone read may be kept as a device's products read them: half of the memory
// (kernels/ops/elementwise/rounded.h).
//
// Units: floats.
#pragma once

#include "jobs/models/parameters.h"
#include "kernels/ops/elementwise/rounded.h"
#include "kernels/tensor/buffer.h"

namespace tutti::models {

// Rows that products read, in fp32, rounded, or both.
struct ProductRows {
  kernels::Matrix wide;  // without data where they are only rounded: their shape
  kernels::RoundedMatrix rounded = {};

  ProductRows() = default;
  ProductRows(const kernels::Matrix& wide_in)  // NOLINT: fp32 rows are rows that products read
      : wide(wide_in) {}
  ProductRows(const kernels::Matrix& wide_in, const kernels::RoundedMatrix& rounded_in)
      : wide(wide_in), rounded(rounded_in) {}
};

enum class Numbers { wide, rounded };

struct Band {
  kernels::Index offset = 0;
  kernels::Index columns = 0;
  Numbers numbers = Numbers::wide;

  kernels::Matrix view(const kernels::FloatBuffer& memory, kernels::Index rows) const {
    return {memory.data() + offset, rows, columns};
  }
  ProductRows product_rows(const kernels::FloatBuffer& memory, kernels::Index rows) const {
    if (numbers == Numbers::wide) return view(memory, rows);
    auto* const halves = reinterpret_cast<std::uint16_t*>(memory.data() + offset);
    return {kernels::Matrix(nullptr, rows, columns), kernels::RoundedMatrix(halves, rows, columns)};
  }
};

// Rows in fp32, and rounded too, where that band has columns.
inline ProductRows both_ways(const kernels::FloatBuffer& memory, kernels::Index rows,
                             const Band& wide, const Band& rounded) {
  if (rounded.columns == 0) return wide.view(memory, rows);
  return {wide.view(memory, rows), rounded.product_rows(memory, rows).rounded};
}

class MemoryPlan {
 public:
  explicit MemoryPlan(kernels::Index rows_max) : rows_max_(rows_max) {}

  // Rounded: of columns that are a multiple of 8.
  Band band(kernels::Index columns, Numbers numbers = Numbers::wide) {
    const Band made{floats_, columns, numbers};
    constexpr auto kLine = static_cast<kernels::Index>(kArenaAlignment);
    const kernels::Index count = rows_max_ * columns / (numbers == Numbers::wide ? 1 : 2);
    floats_ += (count + kLine - 1) / kLine * kLine;
    return made;
  }
  kernels::Index floats() const { return floats_; }

 private:
  kernels::Index rows_max_ = 0;
  kernels::Index floats_ = 0;
};

}  // namespace tutti::models
