// Optimizers whose unit is the matrix: Adafactor (Shazeer & Stern 2018) and Muon (Jordan et al.
// 2024). The arithmetic is kernels/ops/optimizers.
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "jobs/optimizers/parameter_steps.h"
#include "kernels/ops/math.h"
#include "kernels/ops/optimizers/adafactor.h"
#include "kernels/ops/optimizers/muon.h"

namespace tutti::optimizers {
namespace {

constexpr std::array<std::string_view, 1> kSecond = {"exp_avg_sq"};
constexpr std::array<std::string_view, 2> kMoments = {"exp_avg", "exp_avg_sq"};

// Of the paper: the decay of the second moment grows with the steps, and a step is relative to the
// size of what it moves, but for what is still near zero.
constexpr double kAdafactorExponent = -0.8;
constexpr double kAdafactorSizeMin = 1e-3;

Result<> check_adafactor(const spec::OptimizerSpec&) { return {}; }

// A matrix keeps its row state in the first elements of its part of the state, the column state
// behind it: a state has the parameter's shape in checkpoints.
Result<> update_adafactor(const kernels::OpContext& ctx, const spec::OptimizerSpec& settings,
                          const OptimizerStep& step) {
  const double beta2 = 1.0 - kernels::power(static_cast<double>(step.step), kAdafactorExponent);
  return each_parameter(ctx, settings, step, [&](const ParameterStep& own) {
    const auto rows = static_cast<std::size_t>(own.rows());
    const auto columns = static_cast<std::size_t>(own.columns());
    const std::size_t of_rows = rows > 1 ? rows : 0;
    if (of_rows + columns > own.weight.size()) {
      return Result<>(Error{ErrorCode::unsupported, own.parameter.name +
                                                        ": adafactor takes vectors, and matrices "
                                                        "of at least two rows and columns"});
    }
    kernels::AdafactorUpdate args;
    args.settings.rate = step.rate;
    args.settings.size_min = kAdafactorSizeMin;
    args.settings.beta2 = beta2;
    args.settings.decay = own.decay;
    args.settings.factor = step.factor;
    args.weight = own.weights();
    args.gradient = own.gradients();
    args.row = own.states[0].first(of_rows);
    args.column = own.states[0].subspan(of_rows, columns);
    args.hashes = own.hashes;
    return kernels::adafactor_update(ctx, args);
  });
}

Result<> check_muon(const spec::OptimizerSpec& settings) {
  auto checked = check_betas(settings, "muon");
  if (checked && !(settings.epsilon > 0)) {
    return Error{ErrorCode::invalid_argument, "epsilon of muon must be above 0"};
  }
  return checked;
}

bool is_left_to_adamw(const models::Parameter& parameter) {
  return rows_of(parameter) < 2 || parameter.role == models::Role::embedding ||
         parameter.role == models::Role::head;
}

// Momentum is the first of the betas. A step has the size of AdamW's, 0.2 sqrt(max(rows, columns))
// of an orthogonal matrix (Liu et al. 2025), so that one rate serves both; what is no matrix of a
// layer is AdamW's. A matrix has its momentum where AdamW has the first moment, and no second.
Result<> update_muon(const kernels::OpContext& ctx, const spec::OptimizerSpec& settings,
                     const OptimizerStep& step) {
  const kernels::AdamWSettings common = adamw_settings(settings, step);
  Gathered<kernels::AdamWUpdate, kernels::AdamWRange> others(ctx, kernels::adamw_update);
  auto done = each_parameter(ctx, settings, step, [&](const ParameterStep& own) {
    if (is_left_to_adamw(own.parameter)) return others.add(adamw_of(common, own));
    const auto rows = static_cast<double>(own.rows());
    const auto columns = static_cast<double>(own.columns());
    const double wanted = 0.2 * std::sqrt(std::max(rows, columns));
    const double scale = wanted / std::sqrt(std::max(1.0, rows / columns));
    kernels::MuonUpdate args;
    args.settings.rate = step.rate * scale;
    args.settings.momentum = settings.betas[0];
    args.settings.decay = own.decay / scale;  // the op multiplies it by its rate
    args.settings.factor = step.factor;
    args.weight = own.weights();
    args.gradient = own.gradients();
    args.velocity = {own.states[0].data(), own.rows(), own.columns()};
    args.hashes = own.hashes;
    return kernels::muon_update(ctx, args);
  });
  return done ? others.finish() : done;
}

// Of the largest parameter (kernels/ops/optimizers/adafactor.h).
std::uint64_t room_of_adafactor(const models::ParameterLayout& layout) {
  std::uint64_t most = 0;
  for (const models::Parameter& parameter : layout.parameters()) {
    const auto vectors =
        static_cast<std::uint64_t>(3 * (rows_of(parameter) + columns_of(parameter)));
    if (parameter.trainable) most = std::max(most, parameter.elements / 32 + vectors);
  }
  return most * sizeof(float);
}

// Numbers that a step on the matrix works in (kernels/ops/optimizers/muon.h).
std::uint64_t room_of_muon(const models::Parameter& parameter) {
  const auto few = static_cast<std::uint64_t>(std::min(rows_of(parameter), columns_of(parameter)));
  return 2 * parameter.elements + 2 * few * few;
}

// Of the matrices that Muon takes, one of each shape, the one that needs most room first.
std::vector<const models::Parameter*> shapes_of_muon(const models::ParameterLayout& layout) {
  std::vector<const models::Parameter*> out;
  for (const models::Parameter& parameter : layout.parameters()) {
    const bool is_new = std::ranges::none_of(out, [&](const models::Parameter* other) {
      return rows_of(*other) == rows_of(parameter) && columns_of(*other) == columns_of(parameter);
    });
    if (parameter.trainable && !is_left_to_adamw(parameter) && is_new) out.push_back(&parameter);
  }
  std::ranges::stable_sort(out, std::greater(),
                           [](const models::Parameter* one) { return room_of_muon(*one); });
  return out;
}

// A product that rounds its inputs keeps two of them in half the bytes.
std::uint64_t room_of_muon(const models::ParameterLayout& layout) {
  std::uint64_t most = 0;
  for (const models::Parameter* parameter : shapes_of_muon(layout)) {
    most = std::max(most, room_of_muon(*parameter) + parameter->elements);
  }
  return most * sizeof(float);
}

// A step on each shape, in that order: the device's memory for ops grows once. All its matrices are
// one; what comes out of it is nobody's.
Result<> rehearse_muon(const kernels::OpContext& ctx, const models::ParameterLayout& layout,
                       std::span<float> numbers) {
  for (const models::Parameter* parameter : shapes_of_muon(layout)) {
    const kernels::Matrix all(numbers.data() + parameter->offset, rows_of(*parameter),
                              columns_of(*parameter));
    auto done = kernels::muon_update(
        ctx, {.settings = {}, .weight = all, .gradient = all, .velocity = all});
    if (!done) return done;
  }
  return {};
}

}  // namespace

const Optimizer kAdafactor = {.name = "adafactor",
                              .states = kSecond,
                              .check = check_adafactor,
                              .update = update_adafactor,
                              .room = room_of_adafactor};
const Optimizer kMuon = {.name = "muon",
                         .states = kMoments,
                         .check = check_muon,
                         .update = update_muon,
                         .room = room_of_muon,
                         .rehearse = rehearse_muon};

}  // namespace tutti::optimizers
