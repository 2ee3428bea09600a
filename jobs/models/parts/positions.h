// Learned positions: a row of a table for each position, added to the embeddings of tokens.
//
// Errors: check_position: invalid_argument (a position that the model's table does not have);
// add_positions: a refused argument is a broken invariant (must, layer.h).
#pragma once

#include <cstdint>
#include <span>

#include "jobs/models/description.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::models {

// Rotary positions have no end.
Result<> check_position(const DecoderDescription& description, std::int64_t position);

struct AddPositions {
  kernels::ConstMatrix table;  // [positions_max, C]
  std::span<const std::int32_t> positions;
  kernels::Matrix room;  // [rows, C], written
  kernels::Matrix x;     // [rows, C]; both are contiguous
};
void add_positions(const kernels::OpContext& ctx, const AddPositions& args);

}  // namespace tutti::models
