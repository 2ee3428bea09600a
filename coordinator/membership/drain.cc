#include "coordinator/membership/drain.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>
#include <utility>

#include "coordinator/cluster/orders.h"
#include "coordinator/cluster/release.h"
#include "coordinator/life/starts.h"
#include "coordinator/membership/quarantine.h"
#include "coordinator/scheduler/index.h"
#include "coordinator/scheduler/schedule.h"

namespace tutti::coordinator {

namespace {

// Stopped hard so long before the deadline, so that the node is empty by it: ending and reaping
// takes a moment.
constexpr Duration kEndSlack = std::chrono::seconds(2);

// `asked` says why, and what ends it.
void drain(Desk& desk, const std::string& worker, Drain asked, Duration within) {
  asked.since_unix_ms = desk.wall.unix_ms;
  asked.due_unix_ms = desk.wall.unix_ms + to_ms(within);
  asked.leaving = desk.durable.worker(worker)->drain.leaving || asked.cause == DrainCause::leaving;
  desk.record(NodeDraining{.worker = worker, .drain = std::move(asked)});
  const WorkerRecord& record = *desk.durable.worker(worker);
  const bool aside = record.drain.cause == DrainCause::quarantine;
  std::string message = fmt::format("worker {}: {}", worker, record.drain.reason);
  if (aside) message += "; it takes work again " + what_ends(record);
  desk.note({.job = {},
             .kind = aside ? EventKind::quarantined : EventKind::draining,
             .message = std::move(message),
             .worker = worker});
  desk.capacity_changed();
}

// What a job on the node has left of the deadline.
Duration notice_of(const Desk& desk, const Drain& drain) {
  // Never more than the whole of it, also where the time of day was set back meanwhile.
  const std::int64_t left_ms =
      std::min(drain.due_unix_ms - desk.wall.unix_ms, drain.due_unix_ms - drain.since_unix_ms);
  const Duration left = std::chrono::milliseconds(left_ms);
  const Duration slack = std::min<Duration>(kEndSlack, left / 4);
  return std::max<Duration>(std::chrono::milliseconds(1), left - slack);
}

// A move has half of what is left, so that what comes to nothing can still leave by the queue; with
// less than this for it, there is no move.
constexpr Duration kMoveMin = std::chrono::seconds(3);

bool is_drained(const Desk& desk, ProcessId process) {
  const ProcessRecord* record = desk.durable.process(process);
  return record != nullptr && desk.durable.draining().contains(record->worker);
}

// Whether all that the job will go on with is on nodes that stay.
bool is_moving_off(const Desk& desk, const JobRecord& job) {
  const std::vector<ProcessId>& next = job.release.next;
  return job.release.to == ReleaseTo::resize &&
         std::none_of(next.begin(), next.end(),
                      [&](ProcessId process) { return is_drained(desk, process); });
}

// Newcomers elsewhere take the place of the ranks that are on drained nodes, as far as there is
// room and at least up to ranks.min; the others go on with their state. Whether that is under way.
// A server's only rank is replaced as well, and ends once the other one serves; a training job that
// would keep none of its ranks has nothing to gain by it.
bool move_ranks(Desk& desk, JobId id, const std::string& reason, Duration left) {
  const JobRecord& job = desk.job(id);
  const bool serves = job.terms.kind == "serve";
  if ((!serves && job.terms.kind != "train") || left / 2 < kMoveMin) return false;
  if (job.state != JobState::running || !job.generation_alive || !job.formed) return false;
  std::vector<ProcessId> keep;
  for (const ProcessId member : job.members) {
    if (!is_drained(desk, member)) keep.push_back(member);
  }
  if (keep.empty() && !serves) return false;
  refresh_board(desk);
  const scheduler::Shape shape = shape_of_members(desk, job);
  const std::uint64_t away = job.members.size() - keep.size();
  const auto room = static_cast<std::uint32_t>(std::min(away, desk.board.capacity.sum(shape).now));
  if (keep.size() + room < job.terms.ranks_min) return false;
  std::vector<Placement> newcomers;
  if (room != 0) {
    const auto seats = choose_seats(desk, shape, job.terms.policy, room);
    if (!seats) return false;
    std::uint64_t next = desk.durable.next_process().value;
    for (const Seat& seat : *seats) newcomers.push_back(place(desk, ProcessId{next++}, seat));
  }
  release_job(desk, id,
              {.to = ReleaseTo::resize,
               .cause = ReleaseCause::moved,
               .reason = reason,
               .notice = left / 2,
               .keep = std::move(keep),
               .newcomers = std::move(newcomers)});
  refresh_board(desk);
  return desk.job(id).release.to == ReleaseTo::resize;
}

// What becomes of a process that its job wants, on a node that is drained.
void leave_node(Desk& desk, const ProcessRecord& process, const std::string& reason,
                Duration left) {
  const JobRecord& job = desk.job(process.job);
  const bool resizes = job.release.to == ReleaseTo::resize;
  if (!is_member(job, process.process)) {
    // A newcomer; or one that serves until its successor does, and ends then.
    if (resizes && process.generation > job.generation) drop_resize(desk, job.job, reason);
    return;
  }
  if (is_moving_off(desk, job)) return;
  if (is_releasing(job) && !resizes) return hasten_release(desk, job.job, left);
  if (resizes) {
    const bool waits = job.release.next.size() > job.members.size();
    drop_resize(desk, job.job, reason);
    // Its newcomers are about to give back the room that a move needs.
    if (waits && left / 2 >= kMoveMin) return;
  }
  if (move_ranks(desk, job.job, reason, left)) return;
  release_job(desk, job.job,
              {.to = ReleaseTo::queue,
               .cause = ReleaseCause::drained,
               .reason = reason,
               .notice = left,
               .keep = {},
               .newcomers = {}});
}

void move_away(Desk& desk, const std::string& worker) {
  const Drain drain = desk.durable.worker(worker)->drain;
  const std::set<ProcessId> processes = desk.durable.processes_on(worker);
  if (processes.empty()) {
    if (drain.empty_unix_ms != 0) return;
    Drain empty = drain;
    empty.empty_unix_ms = desk.wall.unix_ms;
    desk.record(NodeDraining{.worker = worker, .drain = std::move(empty)});
    desk.note({.job = {},
               .kind = EventKind::drained,
               .message = fmt::format("worker {} is empty", worker),
               .worker = worker});
    return;
  }
  const std::string reason = fmt::format("worker {} is drained: {}", worker, drain.reason);
  for (const ProcessId process : processes) {
    const ProcessRecord* record = desk.durable.process(process);
    if (record == nullptr || record->lost) continue;
    const JobRecord* job = desk.durable.job(record->job);
    if (job != nullptr && job->state == JobState::stopping) {
      // It may have been given longer by whoever stopped it.
      hasten_release(desk, job->job, notice_of(desk, drain));
      continue;
    }
    if (job == nullptr || !is_wanted(job, *record)) continue;
    leave_node(desk, *record, reason, notice_of(desk, drain));
  }
}

}  // namespace

void set_aside(Desk& desk, const std::string& worker, const std::string& reason, Duration steady) {
  drain(desk, worker,
        {.cause = DrainCause::quarantine,
         .reason = reason,
         .steady_ms = static_cast<std::uint64_t>(to_ms(steady))},
        desk.settings.drain);
}

void advance_drains(Desk& desk) {
  const std::set<std::string> draining = desk.durable.draining();
  for (const std::string& worker : draining) move_away(desk, worker);
}

void on_drain(Desk& desk, const DrainNode& input) {
  if (desk.durable.worker(input.node) == nullptr) {
    return desk.refuse(input.request, ErrorCode::not_found,
                       fmt::format("there is no node {}", input.node));
  }
  const Duration within = input.deadline_ms == 0
                              ? desk.settings.drain
                              : Duration(std::chrono::milliseconds(input.deadline_ms));
  desk.answer(input.request, Done{});
  drain(desk, input.node,
        {.cause = DrainCause::asked, .reason = input.reason.empty() ? "drained" : input.reason},
        within);
}

void on_undrain(Desk& desk, const UndrainNode& input) {
  const WorkerRecord* worker = desk.durable.worker(input.node);
  if (worker == nullptr) {
    return desk.refuse(input.request, ErrorCode::not_found,
                       fmt::format("there is no node {}", input.node));
  }
  desk.answer(input.request, Done{});
  forget_refusals_by(desk, input.node);
  if (!worker->draining() && worker->blames.empty()) return;
  // That it is about to leave is not the operator's to lift: what is placed there is refused.
  Drain leaves = worker->drain;
  desk.record(NodeUndrained{.worker = input.node});
  if (leaves.leaving) {
    leaves.cause = DrainCause::leaving;
    desk.record(NodeDraining{.worker = input.node, .drain = leaves});
  }
  desk.note({.job = {},
             .kind = EventKind::undrained,
             .message = fmt::format("worker {} takes work again{}", input.node,
                                    leaves.leaving ? " once it is back" : ""),
             .worker = input.node});
  desk.capacity_changed();
}

void on_leaving(Desk& desk, const WorkerLink& link, const wire::WorkerLeaving& report) {
  const auto at = desk.worker_of_peer.find(link.peer);
  if (at == desk.worker_of_peer.end()) return;
  const WorkerRecord* worker = desk.durable.worker(at->second);
  if (worker == nullptr) return;
  // Who drained it wants it to be so when it is back, too.
  const Drain before = worker->drain;
  drain(desk, at->second,
        {.cause = DrainCause::leaving,
         .reason = report.reason.empty() ? "it was told to stop" : report.reason},
        std::chrono::milliseconds(report.deadline_ms));
  if (before.cause == DrainCause::none || before.cause == DrainCause::leaving) return;
  Drain both = worker->drain;
  both.cause = before.cause;
  both.steady_ms = before.steady_ms;
  desk.record(NodeDraining{.worker = at->second, .drain = std::move(both)});
}

}  // namespace tutti::coordinator
