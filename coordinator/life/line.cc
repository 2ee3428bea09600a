#include "coordinator/life/line.h"

#include <algorithm>
#include <set>
#include <utility>

#include "coordinator/scheduler/arrays.h"
#include "coordinator/scheduler/schedule.h"

namespace tutti::coordinator {

using scheduler::Board;
using scheduler::Opening;

namespace {

// The part of a task's time in the mean.
constexpr double kNews = 0.2;

bool has_limits(const Desk& desk, const std::string& owner) {
  const scheduler::Quota quota = desk.board.quotas.of(owner);
  return quota.slots || quota.running;
}

// How many may stand behind the one that runs.
std::uint32_t length_for(const Desk& desk, const JobRecord& array, const WorkerRecord& worker) {
  const auto soft = desk.jobs.find(array.job);
  if (soft == desk.jobs.end() || soft->second.task_us <= 0) return 0;
  const double worth_us = static_cast<double>(kLineWorth.count()) / 1e3;
  const double fits = worth_us / soft->second.task_us;
  const std::uint32_t share = kLinesOfWorkerMax / std::max(1U, worker.slots);
  const std::uint32_t most = std::min(kLineMax, std::max(1U, share));
  return fits >= most ? most : static_cast<std::uint32_t>(fits);
}

struct Line {
  std::uint32_t processes = 0;
  bool others = false;  // somebody else's
};

Line line_on(const Desk& desk, JobId array, const Opening& opening) {
  Line out;
  for (const ProcessId id : desk.durable.processes_on(opening.worker)) {
    const ProcessRecord& process = *desk.durable.process(id);
    if (process.slot != opening.slot) continue;
    ++out.processes;
    const JobRecord* job = desk.durable.job(process.job);
    if (job == nullptr || job->array != array || process.lost) out.others = true;
  }
  return out;
}

void stand(Desk& desk, JobId array, const Opening& opening) {
  const JobId task = start_task(desk, array);
  Placement placement =
      place(desk, desk.durable.next_process(), {.worker = opening.worker, .slot = opening.slot});
  placement.lined_up = true;
  desk.board.lined_up.insert(placement.process);
  start_generation(desk, task, {std::move(placement)});
  JobSoft& soft = desk.soft(task);
  soft.start_due.reset();
  soft.line_due = desk.now + kStandsMax;
}

void fill(Desk& desk, JobId array, const Opening& opening) {
  const JobRecord& job = desk.job(array);
  const WorkerRecord* worker = desk.durable.worker(opening.worker);
  const auto link = desk.links.find(opening.worker);
  if (worker == nullptr || worker->lost || worker->draining()) return;
  if (link == desk.links.end() || !link->second.open || link->second.disconnected) return;
  const std::uint32_t length = length_for(desk, job, *worker);
  const Line line = line_on(desk, array, opening);
  // Half a line at a time, so that a decision is made for many of them.
  if (line.processes == 0 || line.others || line.processes - 1 > length / 2) return;
  const std::uint32_t at_once = job.terms.array_at_once;
  for (std::uint32_t i = line.processes - 1; i < length && job.tasks.waiting != 0; ++i) {
    if (at_once != 0 && job.tasks.active >= at_once) return;
    stand(desk, array, opening);
  }
}

void make_way(Desk& desk, JobId head) {
  const std::int32_t priority = desk.job(head).terms.priority;
  const std::set<ProcessId> lined_up = desk.board.lined_up;
  for (const ProcessId id : lined_up) {
    const ProcessRecord* process = desk.durable.process(id);
    const JobRecord* job = process == nullptr ? nullptr : desk.durable.job(process->job);
    if (job != nullptr && job->terms.priority < priority) call_back(desk, job->job);
  }
}

}  // namespace

bool stands_in_line(const ProcessRecord& process) { return process.lined_up && process.pid == 0; }

void note_task_end(Desk& desk, const ProcessRecord& process, const wire::RankExited& exit) {
  const JobRecord* task = desk.durable.job(process.job);
  if (task == nullptr || !task->array || task->terms.ranks_max != 1) return;
  // A worker that does not say how long it took knows no lines either.
  const auto array = desk.jobs.find(task->array);
  if (array == desk.jobs.end() || !exit.began || exit.ran_us == 0) return;
  double& mean = array->second.task_us;
  const auto took = static_cast<double>(exit.ran_us);
  mean = mean <= 0 ? took : mean + kNews * (took - mean);
  desk.board.openings.insert({.worker = process.worker, .slot = process.slot});
}

void line_up(Desk& desk, JobId head) {
  Board& board = desk.board;
  const std::set<Opening> openings = std::exchange(board.openings, {});
  if (!head) return;
  if (!board.lined_up.empty()) make_way(desk, head);
  const JobRecord& job = desk.job(head);
  if (job.terms.array_count == 0 || job.terms.kind != "run" || has_limits(desk, job.owner)) return;
  for (const Opening& opening : openings) fill(desk, head, opening);
}

void resume_line(Desk& desk, const JobRecord& job) {
  for (const ProcessId id : desk.durable.processes_of(job.job)) {
    if (!stands_in_line(*desk.durable.process(id))) continue;
    desk.board.lined_up.insert(id);
    desk.soft(job.job).line_due = desk.now + kStandsMax;
  }
}

bool was_called_back(const ProcessRecord& process, const wire::RankExited& exit) {
  return process.lined_up && !exit.began && exit.ordered &&
         exit.failure == wire::FailureClass::none;
}

void call_back(Desk& desk, JobId task) {
  JobSoft& soft = desk.soft(task);
  soft.line_due.reset();
  for (const ProcessId id : desk.durable.processes_of(task)) {
    const ProcessRecord& process = *desk.durable.process(id);
    ProcessSoft& its = desk.processes[id];
    if (!stands_in_line(process) || its.called_back) continue;
    WorkerLink* link = desk.link_of(process);
    if (link == nullptr || !its.seen) {
      soft.line_due = desk.now + kStandsMax;
      continue;
    }
    its.called_back = true;
    soft.start_due = desk.now + desk.settings.start_max;
    desk.order(*link, wire::StopRank{.job = task,
                                     .process = id,
                                     .grace_ms = 0,
                                     .reason = "called back from its line",
                                     .unless_begun = true});
  }
}

}  // namespace tutti::coordinator
