// What the scheduler knows besides the durable state: indices of it, and whose turn holds what.
//
// All of it is derived. Facts and inputs stir workers and jobs; before a decision the stirred ones
// are looked at again (cluster/scheduler_index.cc), so that nothing here can drift from the truth
// and a decision costs what changed, not what there is.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "coordinator/scheduler/capacity.h"
#include "coordinator/scheduler/job_queue.h"
#include "coordinator/scheduler/quotas.h"
#include "protocol/base/clock.h"
#include "protocol/base/ids.h"

namespace tutti::coordinator::scheduler {

inline constexpr std::int64_t kNoEnd = std::numeric_limits<std::int64_t>::max();

// What a job counts for.
struct Load {
  std::uint64_t slots = 0;
  std::uint64_t running = 0;  // jobs that hold slots
  std::uint64_t queued = 0;   // jobs and tasks that have not started

  bool operator==(const Load&) const = default;
};

struct Counted {
  std::string owner;
  Load load;
  bool interrupted = false;                      // lost ranks, and seats are kept for it
  bool growing = false;                          // runs with fewer ranks than it may have
  bool leaves = false;                           // it is being stopped
  std::optional<std::int64_t> ends_unix_ms;      // holds slots: kNoEnd if no limit says when
  std::optional<std::int32_t> may_be_preempted;  // its priority
};

// The job whose turn it is, and where it will start: nobody younger takes what it waits for.
struct Reservation {
  JobId job;
  Shape shape;
  std::vector<Share> seats;
  std::set<JobId> frees;                      // whose end it counts on
  std::optional<std::int64_t> start_unix_ms;  // when the last of them has ended, if limits say so
  bool preempting = false;                    // they were asked to leave for it
};

// A slot whose line became shorter (life/line.h).
struct Opening {
  std::string worker;
  std::uint32_t slot = 0;

  auto operator<=>(const Opening&) const = default;
};

struct Board {
  Capacity capacity;
  JobQueue queue;
  Quotas quotas;

  std::set<std::string> stirred_workers;
  std::set<JobId> stirred_jobs;

  std::unordered_map<JobId, Counted> counted;
  std::map<std::string, Load> users;
  std::set<JobId> interrupted;  // lost ranks, and seats are kept for them (life/broken_gangs.h)
  std::set<JobId> growing;
  std::set<std::pair<std::int64_t, JobId>> ends;
  std::set<std::pair<std::int32_t, JobId>> preemptible;
  std::map<JobId, std::set<JobId>> dependents;  // who waits for the end of whom

  std::optional<Reservation> reservation;
  // For gangs that lost ranks, of this pass: by job and node, and for all of them.
  std::map<JobId, std::map<std::string, Amount>> gang_seats;
  std::map<std::string, Amount> gang_holds;
  JobId head;  // whose turn it was in the last pass; none: nobody's
  // Of a queue with more lanes than a pass looks at: how far the last pass came, and when the next
  // one is due if nothing happens before.
  std::optional<JobQueue::Turn> passed_through;
  std::optional<Instant> sweep_due;
  std::set<Opening> openings;                       // since the last pass
  std::set<ProcessId> lined_up;                     // those that stand in line
  std::optional<std::int64_t> clock_ms;             // the time of day beyond the time that passes
  std::optional<std::int64_t> delays_from_unix_ms;  // when fair share was looked at last
};

}  // namespace tutti::coordinator::scheduler
