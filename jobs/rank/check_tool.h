// `tutti check`: what this machine can do, each measurement within a deadline of its own.
#pragma once

#include <span>
#include <string>

#include "kernels/ceilings/ceilings.h"

namespace tutti::rank {

using Measure = kernels::Ceiling (*)(kernels::ThreadPool& pool, const kernels::MeasureTime& time);

// What was reached; late: none, as the deadline passed first.
struct InTime {
  kernels::Ceiling reached;
  bool late = false;
};
// The deadline begins with the call: what others took before is no matter. A loop that has begun is
// not broken off (kernels/ceilings/ceilings.h says how long one takes).
InTime measure_in_time(Measure measure, kernels::ThreadPool& pool, Duration deadline);

// Arguments after `check`. Gives the exit code: 0; 2 with one line on standard error; 3 where a
// measurement had no result by its deadline.
int run_check_tool(std::span<const std::string> args);

}  // namespace tutti::rank
