// Writes rows into the packed image of cells.h, and reads groups of it back.
#pragma once

#include "kernels/cpu/quant/row_codes.h"

namespace tutti::kernels {

// Row `output` (0..15) of a group whose memory was zero.
void lay_out_row(WeightFormat format, const RowCodes& row, Index cells, Index output,
                 std::uint8_t* group);

// The values of a group, panel[k * stride + output]: those of dequantise_row.
void read_group(WeightFormat format, const std::uint8_t* group, Index inputs, float* panel,
                Index stride);

}  // namespace tutti::kernels
