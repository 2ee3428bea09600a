// The learning rate of a step: a warm-up, then a curve from the peak to a floor. A table of curves.
//
//   rate(t) = peak * t / warmup                          1 <= t <= warmup
//   rate(t) = peak * curve((t - warmup) / (steps - warmup))   after it; the last step has the floor
//
// In double precision with our own cosine, so that every machine takes the same steps.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "protocol/base/result.h"
#include "protocol/spec/job_spec.h"

namespace tutti::optimizers {

struct Schedule {
  std::string_view name;  // in specs
  // Share of the peak at `progress` in (0, 1]; `floor` is the share at 1.
  double (*share)(double progress, double floor);
};

std::span<const Schedule> schedules();

// Errors: unsupported, with the names that are known.
Result<const Schedule*> find_schedule(std::string_view name);

// The rate of step `step` (from 1) of a training run.
double rate_at(const spec::TrainSpec& train, const Schedule& schedule, std::uint64_t step);

// The sum of rate^2 over the steps up to one: a chain from step 1 on, whichever is asked for.
class RateSquares {
 public:
  // Of one run. The next step costs one addition, any other all of them.
  double up_to(const spec::TrainSpec& train, const Schedule& schedule, std::uint64_t step);

 private:
  std::uint64_t step_ = 0;
  double sum_ = 0;
};

}  // namespace tutti::optimizers
