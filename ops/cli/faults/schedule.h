// The faults of one run, each with its moment and its victim: what a file and a seed resolve to.
//
// Pure: the same file, seed and setting give the same schedule. Every entry draws from a generator
// of its own, so that a schedule with one entry less keeps the others, and a finding can be made
// smaller.
//
// Limits: kFaultsMax faults. Errors: invalid_argument, with the entry's place (a rank that the job
// has not, a step that it does not reach, steps of a job that has none, a node that is not there).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ops/cli/faults/fault_file.h"
#include "ops/cli/text/table.h"

namespace tutti::cli {

inline constexpr std::size_t kFaultsMax = 1'000;

// What the faults befall.
struct FaultSetting {
  std::uint32_t ranks = 0;         // at most
  std::uint64_t steps = 0;         // 0: the job has none
  std::vector<std::string> nodes;  // by name; empty: none is known
};

struct PlannedFault {
  std::uint32_t number = 0;  // from 1, in the order of the schedule
  FaultKind kind = FaultKind::kill_rank;
  FaultClock clock = FaultClock::time;
  std::uint64_t at = 0;    // ms since the job was first seen running, or the step that it has done
  std::uint32_t rank = 0;  // of ranks
  std::string node;        // of nodes; empty: any, where none was known
  std::uint64_t lasts_ms = 0;
  std::uint64_t delay_ms = 0;

  bool operator==(const PlannedFault&) const = default;
};

// Those of steps first, each kind of moment in its order.
Result<std::vector<PlannedFault>> make_schedule(const FaultFile& file, std::uint64_t seed,
                                                const FaultSetting& setting);

// "step 20", "3.2 s".
std::string print_moment(const PlannedFault& fault);
// "rank 1", "node a", "coordinator".
std::string print_victim(const PlannedFault& fault);

std::string schedule_table(const std::vector<PlannedFault>& schedule, Paint paint);

}  // namespace tutti::cli
