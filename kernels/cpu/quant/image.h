// Writes rows into the packed image of cells.h, and reads groups of it back.
#pragma once

#include "kernels/cpu/quant/row_codes.h"

namespace tutti::kernels {

// Row `output` (0..15) of a group whose memory was zero.
void lay_out_row(WeightFormat format, const RowCodes& row, Index cells, Index output,
                 std::uint8_t* group);

// The values of `cells` cells of a group from cell `first` on, panel[k * stride + output] with k
// from that cell's: those of dequantise_row; behind the inputs, anything finite.
void read_cells(WeightFormat format, const std::uint8_t* group, Index first, Index cells,
                float* panel, Index stride);

}  // namespace tutti::kernels
