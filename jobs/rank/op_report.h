// What the ops of this process have cost so far, in one line of the job's log: the most expensive
// first, with their rates.
//
//   ops: product 41.2 s (12,160 calls, 101.3 GFLOP/s), attention_backward 8.1 s (960 calls, ...
//
// And one on its memory: huge pages: 640 MiB asked for, 638 MiB given
//
// Seconds are those of op_counters.h: an op counts what it calls, so they may add up to more than
// the time that passed; on a device they are those of enqueueing.
#pragma once

#include <span>
#include <string>

#include "kernels/tensor/huge_pages.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::rank {

// Empty where nothing was called.
std::string describe_ops(std::span<const kernels::OpCount> counts);

// Empty where no buffer is large enough for one.
std::string describe_huge_pages(const kernels::HugePages& pages);

// Those lines into the log of the process, if there are any.
void log_ops();

}  // namespace tutti::rank
