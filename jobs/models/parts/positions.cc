#include "jobs/models/parts/positions.h"

#include <fmt/core.h>

#include "jobs/models/layer.h"
#include "kernels/ops/add.h"
#include "kernels/ops/embedding.h"

namespace tutti::models {

Result<> check_position(const DecoderDescription& description, std::int64_t position) {
  if (description.positions != Positions::learned || position < description.positions_max) {
    return {};
  }
  return Error{ErrorCode::invalid_argument,
               fmt::format("position {} is beyond the {} that the model has learned", position,
                           description.positions_max)};
}

void add_positions(const kernels::OpContext& ctx, const AddPositions& args) {
  const auto all = [](kernels::Matrix matrix) {
    TUTTI_ASSERT(matrix.stride == matrix.columns);
    return std::span(matrix.data, static_cast<std::size_t>(matrix.rows * matrix.columns));
  };
  must(kernels::embedding_forward(
      ctx, {.table = args.table, .tokens = args.positions, .output = args.room}));
  must(kernels::add_into(ctx, all(args.x), all(args.room)));
}

}  // namespace tutti::models
