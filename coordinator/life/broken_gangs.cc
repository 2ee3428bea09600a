#include "coordinator/life/broken_gangs.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "coordinator/cluster/job_life.h"
#include "coordinator/cluster/recovery.h"
#include "coordinator/scheduler/index.h"
#include "coordinator/scheduler/room.h"
#include "coordinator/scheduler/schedule.h"
#include "protocol/base/counted.h"

namespace tutti::coordinator {

using scheduler::Amount;
using scheduler::Board;
using scheduler::Shape;

HeldSeats lift_seats(Desk& desk, JobId job) {
  Board& board = desk.board;
  const auto at = board.gang_seats.find(job);
  if (at == board.gang_seats.end()) return {};
  HeldSeats seats = std::move(at->second);
  board.gang_seats.erase(at);
  for (const auto& [node, amount] : seats) {
    Amount& held = board.gang_holds[node];
    held = held.less(amount);
    if (held == Amount{}) board.gang_holds.erase(node);
    hold_room(desk, node);
  }
  return seats;
}

void keep_seats(Desk& desk, JobId job, const HeldSeats& seats) {
  for (const auto& [node, amount] : seats) {
    desk.board.gang_seats[job][node] += amount;
    desk.board.gang_holds[node] += amount;
    hold_room(desk, node);
  }
}

// Seats
// --------------------------------------------------------------------------------------------

namespace {

// Seats for the empty ranks of one job. What it was given is held on the board meanwhile, so that
// it is not given twice.
class GangSeats {
 public:
  GangSeats(Desk& desk, const JobRecord& job, std::vector<std::uint32_t> empty)
      : desk_(desk), job_(job), shape_(shape_of_members(desk, job)), empty_(std::move(empty)) {}

  // The old place first: what the node has cached, and the survivors' links, are there.
  void take_homes() {
    for (const std::uint32_t rank : empty_) {
      const std::string& home = job_.homes[rank];
      if (!is_reachable(desk_, home) || desk_.board.capacity.fit(shape_, home).now == 0) {
        missing_.push_back(rank);
        continue;
      }
      seats_[rank] = home;
      hold(home);
    }
  }

  // Elsewhere, as many as there are.
  void take_others() {
    while (!missing_.empty()) {
      const auto seat = choose_seats(desk_, shape_, job_.terms.policy, 1);
      if (!seat) return;
      seats_[missing_.front()] = seat->front().worker;
      hold(seat->front().worker);
      missing_.erase(missing_.begin());
    }
  }

  const std::vector<std::uint32_t>& missing() const { return missing_; }

  // Lets go of what was held, and says which slots were meant.
  std::map<std::uint32_t, Seat> take() {
    std::map<std::string, std::vector<std::uint32_t>> ranks;
    for (const auto& [rank, node] : seats_) ranks[node].push_back(rank);
    std::map<std::uint32_t, Seat> out;
    for (const auto& [node, here] : ranks) {
      const auto slots = free_slots(shape_, *desk_.board.capacity.node(node),
                                    static_cast<std::uint32_t>(here.size()), slots_on(node));
      for (std::size_t i = 0; i < here.size(); ++i) out[here[i]] = {node, slots.at(i)};
    }
    let_go();
    return out;
  }

  void let_go() {
    seats_.clear();
    lift_seats(desk_, job_.job);
  }

 private:
  // What those that are left have there.
  std::vector<std::uint32_t> slots_on(const std::string& node) const {
    std::vector<std::uint32_t> out;
    for (const ProcessId id : desk_.durable.processes_of(job_.job)) {
      const ProcessRecord& process = *desk_.durable.process(id);
      if (process.worker == node && !process.lost) out.push_back(process.slot);
    }
    return out;
  }

  void hold(const std::string& node) {
    keep_seats(desk_, job_.job, {{node, amount_of(shape_, 1)}});
  }

