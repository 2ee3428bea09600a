#include "coordinator/scheduler/room.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "coordinator/cluster/release.h"
#include "coordinator/life/line.h"
#include "coordinator/scheduler/index.h"
#include "coordinator/scheduler/schedule.h"

namespace tutti::coordinator {

using scheduler::Amount;
using scheduler::Board;
using scheduler::Outlook;
using scheduler::Reservation;
using scheduler::Share;

namespace {

// A start that did not come by then was a wrong guess: jobs end later than their limit says when
// their worker is slow to end them.
constexpr std::int64_t kOverrunMs = 60'000;

// Of the seats on this node: what has to be kept now, beyond what the jobs that are to end hold.
Amount held_for(const Desk& desk, const Reservation& reservation, const std::string& node) {
  const auto seat = std::find_if(reservation.seats.begin(), reservation.seats.end(),
                                 [&](const Share& each) { return each.node == node; });
  if (seat == reservation.seats.end()) return {};
  Amount coming;
  const WorkerRecord* worker = desk.durable.worker(node);
  for (const ProcessId id : desk.durable.processes_on(node)) {
    const ProcessRecord& process = *desk.durable.process(id);
    if (worker == nullptr || !reservation.frees.contains(process.job)) continue;
    if (stands_in_line(process)) continue;
    // What it leaves on a device that is too small is not what the seat waits for.
    const scheduler::NodeState* state = desk.board.capacity.node(node);
    if (state != nullptr && !slot_suits(reservation.shape, *state, process.slot)) continue;
    coming += amount_on(*worker, desk.durable.job(process.job));
  }
  return amount_of(reservation.shape, seat->ranks).less(coming);
}

void hold_all(Desk& desk, const std::vector<Share>& seats) {
  for (const Share& seat : seats) hold_room(desk, seat.node);
}

std::uint32_t wanted_by(const JobRecord& job) { return job.terms.ranks_min; }

bool leaves_for_others(const JobRecord& job) {
  return is_releasing(job) && job.release.cause == ReleaseCause::preempted;
}

}  // namespace

void hold_room(Desk& desk, const std::string& node) {
  Board& board = desk.board;
  Amount amount;
  if (board.reservation) amount = held_for(desk, *board.reservation, node);
  const auto gang = board.gang_holds.find(node);
  if (gang != board.gang_holds.end()) amount += gang->second;
  board.capacity.hold(node, amount);
}

void drop_reservation(Desk& desk) {
  if (!desk.board.reservation) return;
  const std::vector<Share> seats = std::move(desk.board.reservation->seats);
  desk.board.reservation.reset();
  hold_all(desk, seats);
}

bool is_reservation_sound(const Desk& desk) {
  const Reservation& reservation = *desk.board.reservation;
  if (!desk.board.queue.contains(reservation.job)) return false;
  if (reservation.start_unix_ms && desk.wall.unix_ms > *reservation.start_unix_ms + kOverrunMs) {
    return false;
  }
  return std::all_of(reservation.seats.begin(), reservation.seats.end(), [&](const Share& seat) {
    const scheduler::NodeState* node = desk.board.capacity.node(seat.node);
    return node != nullptr && node->lasting;
  });
}

void date_reservation(Desk& desk) {
  Board& board = desk.board;
  if (!board.reservation || board.reservation->start_unix_ms) return;
  std::int64_t start = desk.wall.unix_ms;
  for (const JobId id : board.reservation->frees) {
    const auto at = board.counted.find(id);
    if (at == board.counted.end() || at->second.load.slots == 0) continue;
    start = std::max(start, at->second.ends_unix_ms.value_or(scheduler::kNoEnd));
  }
  if (start != scheduler::kNoEnd) {
    board.reservation->start_unix_ms = start;
    return;
  }
  // What has ended since may let it do without those whose end nobody knows.
  if (!board.reservation->preempting) drop_reservation(desk);
}

void reserve(Desk& desk, JobId head) {
  Board& board = desk.board;
  if (board.reservation) {
    if (board.reservation->job == head && is_reservation_sound(desk)) return;
    drop_reservation(desk);
  }
  const JobRecord& job = desk.job(head);
  Reservation made;
  made.job = head;
  made.shape = shape_now(desk, job.terms);
  Outlook outlook(board.capacity, made.shape, wanted_by(job));
  std::int64_t start = desk.wall.unix_ms;
  // Those whose end is known first, by it; then the others, the longest running first.
  for (const auto& [end, id] : board.ends) {
    if (outlook.enough()) break;
    const auto holdings = holdings_of(desk, id);
    if (!outlook.may_help(holdings)) continue;
    outlook.release(holdings);
    made.frees.insert(id);
    start = std::max(start, end);
  }
  made.seats = outlook.choose();
  if (made.seats.empty()) return;
  if (start != scheduler::kNoEnd) made.start_unix_ms = start;
  // Those that were asked to leave before, where the reservation had to be made again.
  made.preempting = !made.frees.empty() &&
                    std::all_of(made.frees.begin(), made.frees.end(),
                                [&](JobId each) { return leaves_for_others(desk.job(each)); });
  board.reservation = std::move(made);
  hold_all(desk, board.reservation->seats);
}

// Preemption --------------------------------------------------------------------------------------

namespace {

struct Victim {
  JobId job;
  std::int32_t priority = 0;
  std::uint64_t lost_slot_ms = 0;  // work that its end undoes
  std::vector<scheduler::Holding> holdings;
};

// A train job saves before it leaves; a program begins anew.
std::uint64_t work_lost(const Desk& desk, const JobRecord& job) {
  if (job.terms.kind == "train" || job.placed_unix_ms == 0) return 0;
  const std::int64_t ran = std::max<std::int64_t>(0, desk.wall.unix_ms - job.placed_unix_ms);
  return static_cast<std::uint64_t>(ran) * job.size;
}

// Who may be asked to leave for the job, in the order in which they are.
std::vector<Victim> victims_for(const Desk& desk, std::int32_t priority) {
  std::vector<Victim> out;
  for (const auto& [its, id] : desk.board.preemptible) {
    if (its >= priority || out.size() == kVictimsLookedAt) break;
    out.push_back({.job = id,
                   .priority = its,
                   .lost_slot_ms = work_lost(desk, desk.job(id)),
                   .holdings = {}});
  }
  std::stable_sort(out.begin(), out.end(), [](const Victim& left, const Victim& right) {
    return std::pair(left.priority, left.lost_slot_ms) <
           std::pair(right.priority, right.lost_slot_ms);
  });
  return out;
}

// As few as possible of them; empty: even all of them would not make room.
std::vector<Victim> choose_victims(Desk& desk, const JobRecord& job, Outlook& outlook) {
  std::vector<Victim> chosen;
  for (Victim& victim : victims_for(desk, job.terms.priority)) {
    if (outlook.enough()) break;
    victim.holdings = holdings_of(desk, victim.job);
    if (!outlook.may_help(victim.holdings)) continue;
    outlook.release(victim.holdings);
    chosen.push_back(std::move(victim));
  }
  if (!outlook.enough()) return {};
  // Those that later ones made unnecessary stay, the dearest first.
  std::vector<Victim> needed;
  for (auto at = chosen.rbegin(); at != chosen.rend(); ++at) {
    outlook.take_back(at->holdings);
    if (outlook.enough()) continue;
    outlook.release(at->holdings);
    needed.push_back(std::move(*at));
  }
  return needed;
}

}  // namespace

void preempt_for(Desk& desk, JobId head) {
  Board& board = desk.board;
  const JobRecord& job = desk.job(head);
  const std::int32_t priority = job.terms.priority;
  if (board.preemptible.empty() || board.preemptible.begin()->first >= priority) return;
  // One that broken gangs went before counts on those that were asked to leave for it.
  if (!board.interrupted.empty()) reserve(desk, head);
  if (board.reservation && board.reservation->job == head) {
    const auto& start = board.reservation->start_unix_ms;
    if (board.reservation->preempting) return;
    if (start && *start <= desk.wall.unix_ms + to_ms(kPreemptPatience)) return;
  }
  drop_reservation(desk);
  Outlook outlook(board.capacity, shape_now(desk, job.terms), wanted_by(job));
  const std::vector<Victim> victims = choose_victims(desk, job, outlook);
  if (victims.empty()) return reserve(desk, head);
  Reservation made;
  made.job = head;
  made.shape = shape_now(desk, job.terms);
  made.seats = outlook.choose();
  made.preempting = true;
  made.start_unix_ms = desk.wall.unix_ms + to_ms(desk.settings.notice);
  for (const Victim& victim : victims) made.frees.insert(victim.job);
  board.reservation = std::move(made);
  hold_all(desk, board.reservation->seats);
  for (const Victim& victim : victims) {
    release_job(desk, victim.job,
                {.to = ReleaseTo::queue,
                 .cause = ReleaseCause::preempted,
                 .reason = fmt::format("preempted: job {} of priority {} needs its slots",
                                       head.value, priority),
                 .notice = {},
                 .keep = {},
                 .newcomers = {}});
    board.stirred_jobs.insert(victim.job);
  }
}

// Growth ------------------------------------------------------------------------------------------

namespace {

void grow(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  const scheduler::Shape shape = shape_of_members(desk, job);
  std::uint64_t more = job.terms.ranks_max - job.size;
  more = std::min(more, desk.board.capacity.sum(shape).now);
  const scheduler::Quota quota = desk.board.quotas.of(job.owner);
  if (quota.slots) {
    const std::uint64_t used = desk.board.users[job.owner].slots;
    more = std::min<std::uint64_t>(more, *quota.slots > used ? *quota.slots - used : 0);
  }
  if (more == 0) return;
  const auto seats = choose_seats(desk, shape, job.terms.policy, static_cast<std::uint32_t>(more));
  if (!seats) return;
  Release release{.to = ReleaseTo::resize,
                  .cause = ReleaseCause::grown,
                  .reason = fmt::format("grows from {} to {} ranks", job.size, job.size + more),
                  .notice = {},
                  .keep = job.members,
                  .newcomers = {}};
  std::uint64_t next = desk.durable.next_process().value;
  for (const Seat& seat : *seats) release.newcomers.push_back(place(desk, ProcessId{next++}, seat));
  release_job(desk, id, std::move(release));
}

}  // namespace

void grow_jobs(Desk& desk) {
  const std::set<JobId> growing = desk.board.growing;
  for (const JobId id : growing) {
    JobSoft& soft = desk.soft(id);
    const bool may = soft.may_grow_at && desk.now >= *soft.may_grow_at;
    if (soft.may_grow_at && !may) continue;
    // Looked at again by then, whatever comes of it now.
    soft.may_grow_at = soft.grow_due = desk.now + desk.settings.grow_after;
    if (!may) continue;
    grow(desk, id);
    refresh_board(desk);
  }
}

}  // namespace tutti::coordinator
