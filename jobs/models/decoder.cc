#include "jobs/models/decoder.h"

#include <algorithm>

#include "jobs/models/layer.h"
#include "kernels/ops/random.h"

namespace tutti::models {

Result<Decoder> Decoder::create(const DecoderDescription& description) {
  if (auto checked = check(description); !checked) return checked.error();
  return Decoder(description);
}

void Decoder::initialise(const kernels::OpContext& ctx, std::uint64_t seed,
                         std::span<float> weights) const {
  TUTTI_ASSERT(weights.size() == layout_.elements());
  std::fill(weights.begin(), weights.end(), 0.0F);
  for (const Parameter& parameter : layout_.parameters()) {
    const auto values = weights.subspan(parameter.offset, parameter.elements);
    if (parameter.init_deviation == 0) {
      std::fill(values.begin(), values.end(), parameter.init_value);
      continue;
    }
    must(kernels::fill_normal(
        ctx, {.key = {.seed = seed, .purpose = kernels::purpose_of(parameter.name)},
              .deviation = parameter.init_deviation,
              .out = values}));
  }
}

}  // namespace tutti::models
