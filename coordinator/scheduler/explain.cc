#include "coordinator/scheduler/explain.h"

#include <fmt/core.h>
#include <boost/describe/enum_to_string.hpp>

#include <algorithm>
#include <map>
#include <utility>

#include "coordinator/cluster/job_life.h"
#include "coordinator/life/admission.h"
#include "coordinator/life/failures.h"
#include "coordinator/life/line.h"
#include "coordinator/scheduler/arrays.h"
#include "coordinator/scheduler/explain/lines.h"
#include "coordinator/scheduler/index.h"
#include "coordinator/scheduler/outlook.h"
#include "coordinator/scheduler/schedule.h"
#include "protocol/base/counted.h"

namespace tutti::coordinator {

using scheduler::JobQueue;
using scheduler::NodeState;
using scheduler::Shape;
using scheduler::Sum;

namespace {

// Of more jobs than that, before it or holding what it needs, the others are not looked at, and no
// start is guessed.
constexpr std::size_t kLookedAt = 1'000;

struct Why {
  ExplainReason reason = ExplainReason::running;
  std::string line;
};

std::string state_word(JobState state) { return boost::describe::enum_to_string(state, "unknown"); }

std::string dependencies_line(const JobRecord& job) {
  std::string out = "waits for";
  for (const Dependency& each : job.dependencies) {
    out += fmt::format("{} job {} ({})", out.ends_with("for") ? "" : ",", each.job.value,
                       each.on == "any"  ? "ended"
                       : each.on == "ok" ? "done"
                                         : "failed");
  }
  return out;
}

std::optional<Why> why_absent(const Desk& desk, const JobRecord& job) {
  switch (absent_from_queue(desk, job)) {
    case Absent::no: return std::nullopt;
    case Absent::not_waiting: return Why{ExplainReason::running, {}};
    case Absent::undecided: return Why{ExplainReason::starting, "is being recorded"};
    case Absent::begin:
      return Why{ExplainReason::begin,
                 fmt::format("starts no earlier than {}",
                             in_time(job.terms.begin_unix_ms - desk.wall.unix_ms))};
    case Absent::backoff:
      return Why{ExplainReason::backoff,
                 fmt::format("waits {:.1f} s before its next try: {}",
                             to_seconds(backoff_left(desk, job)), job.outcome.message)};
    case Absent::dependency: return Why{ExplainReason::dependency, dependencies_line(job)};
    case Absent::at_once:
      return Why{
          ExplainReason::at_once,
          fmt::format("{} of its tasks run, as many as array.at_once allows", job.tasks.active)};
  }
  return std::nullopt;
}

std::optional<Why> why_quota(const Desk& desk, const JobRecord& job) {
  const scheduler::Quota quota = desk.board.quotas.of(job.owner);
  const auto user = desk.board.users.find(job.owner);
  const scheduler::Load load = user == desk.board.users.end() ? scheduler::Load{} : user->second;
  if (quota.running && load.running >= *quota.running) {
    return Why{ExplainReason::quota_running,
               fmt::format("{} may have {} running, and has {}", job.owner,
                           counted(*quota.running, "job"), load.running)};
  }
  if (quota.slots && load.slots + job.terms.ranks_min > *quota.slots) {
    return Why{ExplainReason::quota_slots,
               fmt::format("{} may hold {} and holds {}; this job needs {}", job.owner,
                           counted(*quota.slots, "slot"), load.slots, job.terms.ranks_min)};
  }
  return std::nullopt;
}

// Of a worker that has joined without slots because of its devices.
std::string unusable_devices(const Desk& desk, const JobRecord& job) {
  const std::vector<std::string>& labels = job.terms.labels;
  if (std::find(labels.begin(), labels.end(), "device=gpu") == labels.end()) return {};
  for (const auto& [name, worker] : desk.durable.workers()) {
    if (worker.lost || worker.slots != 0 || worker.device_stack.empty()) continue;
    return fmt::format("; on {} {}", name, worker.device_stack);
  }
  return {};
}

// A job that cannot grow has room for ranks.min and waits a while for all it may have: how many
// there is room for, of how many, and when it starts with them.
struct FullSizeWait {
  std::uint64_t room = 0;
  std::uint32_t full = 0;
  std::int64_t until_unix_ms = 0;
};

std::optional<FullSizeWait> full_size_wait(Desk& desk, const JobRecord& job) {
  const bool waits = job.state == JobState::queued || job.terms.array_count != 0;
  if (!waits || job.terms.kind == "train") return std::nullopt;
  const Sum sum = desk.board.capacity.sum(shape_now(desk, job.terms));
  const auto& reservation = desk.board.reservation;
  const std::uint64_t room = reservation && reservation->job == job.job ? sum.free : sum.now;
  const std::uint32_t full = full_size(desk, job, sum.ever);
  if (room < job.terms.ranks_min || room >= full) return std::nullopt;
  Duration left = kFullSizePatience;
  const auto soft = desk.jobs.find(job.job);
  if (soft != desk.jobs.end() && soft->second.full_size_due) {
    left = std::max(Duration{}, *soft->second.full_size_due - desk.now);
  }
  return FullSizeWait{room, full, desk.wall.unix_ms + to_ms(left)};
}

Why why_room(Desk& desk, const JobRecord& job) {
  const Shape shape = shape_now(desk, job.terms);
  const Sum sum = desk.board.capacity.sum(shape);
  const std::uint32_t wanted = job.terms.ranks_min;
  if (sum.ever < wanted) {
    return {ExplainReason::never_fits, never_fits(desk.board.capacity, shape, job, sum.ever) +
                                           mixed_profiles(desk.board.capacity, shape) +
                                           unusable_devices(desk, job)};
  }
  const auto soft = desk.jobs.find(job.job);
  if (soft != desk.jobs.end() && soft->second.settle_until && job.terms.kind == "run") {
    return {ExplainReason::fenced, soft->second.waiting};
  }
  if (sum.beside_endless < wanted) {
    return {ExplainReason::only_beside_servers, "waits for slots that servers hold"};
  }
  const JobId head = desk.board.head;
  if (head && head != job.job) {
    const auto first = desk.board.queue.turn_of(head);
    const auto own = desk.board.queue.turn_of(job.job);
    if (first && own && *first < *own) {
      return {ExplainReason::behind, fmt::format("waits behind job {}", head.value)};
    }
  }
  if (const auto wait = full_size_wait(desk, job)) {
    return {ExplainReason::room,
            fmt::format("waits up to {} for room for all of its {} ranks, then starts with {}",
                        span(wait->until_unix_ms - desk.wall.unix_ms), wait->full, wait->room)};
  }
  return {ExplainReason::room, waits_for_room(job)};
}

Why why(Desk& desk, const JobRecord& job) {
  if (is_terminal(job.state)) return {ExplainReason::ended, {}};
  if (const auto absent = why_absent(desk, job)) return *absent;
  if (!desk.ledger_failure.empty()) {
    return {ExplainReason::disk, "nothing starts while the coordinator's disk is full"};
  }
  if (const auto quota = why_quota(desk, job)) return *quota;
  return why_room(desk, job);
}

// Who holds what
// -----------------------------------------------------------------------------------

std::optional<std::int64_t> known_end(const Desk& desk, JobId id) {
  const auto at = desk.board.counted.find(id);
  if (at == desk.board.counted.end() || !at->second.ends_unix_ms) return std::nullopt;
  if (*at->second.ends_unix_ms == scheduler::kNoEnd) return std::nullopt;
  return at->second.ends_unix_ms;
}

ExplainHolder holder_of(const Desk& desk, const JobRecord& job, std::uint32_t slots) {
  return {.job = job.job,
          .name = job.terms.name,
          .owner = job.owner,
          .priority = job.terms.priority,
          .slots = slots,
          .ends_unix_ms = known_end(desk, job.job),
          .endless = job.terms.kind == "serve"};
}

// The jobs that slots_of() gives slots, who ends first first; no more than kLookedAt, so that a
// reader of a large cluster does not hold decisions up.
template <class SlotsOf>
std::vector<ExplainHolder> list_holders(const Desk& desk, SlotsOf slots_of) {
  std::vector<ExplainHolder> out;
  const auto list = [&](JobId id) {
    const JobRecord* job = desk.durable.job(id);
    const std::uint32_t slots = job == nullptr ? 0 : slots_of(*job);
    if (slots != 0) out.push_back(holder_of(desk, *job, slots));
    return out.size() < kLookedAt;
  };
  for (const auto& [end, id] : desk.board.ends) {
    if (!list(id)) return out;
  }
  std::vector<JobId> endless;
  for (const auto& [id, counted] : desk.board.counted) {
    if (counted.load.running != 0 && !counted.ends_unix_ms) endless.push_back(id);
  }
  std::sort(endless.begin(), endless.end());
  static_cast<void>(std::all_of(endless.begin(), endless.end(), list));
  return out;
}

// Whose end makes room on a node that suits. A line holds no more than its first one does.
std::vector<ExplainHolder> holders_of(const Desk& desk, const Shape& shape, JobId except) {
  return list_holders(desk, [&](const JobRecord& job) {
    std::uint32_t slots = 0;
    if (job.job == except) return slots;
    for (const scheduler::Holding& each : holdings_of(desk, job.job)) {
      if (desk.board.capacity.fit(shape, each.node).ever == 0) continue;
      slots += static_cast<std::uint32_t>(each.slots.size());
    }
    return slots;
  });
}

// What counts for its owner's quota, wherever it is.
std::vector<ExplainHolder> holders_for(const Desk& desk, const std::string& owner) {
  return list_holders(desk, [&](const JobRecord& job) {
    const auto counted = desk.board.counted.find(job.job);
    const bool counts = counted != desk.board.counted.end() && counted->second.owner == owner;
    return counts ? static_cast<std::uint32_t>(counted->second.load.slots) : 0;
  });
}

// When a job that others are before may start, if it and they and whoever runs have limits: while
// the first of a queue waits, fewer slots are free than it needs, so all others work off what is
// before it. An estimate, since slots differ and others may come before it yet.
std::optional<std::int64_t> start_behind(Desk& desk, const JobRecord& job,
                                         const JobQueue::Ahead& ahead,
                                         const std::vector<ExplainHolder>& holders) {
  if (holders.size() == kLookedAt || ahead.count > ahead.first.size()) return std::nullopt;
  double work_ms = 0;  // slots times time
  for (const ExplainHolder& each : holders) {
    if (each.endless) continue;
    if (!each.ends_unix_ms) return std::nullopt;
    const std::int64_t left = std::max<std::int64_t>(0, *each.ends_unix_ms - desk.wall.unix_ms);
    work_ms += static_cast<double>(left) * each.slots;
  }
  // Who stands in line holds nothing, and has its turn before it unless it makes way for it.
  for (const ProcessId id : desk.board.lined_up) {
    const ProcessRecord* process = desk.durable.process(id);
    const JobRecord* task = process == nullptr ? nullptr : desk.durable.job(process->job);
    if (task == nullptr || task->terms.priority < job.terms.priority) continue;
    if (task->terms.time_ms_max == 0) return std::nullopt;
    work_ms += static_cast<double>(time_left_ms(*task));
  }
  std::uint32_t widest = job.terms.ranks_min;
  for (const JobId id : ahead.first) {
    const JobRecord& other = desk.job(id);
    if (other.terms.time_ms_max == 0 || other.terms.kind == "serve") return std::nullopt;
    const std::uint64_t tasks = std::max<std::uint64_t>(1, other.tasks.waiting);
    work_ms += static_cast<double>(time_left_ms(other)) * static_cast<double>(tasks) *
               other.terms.ranks_min;
    widest = std::max(widest, other.terms.ranks_min);
  }
  const std::uint64_t slots = desk.board.capacity.sum(shape_now(desk, job.terms)).beside_endless;
  if (slots < widest) return std::nullopt;
  const double busy = static_cast<double>(slots - widest + 1);
  return desk.wall.unix_ms + static_cast<std::int64_t>(work_ms / busy);
}

// Who has to end before there is room for it; of a job that others are before: if it were the next.
void forecast(Desk& desk, const JobRecord& job, const JobQueue::Ahead& ahead, Explanation& out) {
  if (out.reason == ExplainReason::room) {
    if (const auto wait = full_size_wait(desk, job)) {
      out.earliest_unix_ms = wait->until_unix_ms;
      return;
    }
  }
  const auto& reservation = desk.board.reservation;
  if (reservation && reservation->job == job.job) {
    out.must_end.assign(reservation->frees.begin(), reservation->frees.end());
    if (reservation->preempting) out.preempts = out.must_end;
    out.earliest_unix_ms = reservation->start_unix_ms;
    return;
  }
  scheduler::Outlook outlook(desk.board.capacity, shape_now(desk, job.terms), out.ranks_min);
  std::int64_t start = desk.wall.unix_ms;
  for (const auto& [end, id] : desk.board.ends) {
    if (outlook.enough()) break;
    const auto holdings = holdings_of(desk, id);
    if (!outlook.may_help(holdings)) continue;
    outlook.release(holdings);
    out.must_end.push_back(id);
    start = std::max(start, end);
  }
  if (out.reason == ExplainReason::behind) {
    out.earliest_unix_ms = start_behind(desk, job, ahead, out.holders);
  } else if (outlook.enough() && start != scheduler::kNoEnd) {
    out.earliest_unix_ms = start;
  }
}

// Which jobs of its owner, those that end first, have to end before its quota lets it start.
void forecast_quota(const Desk& desk, const JobRecord& job, Explanation& out) {
  const scheduler::Quota quota = desk.board.quotas.of(job.owner);
  const auto user = desk.board.users.find(job.owner);
  scheduler::Load load = user == desk.board.users.end() ? scheduler::Load{} : user->second;
  const auto exceeds = [&] {
    return (quota.running && load.running >= *quota.running) ||
           (quota.slots && load.slots + job.terms.ranks_min > *quota.slots);
  };
  std::optional<std::int64_t> start = desk.wall.unix_ms;
  for (const ExplainHolder& each : out.holders) {
    if (!exceeds()) break;
    const auto held = desk.board.counted.find(each.job);
    if (held == desk.board.counted.end()) continue;
    load.running -= std::min(load.running, held->second.load.running);
    load.slots -= std::min(load.slots, held->second.load.slots);
    out.must_end.push_back(each.job);
    start = start && each.ends_unix_ms ? std::optional(std::max(*start, *each.ends_unix_ms))
                                       : std::nullopt;
  }
  if (!exceeds()) out.earliest_unix_ms = start;
}

std::optional<std::int64_t> end_of_dependencies(const Desk& desk, const JobRecord& job) {
  std::int64_t latest = desk.wall.unix_ms;
  for (const Dependency& each : job.dependencies) {
    const std::optional<std::int64_t> end = known_end(desk, each.job);
    if (!end) return std::nullopt;
    latest = std::max(latest, *end);
  }
  return latest;
}

void list_workers(Desk& desk, const Shape& shape, Explanation& out) {
  std::map<std::string, std::size_t> lacking;
  for (const NodeState* node : desk.board.capacity.all()) {
    const std::string reason = desk.board.capacity.why_not(shape, *node);
    if (reason.empty()) continue;
    if (node->usable && node->used.slots < node->total.slots) ++lacking[reason];
    if (out.workers.size() == kListedInLines) {
      ++out.workers_left_out;
      continue;
    }
    out.workers.push_back({.worker = node->name,
                           .ranks = desk.board.capacity.fit(shape, node->name).now,
                           .why = reason});
  }
  if (out.ranks_free < out.ranks_min) {
    out.missing.push_back(counted(out.ranks_min - out.ranks_free, "slot") + " more");
  }
  for (const auto& [reason, count] : lacking) {
    if (out.missing.size() > kListedInLines) break;
    out.missing.push_back(
        fmt::format("on {} with a free slot: {}", counted(count, "worker"), reason));
  }
}

void explain_room(Desk& desk, const JobRecord& job, const JobQueue::Ahead& ahead,
                  Explanation& out) {
  const Shape shape = shape_now(desk, job.terms);
  const Sum sum = desk.board.capacity.sum(shape);
  out.ranks_free = static_cast<std::uint32_t>(sum.now);
  out.ranks_possible = static_cast<std::uint32_t>(sum.ever);
  list_workers(desk, shape, out);
  const bool quota =
      out.reason == ExplainReason::quota_running || out.reason == ExplainReason::quota_slots;
  out.holders = quota ? holders_for(desk, job.owner) : holders_of(desk, shape, job.job);
  if (out.reason == ExplainReason::room || out.reason == ExplainReason::behind) {
    forecast(desk, job, ahead, out);
  } else if (out.reason == ExplainReason::dependency) {
    out.earliest_unix_ms = end_of_dependencies(desk, job);
  } else if (out.reason == ExplainReason::begin) {
    out.earliest_unix_ms = job.terms.begin_unix_ms;
  } else if (out.reason == ExplainReason::backoff) {
    out.earliest_unix_ms = desk.wall.unix_ms + to_ms(backoff_left(desk, job));
  } else if (quota) {
    forecast_quota(desk, job, out);
  }
}

// Ranks of a job that holds slots and waits for more: those that were lost.
std::uint32_t ranks_lost(const JobRecord& job) {
  const bool waits = (job.state == JobState::placed || job.state == JobState::starting ||
                      job.state == JobState::recovering) &&
                     job.generation && !job.generation_alive;
  if (!waits) return 0;
  return static_cast<std::uint32_t>(
      std::count(job.members.begin(), job.members.end(), ProcessId{}));
}

void set_wishes(const JobRecord& job, Explanation& out) {
  out.state = job.state;
  out.ranks_min = job.terms.ranks_min;
  out.ranks_max = job.terms.ranks_max;
}

// When waiting will put it before all that have not waited for a day; never, while tasks of it run.
std::optional<std::int64_t> overdue_at(const JobRecord& job) {
  if (job.state != JobState::queued || job.tasks.active != 0) return std::nullopt;
  return waits_since(job) + scheduler::kOverdueAfterMs;
}

// Of those behind it the one that passes it first, as each lane's first is its oldest.
void set_passed(const Desk& desk, const JobRecord& job, const scheduler::JobQueue::Turn& own,
                ExplainTurn& out) {
  const scheduler::JobQueue& queue = desk.board.queue;
  for (auto head = queue.after(own); head; head = queue.next(*head)) {
    if (head->turn.tier != own.tier) continue;
    const JobRecord* other = desk.durable.job(head->job);
    if (other == nullptr || other == &job) continue;
    const auto at = overdue_at(*other);
    const auto sooner = out.passed_unix_ms ? out.passed_unix_ms : out.overdue_unix_ms;
    if (!at || (sooner && *at >= *sooner)) continue;
    out.passed_by = head->job;
    out.passed_unix_ms = at;
  }
}

void set_turn(const Desk& desk, const JobRecord& job, const std::vector<JobId>& ahead,
              ExplainTurn& out) {
  const auto own = desk.board.queue.turn_of(job.job);
  if (!own || job.state != JobState::queued) return;
  out.waited_ms = std::max<std::int64_t>(0, desk.wall.unix_ms - waits_since(job));
  out.overdue = own->tier == 1;
  if (own->tier != 2) return;
  out.fair_delay_ms = std::max<std::int64_t>(0, own->since_unix_ms - job.submitted_unix_ms);
  out.overdue_unix_ms = overdue_at(job);
  set_passed(desk, job, *own, out);
  if (!out.overdue_unix_ms) return;
  out.passes_of = static_cast<std::uint32_t>(ahead.size());
  for (const JobId id : ahead) {
    const auto turn = desk.board.queue.turn_of(id);
    const JobRecord* other = desk.durable.job(id);
    if (!turn || turn->tier != 2 || other == nullptr) continue;
    // Of two that have waited a day the one that was submitted first is first.
    const auto at = overdue_at(*other);
    const bool stays =
        at && *at <= *out.overdue_unix_ms &&
        std::pair(other->submitted_unix_ms, id) < std::pair(job.submitted_unix_ms, job.job);
    if (!stays) ++out.passes;
  }
}

void set_position(const Desk& desk, const JobRecord& job, const JobQueue::Ahead& ahead,
                  Explanation& out) {
  out.position = static_cast<std::uint32_t>(ahead.count + 1);
  out.ahead.assign(ahead.first.begin(),
                   ahead.first.begin() +
                       static_cast<std::ptrdiff_t>(std::min(kListedInLines, ahead.first.size())));
  set_turn(desk, job, ahead.first, out.turn);
}

}  // namespace

std::string waiting_line(Desk& desk, const JobRecord& job) {
  if (is_terminal(job.state)) return {};
  const std::string line = why(desk, job).line;
  if (!line.empty()) return line;
  const auto soft = desk.jobs.find(job.job);
  return soft == desk.jobs.end() ? std::string() : soft->second.waiting;
}

Explanation explain(Desk& desk, JobId id) {
  Explanation out;
  out.job = id;
  const JobRecord* job = desk.durable.job(id);
  if (job == nullptr) {
    const auto task = task_detail(desk, id);
    if (!task) return out;
    if (task->waiting.empty()) {
      out.state = task->summary.state;
      out.reason = ExplainReason::ended;
      out.summary = fmt::format("is {}", state_word(out.state));
      out.lines.push_back(fmt::format("job {}: {}", id.value, out.summary));
      return out;
    }
    // What its array waits for, it waits for.
    out = explain(desk, array_of(desk, id)->job);
    out.job = id;
    out.lines.insert(out.lines.begin(), fmt::format("job {}: {}", id.value, task->waiting));
    return out;
  }
  set_wishes(*job, out);
  out.reason = why(desk, *job).reason;
  out.summary = waiting_line(desk, *job);
  if (out.summary.empty()) {
    out.summary = fmt::format("is {}{}{}", state_word(job->state),
                              job->outcome.message.empty() || !is_terminal(job->state) ? "" : ": ",
                              is_terminal(job->state) ? job->outcome.message : std::string());
  }
  const JobQueue::Ahead ahead = desk.board.queue.ahead_of(id, kLookedAt);
  if (desk.board.queue.contains(id)) set_position(desk, *job, ahead, out);
  const std::uint32_t lost = ranks_lost(*job);
  if (lost != 0) {
    out.reason = ExplainReason::room;
    out.ranks_min = out.ranks_max = lost;
  }
  if (job->state == JobState::queued || out.position != 0 || lost != 0) {
    explain_room(desk, *job, ahead, out);
  }
  write_lines(desk, out);
  return out;
}

Result<Explanation> plan(Desk& desk, const std::string& owner, const spec::JobSpec& spec) {
  const Result<JobTerms> terms = terms_of(spec, desk.wall);
  if (!terms) return terms.error();
  if (Result<> admitted = admit(desk, owner, *terms); !admitted) return admitted.error();
  JobRecord job;
  job.job = desk.durable.next_job();
  job.owner = owner;
  job.terms = *terms;
  job.submitted_unix_ms = desk.wall.unix_ms;
  job.queued_unix_ms = desk.wall.unix_ms;
  job.dependencies = terms->after;
  job.tasks.waiting = terms->array_count;
  Explanation out;
  set_wishes(job, out);
  Why first;
  {
    // It takes its place for as long as it is looked at.
    scheduler::JobQueue& queue = desk.board.queue;
    const bool queued = absent_from_queue(desk, job) == Absent::no;
    if (queued) queue.put(job.job, lane_of(desk, job), job.submitted_unix_ms);
    const JobQueue::Ahead ahead = queue.ahead_of(job.job, kLookedAt);
    if (queued) set_position(desk, job, ahead, out);
    first = why(desk, job);
    out.reason = first.reason;
    explain_room(desk, job, ahead, out);
    queue.erase(job.job);
  }
  if (out.reason == ExplainReason::room && out.ranks_free >= job.terms.ranks_min &&
      !full_size_wait(desk, job)) {
    out.reason = ExplainReason::now;
    first.line = "starts at once";
    out.must_end.clear();
    out.holders.clear();
    out.earliest_unix_ms = desk.wall.unix_ms;
    out.position = 0;
  }
  out.summary = first.line;
  write_lines(desk, out);
  return out;
}

}  // namespace tutti::coordinator
