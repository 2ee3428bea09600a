// AdamW (Loshchilov & Hutter 2019) over a model's parameters, with states of fp32 and of 8 bits;
// the arithmetic is kernels/ops/adamw.h and kernels/ops/optimizers/adamw8.h.
#include <string>

#include "jobs/optimizers/optimizer.h"
#include "jobs/optimizers/parameter_steps.h"
#include "kernels/ops/math.h"
#include "kernels/ops/optimizers/adamw8.h"

namespace tutti::optimizers {

Result<> check_betas(const spec::OptimizerSpec& settings, std::string_view name) {
  if (settings.betas.size() != 2) {
    return Error{ErrorCode::invalid_argument, std::string(name) + " takes two betas"};
  }
  for (const double beta : settings.betas) {
    if (!(beta >= 0 && beta < 1)) {
      return Error{ErrorCode::invalid_argument,
                   "a beta of " + std::string(name) + " is outside [0, 1)"};
    }
  }
  return {};
}

kernels::AdamWSettings adamw_settings(const spec::OptimizerSpec& settings,
                                      const OptimizerStep& step) {
  const auto exponent = static_cast<unsigned>(step.step);
  kernels::AdamWSettings common;
  common.rate = step.rate;
  common.beta1 = settings.betas[0];
  common.beta2 = settings.betas[1];
  common.epsilon = settings.epsilon;
  common.correction1 = 1.0 - kernels::power(common.beta1, exponent);
  common.correction2 = 1.0 - kernels::power(common.beta2, exponent);
  common.factor = step.factor;
  return common;
}

kernels::AdamWRange adamw_of(const kernels::AdamWSettings& settings, const ParameterStep& own) {
  kernels::AdamWRange args;
  args.settings = settings;
  args.settings.decay = own.decay;
  args.weight = own.weight;
  args.gradient = own.gradient;
  args.first = own.states[0];
  args.second = own.states[1];
  args.hashes = own.hashes;
  return args;
}

namespace {

constexpr std::array<std::string_view, 2> kStates = {"exp_avg", "exp_avg_sq"};

Result<> check_settings(const spec::OptimizerSpec& settings) {
  auto checked = check_betas(settings, "adamw");
  if (checked && !(settings.epsilon > 0)) {
    return Error{ErrorCode::invalid_argument, "epsilon of adamw must be above 0"};
  }
  return checked;
}

// A state's part of one parameter: its codes, a byte each, up to a whole word; then the scales.
constexpr std::array<std::string_view, 2> kStates8 = {"exp_avg8", "exp_avg_sq8"};

std::uint64_t code_words(std::uint64_t elements) {
  return (elements + sizeof(float) - 1) / sizeof(float);
}
std::uint64_t packed_words(std::uint64_t elements) {
  const auto blocks = kernels::state8_blocks(static_cast<kernels::Index>(elements));
  return code_words(elements) + static_cast<std::uint64_t>(blocks);
}

Result<> update8(const kernels::OpContext& ctx, const spec::OptimizerSpec& settings,
                 const OptimizerStep& step) {
  auto checked = check_settings(settings);
  if (!checked) return checked;
  kernels::AdamW8Range args;
  args.settings = adamw_settings(settings, step);
  const auto update_of = [&](const ParameterStep& own) {
    const std::size_t count = own.weight.size();
    args.settings.decay = own.decay;
    args.weight = own.weight;
    args.gradient = own.gradient;
    args.first = {reinterpret_cast<std::int8_t*>(own.states[0].data()), count};
    args.second = {reinterpret_cast<std::uint8_t*>(own.states[1].data()), count};
    args.first_scales = own.states[0].subspan(code_words(count));
    args.second_scales = own.states[1].subspan(code_words(count));
    args.hashes = own.hashes;
    return args;
  };
  return each_parameter_together<kernels::AdamW8Update>(ctx, settings, step, kernels::adamw8_update,
                                                        update_of, packed_words);
}

Result<> update(const kernels::OpContext& ctx, const spec::OptimizerSpec& settings,
                const OptimizerStep& step) {
  auto checked = check_settings(settings);
  if (!checked) return checked;
  const kernels::AdamWSettings common = adamw_settings(settings, step);
  return each_parameter_together<kernels::AdamWUpdate>(
      ctx, settings, step, kernels::adamw_update,
      [&](const ParameterStep& own) { return adamw_of(common, own); });
}

}  // namespace

const Optimizer kAdamW = {"adamw", kStates, check_settings, update};
const Optimizer kAdamW8 = {"adamw8", kStates8, check_settings, update8, packed_words};

}  // namespace tutti::optimizers
