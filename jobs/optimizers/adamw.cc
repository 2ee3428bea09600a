// AdamW (Loshchilov & Hutter 2019) over a model's parameters; the arithmetic is
// kernels/ops/adamw.h.
#include <array>

#include "jobs/optimizers/optimizer.h"
#include "kernels/ops/adamw.h"
#include "kernels/ops/math.h"

namespace tutti::optimizers {
namespace {

constexpr std::array<std::string_view, 2> kStates = {"exp_avg", "exp_avg_sq"};

Result<> check_settings(const spec::OptimizerSpec& settings) {
  if (settings.betas.size() != 2) {
    return Error{ErrorCode::invalid_argument, "adamw takes two betas"};
  }
  for (const double beta : settings.betas) {
    if (!(beta >= 0 && beta < 1)) {
      return Error{ErrorCode::invalid_argument, "a beta of adamw is outside [0, 1)"};
    }
  }
  if (!(settings.epsilon > 0)) {
    return Error{ErrorCode::invalid_argument, "epsilon of adamw must be above 0"};
  }
  return {};
}

Result<> update(const kernels::OpContext& ctx, const spec::OptimizerSpec& settings,
                const OptimizerStep& step) {
  auto checked = check_settings(settings);
  if (!checked) return checked;
  TUTTI_ASSERT(step.states.size() == kStates.size());
  const auto exponent = static_cast<unsigned>(step.step);
  kernels::AdamWSettings common;
  common.rate = step.rate;
  common.beta1 = settings.betas[0];
  common.beta2 = settings.betas[1];
  common.epsilon = settings.epsilon;
  common.correction1 = 1.0 - kernels::power(common.beta1, exponent);
  common.correction2 = 1.0 - kernels::power(common.beta2, exponent);
  common.factor = step.factor;
  std::size_t block = 0;
  for (const models::Parameter& parameter : step.layout.parameters()) {
    const auto count = static_cast<std::size_t>(parameter.elements);
    const auto offset = static_cast<std::size_t>(parameter.offset);
    const auto blocks =
        static_cast<std::size_t>(kernels::grid_blocks(static_cast<kernels::Index>(count)));
    const std::span<kernels::Hash128> hashes = step.block_hashes.subspan(block, blocks);
    block += blocks;
    if (!parameter.trainable) {
      auto hashed = kernels::hash_blocks(ctx, step.weights.subspan(offset, count), hashes);
      if (!hashed) return hashed;
      continue;
    }
    kernels::AdamWUpdate args;
    args.settings = common;
    args.settings.decay = parameter.decay ? settings.decay : 0.0;
    args.weight = step.weights.subspan(offset, count);
    args.gradient = step.gradients.subspan(offset, count);
    args.first = step.states[0].subspan(offset, count);
    args.second = step.states[1].subspan(offset, count);
    args.hashes = hashes;
    auto updated = kernels::adamw_update(ctx, args);
    if (!updated) return updated;
  }
  return {};
}

}  // namespace

const Optimizer kAdamW = {"adamw", kStates, check_settings, update};

}  // namespace tutti::optimizers
