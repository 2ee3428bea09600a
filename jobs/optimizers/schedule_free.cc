// Schedule-free AdamW (Defazio et al. 2024): it steps from one sequence of weights, takes gradients
// at a second, and its model is the average of the first. The arithmetic is
// kernels/ops/optimizers/schedule_free.h; the weights that are trained are its y.
#include "kernels/ops/optimizers/schedule_free.h"

#include "jobs/optimizers/parameter_steps.h"
#include "kernels/ops/math.h"

namespace tutti::optimizers {
namespace {

constexpr std::array<std::string_view, 2> kStates = {"z", "exp_avg_sq"};

Result<> check(const spec::OptimizerSpec& settings) {
  auto checked = check_betas(settings, "schedule_free");
  if (checked && !(settings.betas[0] > 0)) {
    return Error{ErrorCode::invalid_argument, "the first beta of schedule_free must be above 0"};
  }
  if (checked && !(settings.epsilon > 0)) {
    return Error{ErrorCode::invalid_argument, "epsilon of schedule_free must be above 0"};
  }
  return checked;
}

// A step weighs by the square of its rate, so that those of a warm-up count little.
Result<> update(const kernels::OpContext& ctx, const spec::OptimizerSpec& settings,
                const OptimizerStep& step) {
  const double square = step.rate * step.rate;
  kernels::ScheduleFreeSettings common{
      .rate = step.rate,
      .beta1 = settings.betas[0],
      .beta2 = settings.betas[1],
      .epsilon = settings.epsilon,
      .correction2 = 1.0 - kernels::power(settings.betas[1], static_cast<unsigned>(step.step)),
      .average = square > 0 ? square / step.rate_squares : 0.0,
      .factor = step.factor};
  const auto update_of = [&](const ParameterStep& own) {
    common.decay = own.decay;
    return kernels::ScheduleFreeRange{.settings = common,
                                      .weight = own.weight,
                                      .gradient = own.gradient,
                                      .base = own.states[0],
                                      .second = own.states[1],
                                      .hashes = own.hashes};
  };
  return each_parameter_together<kernels::ScheduleFreeUpdate>(
      ctx, settings, step, kernels::schedule_free_update, update_of);
}

Result<> average(const kernels::OpContext& ctx, const spec::OptimizerSpec& settings,
                 const ModelOfStates& args) {
  return kernels::schedule_free_average(ctx, {.beta1 = settings.betas[0],
                                              .weight = args.weights,
                                              .base = args.states[0],
                                              .average = args.model});
}

}  // namespace

const Optimizer kScheduleFree = {.name = "schedule_free",
                                 .states = kStates,
                                 .check = check,
                                 .update = update,
                                 .begins_as_weights = kStates[0],
                                 .model = average};

}  // namespace tutti::optimizers
