// One line on what the ops of this process have cost so far, for the job's log: the most expensive
// first, with their rates.
//
//   ops: product 41.2 s (12,160 calls, 101.3 GFLOP/s), attention_backward 8.1 s (960 calls, ...
//
// Seconds are those of op_counters.h: an op counts what it calls, so they may add up to more than
// the time that passed; on a device they are those of enqueueing.
#pragma once

#include <span>
#include <string>

#include "kernels/tensor/op_counters.h"

namespace tutti::rank {

// Empty where nothing was called.
std::string describe_ops(std::span<const kernels::OpCount> counts);

// That line into the log of the process, if there is one.
void log_ops();

}  // namespace tutti::rank
