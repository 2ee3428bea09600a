// Rows of activations as int8, with their scales and sums, as the integer products read them.
#pragma once

#include <cstdint>

#include "kernels/ops/weights/quantised_weight.h"

namespace tutti::kernels {

struct Int8Rows {
  Index cells = 0;
  std::int8_t* codes = nullptr;    // [rows][cells * 32], zeros where inputs end
  float* scales = nullptr;         // [rows][cells]; by row: the first of each row
  std::int16_t* halves = nullptr;  // [rows][2 * cells]: sums of sixteen codes
};

enum class ScaleBy { cell, row };

// Memory from the pool's op scratch; scope it.
Int8Rows quantise_activations(const OpContext& ctx, ConstMatrix x, ScaleBy by);

}  // namespace tutti::kernels
