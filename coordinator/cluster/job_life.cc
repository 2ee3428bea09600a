#include "coordinator/cluster/job_life.h"

#include <fmt/core.h>

#include <algorithm>

#include "coordinator/cluster/checkpoints.h"
#include "coordinator/cluster/orders.h"
#include "coordinator/cluster/recovery.h"
#include "coordinator/cluster/release.h"
#include "coordinator/life/broken_gangs.h"
#include "coordinator/life/failures.h"
#include "coordinator/life/hang.h"
#include "coordinator/life/line.h"
#include "coordinator/life/starts.h"
#include "coordinator/scheduler/arrays.h"
#include "coordinator/scheduler/dependencies.h"
#include "coordinator/scheduler/explain.h"
#include "coordinator/scheduler/index.h"
#include "protocol/base/counted.h"

namespace tutti::coordinator {

namespace {

// The member's soft state, if the report is about the living generation of its job.
ProcessSoft* member_of(Desk& desk, JobId id, Generation generation, ProcessId process) {
  const JobRecord* job = desk.durable.job(id);
  if (job != nullptr && job->generation == generation && job->generation_alive &&
      is_member(*job, process)) {
    desk.touch(id);
    return &desk.processes[process];
  }
  ++desk.counters.stale_reports;
  return nullptr;
}

// A process that is started for the next generation, beside the living one.
bool is_newcomer(const Desk& desk, const wire::RankReady& report) {
  const JobRecord* job = desk.durable.job(report.job);
  const ProcessRecord* process = desk.durable.process(report.process);
  return job != nullptr && process != nullptr && process->generation > job->generation &&
         process->generation == report.generation && is_wanted(job, *process);
}

// A rank that cannot go on says whose fault it is, also where its generation has just been aborted
// for another cause: it will not regroup, and its own reason counts.
void on_given_up(Desk& desk, const wire::RankFinished& report) {
  const JobRecord* job = desk.durable.job(report.job);
  const bool member = job != nullptr && job->generation == report.generation &&
                      job->state != JobState::stopping && !is_terminal(job->state) &&
                      is_member(*job, report.process);
  if (!member) {
    ++desk.counters.stale_reports;
    return;
  }
  give_up_rank(desk, report.job, report.process, {report.failure, report.message});
}

}  // namespace

// Requests
// ------------------------------------------------------------------------------------------

void on_cancel(Desk& desk, const CancelJob& input) {
  const JobRecord* job = desk.durable.job(input.job);
  const JobRecord* array = job == nullptr ? array_of(desk, input.job) : nullptr;
  if (job == nullptr && array == nullptr) {
    return desk.refuse(input.request, ErrorCode::not_found,
                       fmt::format("there is no job {}", input.job.value));
  }
  if (!desk.ledger_failure.empty()) {
    return desk.refuse(input.request, ErrorCode::unavailable, desk.full_disk());
  }
  desk.answer(input.request, Done{});
  std::erase_if(desk.unanswered,
                [&](const auto& each) { return each.first <= desk.durable_through; });
  desk.unanswered.emplace_back(desk.last_decision + 1, input.request);
  std::string reason = input.reason.empty() ? "cancelled" : "cancelled: " + input.reason;
  if (array != nullptr) return cancel_task(desk, *array, input.job, reason);
  if (input.save && job->terms.array_count == 0) {
    return release_job(
        desk, input.job,
        {.to = ReleaseTo::end, .cause = ReleaseCause::cancelled, .reason = std::move(reason)});
  }
  stop_job(desk, input.job,
           {.state = JobState::cancelled,
            .exit_code = 1,
            .failure = wire::FailureClass::none,
            .message = std::move(reason)});
}

void on_hash_mismatch(Desk& desk, const StepHashMismatch& input) {
  const JobRecord* job = desk.durable.job(input.job);
  if (job == nullptr || is_terminal(job->state)) return;
  stop_job(desk, input.job,
           {.state = JobState::failed,
            .exit_code = 4,
            .failure = wire::FailureClass::own,
            .message = fmt::format("step {}: {}", input.step, input.message)});
}

void on_ledger_failed(Desk& desk, const LedgerFailed& input) {
  desk.ledger_failure = input.message.empty() ? "it is full" : input.message;
  // They take effect once there is room; nobody is kept waiting for that.
  for (const auto& [decision, request] : std::exchange(desk.unanswered, {})) {
    if (decision > input.durable_through) {
      desk.refuse(request, ErrorCode::unavailable,
                  desk.full_disk() + "; this takes effect once it can");
    }
  }
  std::vector<JobId> withdrawn;
  for (const auto& [id, soft] : desk.jobs) {
    if (soft.decision > input.durable_through && desk.job(id).state == JobState::queued) {
      withdrawn.push_back(id);
    }
  }
  for (const JobId id : withdrawn) {
    for (const RequestId request : desk.soft(id).requests) {
      desk.refuse(request, ErrorCode::unavailable, desk.full_disk());
    }
    desk.jobs.erase(id);
    desk.record(JobWithdrawn{.job = id});
    desk.touched.erase(id);
    desk.note({.job = id,
               .kind = EventKind::cancelled,
               .message = "the submit was refused: the ledger could not be written"});
  }
}

// Reports
// -------------------------------------------------------------------------------------------

void on_report(Desk& desk, const wire::RankStarted& report) {
  const ProcessRecord* process = desk.durable.process(report.process);
  if (process == nullptr || process->pid == report.pid) return;
  const JobRecord* job = desk.durable.job(process->job);
  const auto& others = desk.durable.processes_of(process->job);
  const bool first = std::none_of(others.begin(), others.end(), [&](ProcessId other) {
    return desk.durable.process(other)->pid != 0;
  });
  if (job != nullptr && first) {
    desk.note({.job = process->job,
               .kind = EventKind::started,
               .message = describe(*job, *process) + " has begun",
               .generation = report.generation,
               .rank = static_cast<std::int32_t>(process->rank),
               .worker = process->worker});
  }
  desk.record(ProcessStarted{.process = report.process, .pid = report.pid});
  if (job != nullptr) prove_refusal(desk, *job, *process);
  desk.processes[report.process].limits = report.limits;
  desk.touch(process->job);
  if (!process->lined_up) return;
  // It meets nobody, and its worker does not say so by itself.
  on_report(desk, wire::GroupFormed{.job = process->job,
                                    .generation = report.generation,
                                    .process = report.process,
                                    .rank = process->rank,
                                    .step = 0,
                                    .copied_bytes = 0,
                                    .serve_endpoint = {},
                                    .serve_key = {},
                                    .model = {}});
}

void on_report(Desk& desk, const wire::RankReady& report) {
  ProcessSoft* soft = nullptr;
  if (is_newcomer(desk, report)) {
    desk.touch(report.job);
    soft = &desk.processes[report.process];
  } else {
    soft = member_of(desk, report.job, report.generation, report.process);
  }
  if (soft == nullptr) return;
  soft->ready = report;
  soft->held = report.held;
  // Ready for the next group is who is surely out of the old one.
  const bool survivor = desk.durable.process(report.process)->generation < report.generation;
  if (survivor) desk.soft(report.job).aborted_unix_ms = desk.wall.unix_ms;
}

void on_report(Desk& desk, const wire::GroupFormed& report) {
  ProcessSoft* soft = member_of(desk, report.job, report.generation, report.process);
  if (soft == nullptr) return;
  soft->formed = report;
  if (soft->ready || desk.job(report.job).terms.kind != "run") return;
  // Executed at StartRank: there is nobody to meet, and it waits for no FormGroup.
  soft->ready = wire::RankReady{.job = report.job,
                                .generation = report.generation,
                                .process = report.process,
                                .rank = report.rank,
                                .address = {},
                                .held = {}};
  soft->formed_told = report.generation;
}

void on_report(Desk& desk, const wire::FirstStepDone& report) {
  if (member_of(desk, report.job, report.generation, report.process) == nullptr) return;
  JobSoft& soft = desk.soft(report.job);
  if (!soft.first_step) soft.first_step = report;
}

void on_report(Desk& desk, const wire::RankFinished& report) {
  if (report.failure != wire::FailureClass::none) return on_given_up(desk, report);
  ProcessSoft* soft = member_of(desk, report.job, report.generation, report.process);
  if (soft == nullptr) return;
  soft->finished = report;
  JobSoft& job = desk.soft(report.job);
  job.newest_step = std::max(job.newest_step, report.step);
}

// Life
// ----------------------------------------------------------------------------------------------

void stop_job(Desk& desk, JobId id, Outcome outcome) {
  const JobRecord& job = desk.job(id);
  if (is_terminal(job.state)) return;
  desk.touch(id);
  close_serving(desk, id);
  if (job.release.to == ReleaseTo::resize) drop_resize(desk, id, "the job stops");
  // Whoever cancelled it does not want it back because something broke meanwhile.
  if (job.release.to == ReleaseTo::end && outcome.state == JobState::queued) {
    outcome.state = JobState::cancelled;
    outcome.exit_code = 1;
    outcome.failure = wire::FailureClass::none;
    outcome.message = fmt::format("{} ({})", job.release.reason, outcome.message);
  }
  if (job.state == JobState::stopping) {
    if (job.outcome.state == JobState::queued && outcome.state != JobState::queued) {
      desk.record(JobStopping{.job = id, .outcome = std::move(outcome)});
    }
    return;
  }
  if (job.state == JobState::queued) {
    desk.record(JobSettled{.job = id,
                           .outcome = std::move(outcome),
                           .step = desk.soft(id).newest_step,
                           .unix_ms = desk.wall.unix_ms});
    return;
  }
  if (job.open_checkpoint.step != 0 && !job.open_checkpoint.whole()) {
    desk.note({.job = id,
               .kind = EventKind::checkpoint_failed,
               .message = "the job stopped before all parts were written",
               .generation = job.generation,
               .step = job.open_checkpoint.step});
  }
  const bool has_tasks = job.tasks.active != 0;
  if (has_tasks) stop_tasks(desk, id, outcome);
  desk.record(JobStopping{.job = id, .outcome = std::move(outcome)});
  JobSoft& soft = desk.soft(id);
  const std::uint64_t step = soft.newest_step;
  soft = {};
  soft.newest_step = step;
}

void close_serving(Desk& desk, JobId id) {
  const auto at = desk.jobs.find(id);
  if (at == desk.jobs.end() || !at->second.serving_open) return;
  at->second.serving_open = false;
  desk.effect(CloseServing{.job = id});
}

void watch_queue_limit(Desk& desk, const JobRecord& job) {
  const bool waits = job.state == JobState::queued && job.dependencies.empty();
  if (!waits || job.terms.queued_ms_max == 0) return;
  const std::int64_t early = std::max<std::int64_t>(0, job.terms.begin_unix_ms - desk.wall.unix_ms);
  // While its seats are held for it, it waits for what the infrastructure took from it.
  if (holds_seats(desk, job)) return;
  desk.soft(job.job).queued_due =
      due_after(desk, std::max(waits_since(job), held_until_unix_ms(job)),
                job.terms.queued_ms_max) +
      std::max<Duration>(std::chrono::milliseconds(early), backoff_left(desk, job));
}

void watch_time_limit(Desk& desk, const JobRecord& job) {
  if (job.running_unix_ms == 0 || job.terms.time_ms_max == 0) return;
  desk.soft(job.job).time_due = due_after(desk, job.running_unix_ms, time_left_ms(job));
}

void resume_job(Desk& desk, const JobRecord& job) {
  JobSoft& soft = desk.soft(job.job);
  soft.newest_step = job.step;
  hold_seats(desk, job.job);
  watch_queue_limit(desk, job);
  watch_time_limit(desk, job);
  if (job.generation_alive && job.formation.addresses.empty()) {
    soft.start_due = desk.now + desk.settings.start_max;
    resume_line(desk, job);
  } else if (job.generation_alive && !job.formed) {
    soft.formed_due = desk.now + desk.settings.form_max;
  } else if (job.generation && !job.generation_alive && job.state != JobState::queued &&
             job.state != JobState::stopping) {
    soft.wait_due = desk.now + std::chrono::milliseconds(job.terms.wait_ms);
  }
  if (job.generation_alive && job.formed) watch_for_hang(desk, job.job);
  if (job.open_checkpoint.step != 0) {
    soft.checkpoint_due = desk.now + desk.settings.checkpoint_max;
  }
  resume_release(desk, job.job);
  desk.touch(job.job);
}

namespace {

EventKind end_event(JobState state) {
  if (state == JobState::done) return EventKind::finished;
  return state == JobState::failed ? EventKind::failed : EventKind::cancelled;
}

void forget_oldest(Desk& desk) {
  const JobId forgotten = *desk.durable.ended().begin();
  const std::uint32_t tasks = desk.job(forgotten).terms.array_count;
  desk.record(JobForgotten{.job = forgotten});
  desk.touched.erase(forgotten);
  desk.effect(ForgetJob{.job = forgotten, .tasks = tasks});
}

// Says what the end was, and bounds the history.
void say_ended(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  desk.note({.job = id,
             .kind = end_event(job.state),
             .message = job.outcome.message.empty() ? "done" : job.outcome.message,
             .generation = job.generation,
             .step = job.step});
  desk.jobs.erase(id);
  wake_dependents(desk, id);
  // It may have been its turn, and others waited behind it.
  desk.capacity_changed();
  if (desk.job(id).array) return fold_task(desk, id);
  // The newest stays, however many tasks it had.
  const auto too_many = [&] {
    const std::size_t jobs = desk.durable.ended().size();
    return jobs > desk.settings.ended_jobs_max ||
           (jobs > 1 && desk.durable.ended_tasks() > desk.settings.ended_tasks_max);
  };
  while (too_many()) forget_oldest(desk);
}

// Processes of a stopping job that a worker in session neither has nor was told to start: they were
// wanted when its Hello was compared, and nobody will report their end.
void end_never_begun(Desk& desk, JobId id) {
  std::vector<ProcessId> ended;
  for (const ProcessId process : desk.durable.processes_of(id)) {
    const ProcessRecord& record = *desk.durable.process(process);
    const WorkerLink* link = record.lost ? nullptr : desk.link_of(record);
    if (link != nullptr && !desk.processes[process].seen) ended.push_back(process);
  }
  for (const ProcessId process : ended) {
    wire::RankExited exit;
    exit.job = id;
    exit.process = process;
    exit.generation = desk.durable.process(process)->generation;
    exit.ordered = true;
    exit.error = "its worker does not have it";
    exit.seen_unix_ms = desk.wall.unix_ms;
    on_exit(desk, exit);
  }
}

// A stopping job whose last process is gone. Those of lost workers are fenced when they are back.
bool settle(Desk& desk, JobId id) {
  end_never_begun(desk, id);
  for (const ProcessId process : desk.durable.processes_of(id)) {
    if (!desk.durable.process(process)->lost) return false;
  }
  const JobRecord& job = desk.job(id);
  if (job.tasks.active != 0) return false;
  const Outcome outcome = job.outcome;
  if (is_terminal(outcome.state) && job.open_checkpoint.step != 0) {
    desk.note({.job = id,
               .kind = EventKind::checkpoint_failed,
               .message = "no rank was left to commit it",
               .step = job.open_checkpoint.step});
  }
  desk.record(JobSettled{.job = id,
                         .outcome = outcome,
                         .step = desk.soft(id).newest_step,
                         .unix_ms = desk.wall.unix_ms});
  desk.capacity_changed();
  if (outcome.state == JobState::queued) {
    desk.note({.job = id,
               .kind = EventKind::restarted,
               .message = "queued again: " + outcome.message,
               .generation = desk.job(id).generation});
    resume_job(desk, desk.job(id));
  }
  return true;
}

void complete(Desk& desk, JobId id) {
  stop_job(desk, id,
           {.state = JobState::done,
            .exit_code = 0,
            .failure = wire::FailureClass::none,
            .message = {}});
}

void say_running(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  JobSoft& soft = desk.soft(id);
  soft.formed_due.reset();
  soft.serving_open = false;  // another rank may serve now, at another place
  watch_for_hang(desk, id);
  if (!soft.time_due) watch_time_limit(desk, job);
  desk.note({.job = id,
             .kind = EventKind::running,
             .message = fmt::format("{} in generation {}", counted(job.members.size(), "rank"),
                                    job.generation.value),
             .generation = job.generation,
             .step = job.formation.base_step});
  if (job.terms.kind != "run" || job.recoveries.empty()) return;
  const Recovery& last = job.recoveries.back();
  if (last.generation != job.generation) return;
  desk.note({.job = id,
             .kind = EventKind::recovered,
             .message = fmt::format("runs again {} ms after the loss was seen (old gang out {}, "
                                    "decided {} ms)",
                                    last.copied_ms, last.aborted_ms, last.decided_ms),
             .generation = job.generation});
}

void open_serving(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  JobSoft& soft = desk.soft(id);
  if (job.terms.kind != "serve" || soft.serving_open || job.members.empty()) return;
  const auto& formed = desk.processes[job.members.front()].formed;
  if (!formed || formed->serve_endpoint.empty()) return;
  soft.serving_open = true;
  desk.effect(OpenServing{.job = id,
                          .model = formed->model.empty() ? job.terms.name : formed->model,
                          .endpoint = formed->serve_endpoint,
                          .key = formed->serve_key});
}

void take_first_step(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  JobSoft& soft = desk.soft(id);
  if (!soft.first_step || soft.first_step->generation != job.generation) return;
  const std::uint64_t step = soft.first_step->step;
  soft.first_step.reset();
  soft.newest_step = std::max(soft.newest_step, step);
  const bool recovered = !job.recoveries.empty() &&
                         job.recoveries.back().generation == job.generation &&
                         job.recoveries.back().first_step_ms < 0;
  const bool first = job.generation.value == 1 && job.step == 0;
  if (!recovered && !first) return;
  desk.record(FirstStepSeen{
      .job = id, .generation = job.generation, .step = step, .unix_ms = desk.wall.unix_ms});
  if (!recovered) return;
  const Recovery& recovery = desk.job(id).recoveries.back();
  desk.note({.job = id,
             .kind = EventKind::recovered,
             .message = describe_recovery(recovery, step),
             .generation = job.generation,
             .step = step});
}

// How many ranks of the living generation satisfy `holds`; programs that ended well count.
template <class Holds>
std::size_t count_members(Desk& desk, const JobRecord& job, const Holds& holds) {
  std::size_t count = job.ranks_done;
  for (const ProcessId member : job.members) {
    if (member && holds(desk.processes[member])) ++count;
  }
  return count;
}

// Whether the ranks have finished because nothing is left to do, and not because they were asked to
// leave.
bool is_over(Desk& desk, const JobRecord& job) {
  if (job.terms.kind != "train" || job.terms.steps == 0) return true;
  return std::all_of(job.members.begin(), job.members.end(), [&](ProcessId member) {
    const auto& finished = desk.processes[member].finished;
    return finished && finished->step >= job.terms.steps;
  });
}

void advance_generation(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  const Generation generation = job.generation;
  const std::size_t size = job.members.size();
  if (job.formation.addresses.empty()) {
    const auto ready = [&](const ProcessSoft& soft) {
      return soft.ready && soft.ready->generation == generation;
    };
    if (count_members(desk, job, ready) == size) order_group(desk, id);
    return;
  }
  if (!job.formed) {
    const auto formed = [&](const ProcessSoft& soft) {
      return soft.formed && soft.formed->generation == generation;
    };
    if (count_members(desk, job, formed) != size) return;
    note_fallback(desk, id);
    const std::uint64_t step = formed_step(desk, job);
    desk.record(GroupRunning{.job = id,
                             .generation = generation,
                             .unix_ms = desk.wall.unix_ms,
                             .fell_back = step < job.formation.base_step,
                             .step = step});
    say_running(desk, id);
  }
  open_serving(desk, id);
  take_first_step(desk, id);
  const auto finished = [&](const ProcessSoft& soft) {
    return soft.finished && soft.finished->generation == generation;
  };
  if (count_members(desk, job, finished) != size || job.open_checkpoint.step != 0) return;
  if (!have_said_all(desk, job)) return;
  if (is_over(desk, job)) {
    complete(desk, id);
  } else {
    finish_release(desk, id);
  }
}

}  // namespace

void advance(Desk& desk, JobId id) {
  const JobRecord* job = desk.durable.job(id);
  if (job == nullptr) return;
  if (is_terminal(job->state)) {
    if (desk.jobs.contains(id)) say_ended(desk, id);
    return;
  }
  if (job->state == JobState::stopping) {
    if (settle(desk, id)) desk.touch(id);
    return;
  }
  if (job->state == JobState::queued && !job->dependencies.empty()) {
    return advance_dependencies(desk, id);
  }
  if (job->terms.array_count != 0) return advance_array(desk, id);
  if (is_releasing(*job)) advance_release(desk, id);
  if (job->generation_alive) advance_generation(desk, id);
  advance_commit(desk, id);
}

void check_job_deadlines(Desk& desk, JobId id) {
  JobSoft& soft = desk.soft(id);
  const JobRecord& job = desk.job(id);
  if (soft.settle_until && desk.now >= *soft.settle_until) {
    soft.settle_until.reset();
    desk.capacity_changed();
  }
  for (auto* due : {&soft.begin_due, &soft.overdue_due, &soft.full_size_due, &soft.grow_due}) {
    if (!*due || desk.now < **due) continue;
    due->reset();
    desk.board.stirred_jobs.insert(id);
    desk.capacity_changed();
  }
  if (soft.line_due && desk.now >= *soft.line_due) call_back(desk, id);
  if (soft.queued_due && desk.now >= *soft.queued_due && job.state == JobState::queued) {
    // What may still run on a lost node keeps it from its room.
    const bool lost = is_fenced(desk, job);
    return stop_job(
        desk, id,
        {.state = JobState::failed,
         .exit_code = lost ? 3 : 5,
         .failure = lost ? wire::FailureClass::infrastructure : wire::FailureClass::user,
         .message = "limit.queued is over: " + waiting_line(desk, job)});
  }
  if (soft.release_due && desk.now >= *soft.release_due) return check_release_deadline(desk, id);
  if (soft.time_due && desk.now >= *soft.time_due) {
    return stop_job(desk, id,
                    {.state = JobState::failed,
                     .exit_code = 1,
                     .failure = wire::FailureClass::user,
                     .message = "limit.time is over"});
  }
  if (soft.wait_due && desk.now >= *soft.wait_due) {
    soft.wait_due.reset();
    std::string then = job.terms.loss_then;
    if (then.empty()) then = job.terms.of_node == "wait" ? "fail" : "queue";
    if (job.terms.kind == "run" && then != "fail") return end_hold(desk, id);
    if (then == "shrink" && shrink_to_survivors(desk, id)) return;
    // Survivors would hold slots that others, perhaps likewise incomplete, wait for.
    const bool fails = then == "fail";
    return stop_job(desk, id,
                    {.state = fails ? JobState::failed : JobState::queued,
                     .exit_code = fails ? 3 : 0,
                     .failure = wire::FailureClass::infrastructure,
                     .message = "no place for its lost ranks within on_loss.wait"});
  }
}

}  // namespace tutti::coordinator