  Desk& desk_;
  const JobRecord& job_;
  Shape shape_;
  std::vector<std::uint32_t> empty_;
  std::map<std::uint32_t, std::string> seats_;  // by rank
  std::vector<std::uint32_t> missing_;
};

std::vector<std::uint32_t> empty_ranks(const JobRecord& job) {
  std::vector<std::uint32_t> out;
  for (std::uint32_t rank = 0; rank < job.members.size(); ++rank) {
    if (!job.members[rank]) out.push_back(rank);
  }
  return out;
}

// Of a gang that is to begin anew: those whose slots are not its own any more.
std::vector<std::uint32_t> given_back(const Desk& desk, const JobRecord& job) {
  std::set<std::uint32_t> kept;
  for (const ProcessId id : desk.durable.processes_of(job.job)) {
    const ProcessRecord& process = *desk.durable.process(id);
    if (!process.lost) kept.insert(process.rank);
  }
  std::vector<std::uint32_t> out;
  for (std::uint32_t rank = 0; rank < job.homes.size(); ++rank) {
    if (!kept.contains(rank)) out.push_back(rank);
  }
  return out;
}

// Fills the empty ranks of a job that holds others; what is there for some of them is kept until
// the next pass.
void place_missing(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  JobSoft& soft = desk.soft(id);
  GangSeats seats(desk, job, empty_ranks(job));
  seats.take_homes();
  const bool stays = job.terms.of_node == "wait";
  if (!stays) seats.take_others();
  // What is there for it stays its own while it waits for the cause, or before its next try.
  if (soft.settle_until && desk.now < *soft.settle_until) return;
  if (!seats.missing().empty()) {
    const std::uint32_t rank = seats.missing().front();
    if (job.terms.of_node == "shrink" && shrink_to_survivors(desk, id)) return seats.let_go();
    return wait_for(
        desk, id, Tell::events,
        fmt::format("waits for a slot for rank {}{}", rank, stays ? " on " + job.homes[rank] : ""));
  }
  const std::map<std::uint32_t, Seat> taken = seats.take();
  std::vector<Placement> gang;
  std::uint64_t next = desk.durable.next_process().value;
  for (std::uint32_t rank = 0; rank < job.members.size(); ++rank) {
    if (!job.members[rank]) {
      gang.push_back(place(desk, ProcessId{next++}, taken.at(rank)));
      continue;
    }
    gang.push_back(stay(*desk.durable.process(job.members[rank])));
  }
  if (charge_interruption(desk, id)) start_generation(desk, id, std::move(gang));
}

}  // namespace

// Programs that nobody fences
// ----------------------------------------------------------------------

namespace {

// How long the program goes on after its worker lost us, with the grace that ends it; nothing: for
// ever.
std::optional<Duration> stop_after(const Desk& desk, JobId id, const ProcessRecord& process) {
  constexpr std::uint64_t kGraceMs = 3'000;
  constexpr std::uint64_t kOlderMs = 60'000;  // of workers that do not read it from the order
  std::uint64_t ms = desk.job(id).terms.stop_after_ms;
  if (ms == 0) return std::nullopt;
  const WorkerRecord* worker = desk.durable.worker(process.worker);
  if (worker == nullptr || worker->limits.empty()) ms = std::max(ms, kOlderMs);
  return std::chrono::milliseconds(ms + kGraceMs);
}

// Of a job of which a lost worker may still run programs: nobody fences their effects but time.
struct Fence {
  std::string worker;            // one of them
  std::optional<Instant> until;  // they are surely gone; nothing: not before it is back
};

std::optional<Fence> fence_of(const Desk& desk, JobId id) {
  std::optional<Fence> out;
  for (const ProcessId process : desk.durable.processes_of(id)) {
    const ProcessRecord& record = *desk.durable.process(process);
    if (!record.lost) continue;
    const auto at = desk.links.find(record.worker);
    const Instant heard = at == desk.links.end() ? Instant{} : at->second.heard;
    const std::optional<Duration> lasts = stop_after(desk, id, record);
    if (!lasts) return Fence{record.worker, std::nullopt};
    const Instant until = heard + desk.settings.lease + *lasts;
    if (desk.now >= until || (out && *out->until >= until)) continue;
    out = {record.worker, until};
  }
  return out;
}

}  // namespace

bool is_fenced(const Desk& desk, const JobRecord& job) {
  return job.terms.kind == "run" && fence_of(desk, job.job).has_value();
}

bool is_fenced_off(Desk& desk, JobId id) {
  const std::optional<Fence> fence = fence_of(desk, id);
  if (!fence) return false;
  if (fence->until) desk.soft(id).settle_until = fence->until;
  wait_for(desk, id, Tell::events,
           fmt::format("waits until its programs on {} are surely gone", fence->worker));
  return true;
}

// Gangs that are to begin anew
// ---------------------------------------------------------------------

namespace {

// Ended, or about to be, for what was nobody's fault among its users. A task that never ran may
// have stood in the line of a slot, and held none.
bool may_hold(const JobRecord& job) {
  const bool returns = job.state == JobState::queued ||
                       (job.state == JobState::stopping && job.outcome.state == JobState::queued);
  const bool lost = job.outcome.failure == wire::FailureClass::infrastructure ||
                    job.outcome.failure == wire::FailureClass::own;
  return job.terms.kind == "run" && returns && lost && !job.homes.empty() &&
         (!job.array || job.started_unix_ms != 0);
}

// It counts from when the job may be placed again.
Instant end_of_hold(const Desk& desk, const JobRecord& job) {
  const std::int64_t next_try = job.outcome.not_before_unix_ms;
  const auto longest =
      static_cast<std::int64_t>(std::max(job.terms.backoff_first_ms, job.terms.backoff_max_ms) * 2);
  const std::int64_t early = std::clamp<std::int64_t>(next_try - desk.wall.unix_ms, 0, longest);
  return due_after(desk, std::max(job.failure_unix_ms, next_try), job.terms.wait_ms) +
         std::chrono::milliseconds(early);
}

// As long as its programs on lost workers may still run, it cannot be placed either.
void await_fence(Desk& desk, JobId id) {
  const std::optional<Fence> fence = fence_of(desk, id);
  if (!fence || !fence->until) return;
  const Duration more = due_after(desk, desk.wall.unix_ms, desk.job(id).terms.wait_ms) - desk.now;
  std::optional<Instant>& due = desk.soft(id).wait_due;
  if (due) due = std::max(*due, *fence->until + more);
}

void hold_for(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  await_fence(desk, id);
  // Its owner's others have taken its place.
  if (job.state == JobState::queued && exceeds_quota(desk, job)) return;
  GangSeats seats(desk, job, given_back(desk, job));
  seats.take_homes();
  seats.take_others();
}

}  // namespace

bool holds_seats(const Desk& desk, const JobRecord& job) {
  if (!may_hold(job)) return false;
  const auto soft = desk.jobs.find(job.job);
  return soft != desk.jobs.end() && soft->second.wait_due && desk.now < *soft->second.wait_due;
}

void hold_seats(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  JobSoft& soft = desk.soft(id);
  if (!may_hold(job) || soft.wait_due) return;
  const Instant due = end_of_hold(desk, job);
  // One that was over before a restart is over.
  if (due > desk.now || job.terms.loss_then == "fail") soft.wait_due = due;
}

void end_hold(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  JobSoft& soft = desk.soft(id);
  if (!may_hold(job)) return;
  if (job.state == JobState::queued && job.terms.queued_ms_max != 0) {
    soft.queued_due = due_after(desk, desk.wall.unix_ms, job.terms.queued_ms_max);
  }
  desk.touch(id);
  desk.capacity_changed();
  desk.note({.job = id,
             .kind = EventKind::waiting,
             .message = "on_loss.wait is over: its slots are not held for it any more"});
}

std::int64_t held_until_unix_ms(const JobRecord& job) {
  if (!may_hold(job)) return 0;
  return std::max(job.failure_unix_ms, job.outcome.not_before_unix_ms) +
         static_cast<std::int64_t>(job.terms.wait_ms);
}

void place_broken(Desk& desk) {
  Board& board = desk.board;
  std::map<std::string, Amount> old;
  old.swap(board.gang_holds);
  board.gang_seats.clear();
  for (const auto& [node, amount] : old) hold_room(desk, node);
  std::vector<JobId> jobs(board.interrupted.begin(), board.interrupted.end());
  // They go before whoever is new: what is kept for him may be what they lack, while he waits for
  // their end.
  if (!jobs.empty()) drop_reservation(desk);
  std::stable_sort(jobs.begin(), jobs.end(), [&](JobId left, JobId right) {
    return desk.job(left).terms.priority > desk.job(right).terms.priority;
  });
  std::size_t held = 0;
  for (const JobId id : jobs) {
    if (!may_hold(desk.job(id))) {
      place_missing(desk, id);
    } else if (held++ < kGangsHeldMax) {
      hold_for(desk, id);
    }
  }
}

}  // namespace tutti::coordinator
