#include "coordinator/scheduler/index.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "coordinator/cluster/release.h"
#include "coordinator/life/broken_gangs.h"
#include "coordinator/life/failures.h"
#include "coordinator/life/line.h"
#include "coordinator/membership/membership.h"
#include "coordinator/scheduler/fair_share.h"
#include "coordinator/scheduler/policies/together.h"
#include "coordinator/scheduler/room.h"

namespace tutti::coordinator {

using scheduler::Amount;
using scheduler::Board;
using scheduler::Counted;
using scheduler::LaneKey;
using scheduler::Load;
using scheduler::NodeState;
using scheduler::Shape;

namespace {

constexpr std::int64_t kFairShareEveryMs = 60'000;
// What the time of day may go on, or back, by itself before limits by it are looked at again.
constexpr std::int64_t kClockStepMs = 1'000;

bool is_array(const JobRecord& job) { return job.terms.array_count != 0; }

bool holds_slots(const JobRecord& job) {
  return !is_array(job) && job.state != JobState::queued && !is_terminal(job.state);
}

void note_devices(const WorkerRecord& worker, NodeState& out) {
  if (worker.devices.empty()) return;
  // A slot beyond its devices has none.
  for (std::uint32_t slot = 0; slot < worker.slots; ++slot) {
    out.devices.push_back(slot < worker.devices.size() ? worker.devices[slot].memory_bytes : 0);
  }
  const auto [least, most] = std::minmax_element(out.devices.begin(), out.devices.end());
  if (least == out.devices.end()) return;
  out.device_memory_bytes = *least;
  if (*least == *most) out.devices.clear();
}

NodeState node_state(const Desk& desk, const WorkerRecord& worker) {
  NodeState out;
  out.name = worker.worker;
  out.labels = worker.labels;
  out.programs = worker.runs_programs;
  if (!worker.profiles.empty()) out.profiles = worker.profiles;
  out.exchange = worker.exchange;
  note_devices(worker, out);
  out.lasting = !worker.draining();
  out.usable = out.lasting && is_reachable(desk, worker.worker);
  out.total = {.slots = worker.slots, .cores = worker.cores, .memory_bytes = worker.memory_bytes};
  const auto take = [&](std::uint32_t slot, const JobRecord* job) {
    Amount amount = amount_on(worker, job);
    if (slot >= worker.slots) amount.slots = 0;
    out.used += amount;
    out.taken.push_back(slot);
    if (job != nullptr && job->terms.kind == "serve") {
      out.endless += amount;
      out.endless_slots.push_back(slot);
    }
  };
  for (const ProcessId id : desk.durable.processes_on(worker.worker)) {
    const ProcessRecord& process = *desk.durable.process(id);
    // A line takes what its first one does.
    if (process.lined_up &&
        std::find(out.taken.begin(), out.taken.end(), process.slot) != out.taken.end()) {
      continue;
    }
    take(process.slot, desk.durable.job(process.job));
  }
  const auto link = desk.links.find(worker.worker);
  if (link != desk.links.end()) {
    for (const auto& [id, slot] : link->second.strangers) take(slot, nullptr);
    out.islands = scheduler::islands_of(worker.devices, link->second.readings);
    out.sockets = scheduler::sockets_of(worker.devices, link->second.readings);
    out.speeds = scheduler::speeds_of(worker.devices, link->second.readings);
  }
  std::sort(out.taken.begin(), out.taken.end());
  std::sort(out.endless_slots.begin(), out.endless_slots.end());
  out.taken.erase(std::unique(out.taken.begin(), out.taken.end()), out.taken.end());
  return out;
}

}  // namespace

Duration longest_start(const Desk& desk, const Shape& shape) {
  if (shape.programs) return Duration{};
  return desk.settings.start_max + kStartSlack + desk.settings.form_max;
}

namespace {

// One whose seats are held comes back to them.
bool leaves(const Desk& desk, const JobRecord& job) {
  return job.state == JobState::stopping && !holds_seats(desk, job);
}

// When it lets go of its slots at the latest; kNoEnd: nobody knows; nothing: never by itself.
std::optional<std::int64_t> end_of(const Desk& desk, const JobRecord& job) {
  if (leaves(desk, job)) return desk.wall.unix_ms + to_ms(desk.settings.stop_grace);
  std::int64_t end = scheduler::kNoEnd;
  if (job.release.to == ReleaseTo::queue || job.release.to == ReleaseTo::end) {
    end = job.release.due_unix_ms;
  } else if (job.terms.kind == "serve") {
    return std::nullopt;
  }
  if (job.terms.time_ms_max != 0) {
    const std::int64_t begun = job.running_unix_ms != 0
                                   ? job.running_unix_ms
                                   : std::max(job.placed_unix_ms, job.submitted_unix_ms) +
                                         to_ms(longest_start(desk, shape_of(job.terms)));
    end = std::min(end, begun + static_cast<std::int64_t>(time_left_ms(job)));
  }
  return end;
}

Counted count(const Desk& desk, const JobRecord& job) {
  Counted out;
  out.owner = job.owner;
  if (is_array(job)) {
    out.load.queued = job.tasks.waiting;
    return out;
  }
  const bool comes_back = holds_seats(desk, job);
  out.interrupted = comes_back;
  if (job.state == JobState::queued) {
    out.load.queued = 1;
    return out;
  }
  if (!holds_slots(job)) return out;
  // Newcomers hold their slots before the job has its new size.
  out.load.slots = std::max<std::uint64_t>(job.size, job.release.next.size());
  out.load.running = 1;
  const bool waits = job.generation && !job.generation_alive && job.state != JobState::stopping &&
                     !is_releasing(job);
  out.interrupted = waits || comes_back;
  out.leaves = leaves(desk, job);
  out.ends_unix_ms = end_of(desk, job);
  if (job.state == JobState::stopping || is_releasing(job)) return out;
  const std::uint32_t most = job.terms.preemptions_max;
  if (job.terms.preemptible && (most == 0 || job.preemptions < most)) {
    out.may_be_preempted = job.terms.priority;
  }
  out.growing = job.state == JobState::running && job.formed && job.terms.kind == "train" &&
                job.size < job.terms.ranks_max;
  return out;
}

// What has been charged, and what is being used: a job is charged when it ends, or changes its
// size.
std::map<std::string, UsageRecord> usage_now(const Desk& desk) {
  std::map<std::string, UsageRecord> out = desk.durable.usage();
  for (const auto& [id, counted] : desk.board.counted) {
    const JobRecord* job = counted.load.running == 0 ? nullptr : desk.durable.job(id);
    if (job == nullptr || job->placed_unix_ms == 0) continue;
    scheduler::add_use(out[counted.owner],
                       scheduler::use_of_held(job->size, job->placed_unix_ms, desk.wall.unix_ms),
                       desk.wall.unix_ms);
  }
  return out;
}

void add(Load& sum, const Load& load) {
  sum.slots += load.slots;
  sum.running += load.running;
  sum.queued += load.queued;
}

void forget(Board& board, JobId id) {
  const auto at = board.counted.find(id);
  if (at == board.counted.end()) return;
  const Counted& old = at->second;
  const auto user = board.users.find(old.owner);
  user->second.slots -= old.load.slots;
  user->second.running -= old.load.running;
  user->second.queued -= old.load.queued;
  if (user->second == Load{}) board.users.erase(user);
  board.interrupted.erase(id);
  board.growing.erase(id);
  if (old.ends_unix_ms) board.ends.erase({*old.ends_unix_ms, id});
  if (old.may_be_preempted) board.preemptible.erase({*old.may_be_preempted, id});
  board.counted.erase(at);
}

void refresh_job(Desk& desk, JobId id) {
  Board& board = desk.board;
  const auto known = board.counted.find(id);
  std::int64_t told = scheduler::kNoEnd;
  if (known != board.counted.end() && known->second.leaves) told = *known->second.ends_unix_ms;
  forget(board, id);
  const JobRecord* job = desk.durable.job(id);
  if (job == nullptr || is_terminal(job->state)) {
    board.queue.erase(id);
    return;
  }
  Counted counted = count(desk, *job);
  // It has one grace, and not one more each time that one of its ranks has ended.
  if (counted.leaves && told > desk.wall.unix_ms) {
    counted.ends_unix_ms = std::min(told, *counted.ends_unix_ms);
  }
  add(board.users[counted.owner], counted.load);
  if (counted.interrupted) board.interrupted.insert(id);
  if (counted.growing) board.growing.insert(id);
  if (counted.ends_unix_ms) board.ends.emplace(*counted.ends_unix_ms, id);
  if (counted.may_be_preempted) board.preemptible.emplace(*counted.may_be_preempted, id);
  board.counted.emplace(id, std::move(counted));
  const Absent absent = absent_from_queue(desk, *job);
  if (absent == Absent::undecided) {
    // Not placed before its submit is durable, so that it can still be taken back.
    board.stirred_jobs.insert(id);
    desk.schedule_next = true;
  }
  JobSoft& soft = desk.soft(id);
  const auto at_wall = [&](std::int64_t unix_ms) {
    return desk.now +
           std::chrono::milliseconds(std::max<std::int64_t>(0, unix_ms - desk.wall.unix_ms));
  };
  soft.begin_due.reset();
  soft.overdue_due.reset();
  if (absent == Absent::begin) soft.begin_due = at_wall(job->terms.begin_unix_ms);
  if (absent == Absent::backoff) soft.begin_due = desk.now + backoff_left(desk, *job);
  if (absent != Absent::no) {
    board.queue.erase(id);
  } else {
    const std::int64_t overdue = waits_since(*job) + scheduler::kOverdueAfterMs;
    if (job->state == JobState::queued && overdue > desk.wall.unix_ms) {
      soft.overdue_due = at_wall(overdue);
    }
    // A task that comes back goes before those that wait in its array.
    board.queue.put(id, lane_of(desk, *job), job->submitted_unix_ms - (job->array ? 1 : 0));
  }
}

}  // namespace

std::int64_t waits_since(const JobRecord& job) {
  return std::max({job.queued_unix_ms, job.submitted_unix_ms, job.terms.begin_unix_ms});
}

std::uint64_t time_left_ms(const JobRecord& job) {
  const std::uint64_t limit = job.terms.time_ms_max;
  return limit == 0 ? 0 : limit - std::min(limit - 1, job.ran_ms);
}

LaneKey lane_of(const Desk& desk, const JobRecord& job) {
  LaneKey lane;
  lane.owner = job.owner;
  lane.broken = holds_seats(desk, job);
  lane.overdue = desk.wall.unix_ms - waits_since(job) >= scheduler::kOverdueAfterMs &&
                 job.tasks.active == 0 && job.state == JobState::queued;
  lane.priority = job.terms.priority;
  lane.ranks_min = job.terms.ranks_min;
  lane.ranks_max = job.terms.ranks_max;
  lane.time_ms = time_left_ms(job);
  lane.policy = job.terms.policy;
  lane.shape = shape_of(job.terms);
  return lane;
}

Shape shape_of(const JobTerms& terms) {
  Shape shape;
  shape.cores = terms.cores;
  shape.memory_bytes = terms.memory_bytes;
  shape.device_memory_bytes = terms.device_memory_bytes;
  shape.programs = terms.kind == "run";
  shape.labels = terms.labels;
  shape.prefer = terms.prefer;
  if (!shape.programs) shape.precision = terms.precision;
  shape.one_profile = terms.kind == "train";
  shape.profile = terms.profile;
  shape.avoid = terms.avoid;
  return shape;
}

Shape shape_of_members(Desk& desk, const JobRecord& job) {
  Shape shape = shape_now(desk, job.terms);
  if (!shape.one_profile) return shape;
  for (const ProcessId id : desk.durable.processes_of(job.job)) {
    const ProcessRecord& process = *desk.durable.process(id);
    const WorkerRecord* const worker = desk.durable.worker(process.worker);
    if (process.lost || worker == nullptr) continue;
    shape.exchange = worker->exchange;
    break;
  }
  return shape;
}

Shape shape_now(Desk& desk, const JobTerms& terms) {
  return in_one_profile(desk.board.capacity, shape_of(terms), terms.ranks_min);
}

Amount amount_on(const WorkerRecord& worker, const JobRecord* job) {
  Amount out{.slots = 1, .cores = worker.slots == 0 ? 0 : worker.cores / worker.slots};
  if (job == nullptr) return out;
  if (job->terms.cores != 0) out.cores = job->terms.cores;
  out.memory_bytes = job->terms.memory_bytes;
  return out;
}

std::vector<scheduler::Holding> holdings_of(const Desk& desk, JobId id) {
  std::vector<scheduler::Holding> out;
  const JobRecord* job = desk.durable.job(id);
  for (const ProcessId each : desk.durable.processes_of(id)) {
    const ProcessRecord& process = *desk.durable.process(each);
    const WorkerRecord* worker = desk.durable.worker(process.worker);
    if (worker != nullptr && !stands_in_line(process))
      out.push_back({process.worker, amount_on(*worker, job), {process.slot}});
  }
  return out;
}

bool is_reachable(const Desk& desk, const std::string& worker) {
  const auto at = desk.links.find(worker);
  return at != desk.links.end() && at->second.open && !at->second.disconnected &&
         !is_suspect(desk, at->second);
}

Absent absent_from_queue(const Desk& desk, const JobRecord& job) {
  const bool waits = is_array(job) ? job.tasks.waiting > 0 && job.state != JobState::stopping
                                   : job.state == JobState::queued;
  if (!waits || is_terminal(job.state)) return Absent::not_waiting;
  const auto soft = desk.jobs.find(job.job);
  if (soft != desk.jobs.end() && soft->second.decision > desk.durable_through) {
    return Absent::undecided;
  }
  if (job.terms.begin_unix_ms > desk.wall.unix_ms) return Absent::begin;
  if (backoff_left(desk, job) > Duration{}) return Absent::backoff;
  if (!job.dependencies.empty()) return Absent::dependency;
  if (job.terms.array_at_once != 0 && job.tasks.active >= job.terms.array_at_once) {
    return Absent::at_once;
  }
  return Absent::no;
}

void refresh_worker(Desk& desk, const std::string& name) {
  const WorkerRecord* worker = desk.durable.worker(name);
  if (worker == nullptr || worker->lost) {
    desk.board.capacity.erase(name);
    return;
  }
  desk.board.capacity.set(node_state(desk, *worker));
  hold_room(desk, name);
}

void refresh_board(Desk& desk) {
  Board& board = desk.board;
  const std::int64_t clock_ms = desk.wall.unix_ms - to_ms(desk.now - Instant{});
  if (!board.clock_ms) board.clock_ms = clock_ms;
  if (std::abs(clock_ms - *board.clock_ms) > kClockStepMs) {
    // The clock was set, or the machine slept.
    board.clock_ms = clock_ms;
    stir_all(desk);
  }
  while (!board.stirred_workers.empty()) {
    const auto name = board.stirred_workers.extract(board.stirred_workers.begin());
    refresh_worker(desk, name.value());
  }
  std::set<JobId> jobs;
  jobs.swap(board.stirred_jobs);
  for (const JobId id : jobs) refresh_job(desk, id);
  // Also where the time of day was set back.
  if (!board.delays_from_unix_ms || desk.wall.unix_ms < *board.delays_from_unix_ms ||
      desk.wall.unix_ms - *board.delays_from_unix_ms >= kFairShareEveryMs) {
    board.delays_from_unix_ms = desk.wall.unix_ms;
    board.queue.set_delays(
        scheduler::fair_delays_ms(usage_now(desk), board.quotas.shares(), desk.wall.unix_ms));
  }
}

void stir_all(Desk& desk) {
  for (const auto& [name, worker] : desk.durable.workers()) {
    desk.board.stirred_workers.insert(name);
  }
  for (const auto& [id, job] : desk.durable.jobs()) {
    if (!is_terminal(job.state)) desk.board.stirred_jobs.insert(id);
  }
}

}  // namespace tutti::coordinator
