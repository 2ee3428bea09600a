// Keeps the scheduler's indices (board.h) equal to the durable and soft state they are made of.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "coordinator/cluster/desk.h"
#include "coordinator/scheduler/outlook.h"

namespace tutti::coordinator {

// Looks again at the workers and jobs that were stirred since the last time.
void refresh_board(Desk& desk);
// After a start: everything.
void stir_all(Desk& desk);

void refresh_worker(Desk& desk, const std::string& worker);

// Since when it could have started but for others: not before what it depends on, and its `begin`.
std::int64_t waits_since(const JobRecord& job);
// What is left of limit.time when it starts, at least 1; 0: no limit.
std::uint64_t time_left_ms(const JobRecord& job);
// Beyond a start's own limit, which the worker watches: one that was never reported as over.
inline constexpr Duration kStartSlack = std::chrono::seconds(10);
// From the placing of such a job to when its limit.time begins, at most: ranks start, connect and
// load. A program's begins as it is launched.
Duration longest_start(const Desk& desk, const scheduler::Shape& shape);
// Where in the queue the job belongs.
scheduler::LaneKey lane_of(const Desk& desk, const JobRecord& job);
scheduler::Shape shape_of(const JobTerms& terms);
// With the numerics profile that the job would be placed in now, where the cluster has several.
scheduler::Shape shape_now(Desk& desk, const JobTerms& terms);
// Of ranks that join those that the job has: they exchange as these do.
scheduler::Shape shape_of_members(Desk& desk, const JobRecord& job);
// What one process of the job takes on the worker.
scheduler::Amount amount_on(const WorkerRecord& worker, const JobRecord* job);
// All that the job holds, node by node.
std::vector<scheduler::Holding> holdings_of(const Desk& desk, JobId job);

// Why a job that waits is not in the queue, if it is not.
enum class Absent { no, not_waiting, undecided, begin, backoff, dependency, at_once };
Absent absent_from_queue(const Desk& desk, const JobRecord& job);

// New work may go there now.
bool is_reachable(const Desk& desk, const std::string& worker);

}  // namespace tutti::coordinator
