// SGD with momentum and Lion (Chen et al. 2023): one state an element. Momentum of SGD is the first
// of the betas. The arithmetic is kernels/ops/optimizers.
#include "jobs/optimizers/parameter_steps.h"
#include "kernels/ops/optimizers/lion.h"
#include "kernels/ops/optimizers/sgd.h"

namespace tutti::optimizers {
namespace {

constexpr std::array<std::string_view, 1> kMomentum = {"momentum_buffer"};
constexpr std::array<std::string_view, 1> kAverage = {"exp_avg"};

Result<> check_sgd(const spec::OptimizerSpec& settings) { return check_betas(settings, "sgd"); }
Result<> check_lion(const spec::OptimizerSpec& settings) { return check_betas(settings, "lion"); }

Result<> update_sgd(const kernels::OpContext& ctx, const spec::OptimizerSpec& settings,
                    const OptimizerStep& step) {
  const auto update_of = [&](const ParameterStep& own) {
    return kernels::SgdRange{.settings = {.rate = step.rate,
                                          .momentum = settings.betas[0],
                                          .decay = own.decay,
                                          .factor = step.factor},
                             .weight = own.weight,
                             .gradient = own.gradient,
                             .velocity = own.states[0],
                             .hashes = own.hashes};
  };
  return each_parameter_together<kernels::SgdUpdate>(ctx, settings, step, kernels::sgd_update,
                                                     update_of);
}

Result<> update_lion(const kernels::OpContext& ctx, const spec::OptimizerSpec& settings,
                     const OptimizerStep& step) {
  const auto update_of = [&](const ParameterStep& own) {
    return kernels::LionRange{.settings = {.rate = step.rate,
                                           .beta1 = settings.betas[0],
                                           .beta2 = settings.betas[1],
                                           .decay = own.decay,
                                           .factor = step.factor},
                              .weight = own.weight,
                              .gradient = own.gradient,
                              .momentum = own.states[0],
                              .hashes = own.hashes};
  };
  return each_parameter_together<kernels::LionUpdate>(ctx, settings, step, kernels::lion_update,
                                                      update_of);
}

}  // namespace

const Optimizer kSgd = {"sgd", kMomentum, check_sgd, update_sgd};
const Optimizer kLion = {"lion", kAverage, check_lion, update_lion};

}  // namespace tutti::optimizers
