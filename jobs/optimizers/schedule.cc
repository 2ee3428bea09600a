#include "jobs/optimizers/schedule.h"

#include <numbers>
#include <string>

#include "kernels/ops/math.h"

namespace tutti::optimizers {
namespace {

double constant(double, double) { return 1.0; }
double linear(double progress, double floor) { return 1.0 - (1.0 - floor) * progress; }
double cosine(double progress, double floor) {
  return floor + (1.0 - floor) * 0.5 * (1.0 + kernels::cos(std::numbers::pi * progress));
}

constexpr Schedule kRows[] = {{"constant", constant}, {"linear", linear}, {"cosine", cosine}};

}  // namespace

std::span<const Schedule> schedules() { return kRows; }

Result<const Schedule*> find_schedule(std::string_view name) {
  std::string known;
  for (const Schedule& row : kRows) {
    if (row.name == name) return &row;
    known += known.empty() ? "" : ", ";
    known += row.name;
  }
  return Error{ErrorCode::unsupported,
               "no schedule \"" + std::string(name) + "\"; there are: " + known};
}

double rate_at(const spec::TrainSpec& train, const Schedule& schedule, std::uint64_t step) {
  const std::uint64_t warmup = train.schedule.warmup;
  const double peak = train.optimizer.rate;
  if (step <= warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  if (step >= train.steps) return peak * schedule.share(1.0, train.schedule.floor);
  const double progress =
      static_cast<double>(step - warmup) / static_cast<double>(train.steps - warmup);
  return peak * schedule.share(progress, train.schedule.floor);
}

double RateSquares::up_to(const spec::TrainSpec& train, const Schedule& schedule,
                          std::uint64_t step) {
  if (step < step_) *this = {};
  while (step_ < step) {
    const double rate = rate_at(train, schedule, ++step_);
    sum_ += rate * rate;
  }
  return sum_;
}

}  // namespace tutti::optimizers
