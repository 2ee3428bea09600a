// What users have had of the cluster, and what that takes from their turn.
//
// Use is counted in slot-milliseconds; it halves with every kUseHalfLifeMs that goes by, so that
// yesterday counts half of today: also of slots that are still held. All of it is whole numbers:
// the counts are durable, and a replay must give the same ones on every machine.
//
// A user who had more than its share falls behind by up to kFairDelayMaxMs: its jobs take their
// turn as if they had been submitted that much later. So fair share orders jobs of one priority,
// and starves nobody.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "coordinator/cluster/cluster_records.h"

namespace tutti::coordinator::scheduler {

inline constexpr std::int64_t kUseHalfLifeMs = std::int64_t{24} * 60 * 60 * 1000;
inline constexpr std::int64_t kFairDelayMaxMs = std::int64_t{60} * 60 * 1000;

// The use that is left of it at `unix_ms`.
std::uint64_t use_at(const UsageRecord& usage, std::int64_t unix_ms);

// Adds use that ended at `unix_ms`.
void add_use(UsageRecord& usage, std::uint64_t slot_ms, std::int64_t unix_ms);

// What is left at `to_unix_ms` of slots that were held from `from_unix_ms` until then.
std::uint64_t use_of_held(std::uint64_t slots, std::int64_t from_unix_ms, std::int64_t to_unix_ms);

// By how much each user falls behind: nothing for one that had nothing, half of the most for one
// that had exactly its share. `shares`: weights; who is not there has 1.
std::map<std::string, std::int64_t> fair_delays_ms(const std::map<std::string, UsageRecord>& usage,
                                                   const std::map<std::string, double>& shares,
                                                   std::int64_t unix_ms);

}  // namespace tutti::coordinator::scheduler
