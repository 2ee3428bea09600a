#include "jobs/models/parts/dropout.h"

#include <fmt/core.h>

#include <string_view>

#include "jobs/models/layer.h"
#include "kernels/ops/elementwise/dropout.h"

namespace tutti::models {

namespace {

constexpr std::string_view name_of(DropoutPlace::Of of) {
  switch (of) {
    case DropoutPlace::Of::embeddings: return "dropout of embeddings";
    case DropoutPlace::Of::attention: return "dropout of attention";
    case DropoutPlace::Of::feed_forward: return "dropout of feed-forward";
  }
  return "";
}

}  // namespace

Result<> check_dropout(const Dropout& dropout) {
  if (dropout.rate >= 0 && dropout.rate < 1 && kernels::DropoutMask(dropout.rate).keeps_any()) {
    return {};
  }
  return Error{ErrorCode::invalid_argument,
               fmt::format("a dropout of {}, which is not in [0, 1)", dropout.rate)};
}

void drop(const kernels::OpContext& ctx, const Dropout& dropout, const DropoutPlace& place,
          ConstMatrix x, Matrix y) {
  must(kernels::dropout(ctx,
                        {.key = {.seed = dropout.seed,
                                 .purpose = kernels::purpose_of(name_of(place.of)) + place.layer},
                         .first_row = dropout.first_row,
                         .rate = dropout.rate,
                         .x = x,
                         .y = y}));
}

}  // namespace tutti::models
