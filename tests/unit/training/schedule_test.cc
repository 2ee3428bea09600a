#include "jobs/optimizers/schedule.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <numbers>

namespace tutti::optimizers {
namespace {

spec::TrainSpec run_of(std::uint64_t steps, std::uint64_t warmup) {
  spec::TrainSpec train;
  train.steps = steps;
  train.optimizer.rate = 2.0;
  train.schedule.warmup = warmup;
  train.schedule.floor = 0.1;
  return train;
}

TEST_CASE("schedules: every curve warms up to the peak and ends at its floor or stays") {
  for (const Schedule& schedule : schedules()) {
    const spec::TrainSpec train = run_of(100, 10);
    CAPTURE(schedule.name);
    CHECK(rate_at(train, schedule, 1) == Approx(0.2));
    CHECK(rate_at(train, schedule, 10) == 2.0);
    CHECK(rate_at(train, schedule, 100) == Approx(schedule.name == "constant" ? 2.0 : 0.2));
    for (std::uint64_t step = 11; step <= 100; ++step) {
      CHECK(rate_at(train, schedule, step) <= rate_at(train, schedule, step - 1));
    }
  }
}

TEST_CASE("schedules: cosine follows its formula") {
  const spec::TrainSpec train = run_of(40, 0);
  const Schedule& cosine = **find_schedule("cosine");
  for (std::uint64_t step = 1; step <= 40; ++step) {
    const double progress = static_cast<double>(step) / 40;
    CHECK(rate_at(train, cosine, step) ==
          Approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + std::cos(std::numbers::pi * progress)))));
  }
}

TEST_CASE("schedules: squares of rates are summed from step 1 on, whichever step is asked for") {
  const spec::TrainSpec train = run_of(40, 5);
  const Schedule& cosine = **find_schedule("cosine");
  RateSquares squares;
  double sum = 0;
  std::vector<double> sums;
  for (std::uint64_t step = 1; step <= 40; ++step) {
    sum += rate_at(train, cosine, step) * rate_at(train, cosine, step);
    sums.push_back(sum);
    CHECK(squares.up_to(train, cosine, step) == sum);
  }
  CHECK(squares.up_to(train, cosine, 7) == sums[6]);
  CHECK(RateSquares().up_to(train, cosine, 40) == sum);
}

TEST_CASE("schedules: an unknown name is refused with those that are known") {
  CHECK(find_schedule("step").error().message ==
        "no schedule \"step\"; there are: constant, linear, cosine");
}

}  // namespace
}  // namespace tutti::optimizers
