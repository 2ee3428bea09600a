// A plan of one buffer: bands of token rows are laid out first, then the memory is made once.
//
//   MemoryPlan plan(rows_max);
//   const Band x = plan.band(width);
//   kernels::FloatBuffer memory(plan.floats());
//   Matrix view = x.view(memory, rows);      rows <= rows_max
//
// Units: floats.
#pragma once

#include "jobs/models/parameters.h"
#include "kernels/tensor/buffer.h"

namespace tutti::models {

struct Band {
  kernels::Index offset = 0;
  kernels::Index columns = 0;

  kernels::Matrix view(const kernels::FloatBuffer& memory, kernels::Index rows) const {
    return {memory.data() + offset, rows, columns};
  }
};

class MemoryPlan {
 public:
  explicit MemoryPlan(kernels::Index rows_max) : rows_max_(rows_max) {}

  Band band(kernels::Index columns) {
    const Band made{floats_, columns};
    constexpr auto kLine = static_cast<kernels::Index>(kArenaAlignment);
    floats_ += (rows_max_ * columns + kLine - 1) / kLine * kLine;
    return made;
  }
  kernels::Index floats() const { return floats_; }

 private:
  kernels::Index rows_max_ = 0;
  kernels::Index floats_ = 0;
};

}  // namespace tutti::models
