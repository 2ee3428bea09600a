// Rows of activations as int8, with their scales and sums, as the integer products read them.
#pragma once

#include <cstdint>

#include "kernels/cpu/quant/cells.h"
#include "kernels/ops/weights/quantised_weight.h"

namespace tutti::kernels {

struct Int8Rows {
  Index cells = 0;
  std::int8_t* codes = nullptr;    // [rows][cells * 32], zeros where inputs end
  float* scales = nullptr;         // [rows][cells]; by row: the first of each row
  std::int16_t* halves = nullptr;  // [rows][2 * cells]: sums of sixteen codes

  Index inputs() const { return cells * kCell; }
};

enum class ScaleBy { cell, row };

// Memory from the pool's op scratch; scope it.
Int8Rows make_int8_rows(const OpContext& ctx, Index rows, Index inputs);
Int8Rows quantise_activations(const OpContext& ctx, ConstMatrix x, ScaleBy by);
Int8Rows quantise_activations(const OpContext& ctx, const BasicMatrix<const Bf16>& x, ScaleBy by);

// The parts of it: the codes of a range and their scale; a row's halves, of its codes.
float round_to_int8(const float* x, Index count, std::int8_t* codes);
void sum_halves(const Int8Rows& rows, Index row);

}  // namespace tutti::kernels
