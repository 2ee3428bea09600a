#include "coordinator/cluster/recovery.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "coordinator/cluster/job_life.h"
#include "coordinator/cluster/release.h"
#include "coordinator/life/failures.h"
#include "coordinator/life/hang.h"
#include "coordinator/life/line.h"
#include "coordinator/life/starts.h"
#include "coordinator/membership/quarantine.h"
#include "coordinator/scheduler/schedule.h"
#include "protocol/base/assert.h"
#include "protocol/base/counted.h"

namespace tutti::coordinator {

namespace {

bool ended_well(const JobRecord& job, const wire::RankExited& exit) {
  return job.terms.kind == "run" && !job.formation.addresses.empty() && exit.code == 0 &&
         exit.signal == 0 && exit.failure == wire::FailureClass::none && exit.error.empty();
}

// Of a program's gang, which cannot regroup, the phases are counted all the same.
void note_recovery(Desk& desk, JobId id, const Loss& loss) {
  const JobRecord& job = desk.job(id);
  if (!job.generation_alive) return;
  if (job.state == JobState::running) ++desk.counters.recoveries;
  desk.record(GenerationAborted{.job = id,
                                .generation = job.generation,
                                .cause = loss.message,
                                .unix_ms = desk.wall.unix_ms});
}

void go_on(Desk& desk, JobId id, const Loss& loss) {
  if (!charge(desk, id, loss)) return;
  if (desk.job(id).terms.kind == "run") {
    note_recovery(desk, id, loss);
    queue_again(desk, id, loss);
    return;
  }
  abort_generation(desk, id, loss.message);
  JobSoft& soft = desk.soft(id);
  // The death is known: nothing to wait for. But what is lost again and again before a further step
  // is done would be started, and lost, many times a second.
  soft.settle_until.reset();
  const JobRecord& job = desk.job(id);
  const std::uint64_t wait =
      recovery_backoff_ms(job.terms, job.failures_in_row, desk.fresh_share());
  if (wait != 0) {
    soft.settle_until = desk.now + std::chrono::milliseconds(wait);
    soft.wait_due = *soft.settle_until + std::chrono::milliseconds(job.terms.wait_ms);
    wait_for(desk, id, Tell::events,
             fmt::format("tries again in {:.1f} s: lost {} times in a row without a further step",
                         static_cast<double>(wait) / 1000, job.failures_in_row));
  }
  desk.capacity_changed();
}

}  // namespace

void on_exit(Desk& desk, const wire::RankExited& exit) {
  const ProcessRecord* found = desk.durable.process(exit.process);
  if (found == nullptr) {
    for (auto& [name, link] : desk.links) {
      if (link.strangers.erase(exit.process) != 0) desk.stir_link(name);
    }
    desk.capacity_changed();
    return;
  }
  const ProcessRecord process = *found;  // the fact removes it
  const JobRecord* job = desk.durable.job(process.job);
  const bool counts = job != nullptr && job->state != JobState::stopping &&
                      !is_terminal(job->state) && is_member(*job, process.process);
  if (counts && exit.began && job->size == 1 && job->formation.addresses.empty()) {
    // A program that was executed at StartRank, and whose reports were lost with a coordinator.
    on_report(desk, wire::GroupFormed{.job = exit.job,
                                      .generation = exit.generation,
                                      .process = exit.process,
                                      .rank = 0,
                                      .step = 0,
                                      .copied_bytes = 0,
                                      .serve_endpoint = {},
                                      .serve_key = {},
                                      .model = {}});
    advance(desk, exit.job);
  }
  const bool well = counts && ended_well(*job, exit);
  note_task_end(desk, process, exit);
  std::string error = exit.error;
  if (error.empty() && exit.failure != wire::FailureClass::none) error = describe_exit(exit);
  desk.record(ProcessEnded{.process = exit.process,
                           .code = exit.code,
                           .signal = exit.signal,
                           .error = std::move(error),
                           .memory_peak_bytes = exit.memory_peak_bytes,
                           .cpu_ms = exit.cpu_ms});
  desk.processes.erase(exit.process);
  desk.capacity_changed();
  if (job != nullptr) desk.touch(job->job);
  if (!counts || well) return;
  if (was_called_back(process, exit)) {
    return stop_job(desk, job->job,
                    {.state = JobState::queued,
                     .exit_code = 0,
                     .failure = wire::FailureClass::none,
                     .message = "called back from the line of its slot"});
  }
  lose_rank(desk, job->job, process, judge(*job, exit));
}

namespace {

// Who says that ranks are out of order may come behind another, who saw no more than its end.
void charge_broken_order(Desk& desk, const wire::GenerationBroken& report) {
  const JobRecord& job = desk.job(report.job);
  const bool interrupted = !job.generation_alive && !is_terminal(job.state) &&
                           job.state != JobState::stopping && !job.failure_counted;
  if (report.failure != wire::FailureClass::own || !interrupted) return;
  static_cast<void>(
      charge(desk, report.job,
             {wire::FailureClass::own, fmt::format("rank {}: {}", report.rank, report.reason)}));
}

}  // namespace

void on_report(Desk& desk, const wire::GenerationBroken& report) {
  const JobRecord* job = desk.durable.job(report.job);
  const bool is_ours =
      job != nullptr && job->generation == report.generation && is_member(*job, report.process);
  if (!is_ours || !job->generation_alive) {
    ++desk.counters.stale_reports;
    if (is_ours) charge_broken_order(desk, report);
    return;
  }
  desk.processes[report.process].held = report.held;
  if (report.held.whole) {
    JobSoft& soft = desk.soft(report.job);
    soft.newest_step = std::max(soft.newest_step, report.held.step);
  }
  abort_generation(desk, report.job, fmt::format("rank {}: {}", report.rank, report.reason));
  JobSoft& soft = desk.soft(report.job);
  soft.settle_until = desk.now + desk.settings.settle;
  charge_broken_order(desk, report);
}

void lose_rank(Desk& desk, JobId id, const ProcessRecord& process, const Loss& loss) {
  const JobRecord& job = desk.job(id);
  const std::string who = describe(job, process);
  desk.note({.job = id,
             .kind = EventKind::rank_lost,
             .message = fmt::format("{}: {}", who, loss.message),
             .generation = job.generation,
             .rank = static_cast<std::int32_t>(process.rank),
             .worker = process.worker});
  Loss named = loss;
  named.message = fmt::format("{}: {}", who, loss.message);
  if (loss.refused) {
    switch (weigh_refusal(desk, job, process)) {
      case Refusal::may_be_node: return try_elsewhere(desk, id, process.worker, named);
      case Refusal::by_node:
        named.failure = wire::FailureClass::infrastructure;
        desk.record(StartRefused{.job = id, .worker = process.worker, .proven = true});
        blame_for_refusal(desk, process.worker, desk.job(id), loss.message);
        return go_on(desk, id, named);
      case Refusal::by_user: break;
    }
  }
  blame_node(desk, process.worker, job, loss);
  if (loss.failure == wire::FailureClass::user) return lose_to_user(desk, id, named);
  go_on(desk, id, named);
}

void give_up_rank(Desk& desk, JobId id, ProcessId member, const Loss& loss) {
  const ProcessRecord process = *desk.durable.process(member);
  desk.record(ProcessStopOrdered{.process = member});
  lose_rank(desk, id, process, loss);
}

void lose_node(Desk& desk, JobId id, const std::string& worker, const std::string& reason) {
  const JobRecord& job = desk.job(id);
  desk.note({.job = id,
             .kind = EventKind::rank_lost,
             .message = fmt::format("worker {} was lost: {}", worker, reason),
             .generation = job.generation,
             .worker = worker});
  const Loss loss{wire::FailureClass::infrastructure,
                  fmt::format("worker {} was lost: {}", worker, reason)};
  if (job.terms.of_node == "fail") return fail(desk, id, 3, loss);
  go_on(desk, id, loss);
}

bool charge_interruption(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  if (job.failure_counted) return true;
  const std::string cause = job.recoveries.empty() ? "" : job.recoveries.back().cause;
  return charge(desk, id, {wire::FailureClass::infrastructure, cause});
}

namespace {

// What belonged to the generation that has just ended.
void forget_generation(Desk& desk, JobId id) {
  JobSoft& soft = desk.soft(id);
  soft.settle_until.reset();
  soft.regroup_due.reset();
  soft.start_due.reset();
  soft.formed_due.reset();
  soft.hang_due.reset();
  soft.first_step.reset();
  soft.aborted_unix_ms = desk.wall.unix_ms;
  soft.wait_due = desk.now + std::chrono::milliseconds(desk.job(id).terms.wait_ms);
  desk.capacity_changed();
}

}  // namespace

void abort_generation(Desk& desk, JobId id, const std::string& cause) {
  const JobRecord& job = desk.job(id);
  if (!job.generation_alive) return;
  JobSoft& soft = desk.soft(id);
  if (job.release.to == ReleaseTo::resize) drop_resize(desk, id, "a rank was lost meanwhile");
  if (job.open_checkpoint.step != 0 && !job.open_checkpoint.whole()) {
    desk.note({.job = id,
               .kind = EventKind::checkpoint_failed,
               .message = "the generation ended before all parts were written",
               .generation = job.generation,
               .step = job.open_checkpoint.step});
    soft.checkpoint_due.reset();
  }
  desk.note({.job = id,
             .kind = EventKind::aborted,
             .message = fmt::format("generation {} is aborted: {}", job.generation.value, cause),
             .generation = job.generation});
  desk.record(GenerationAborted{.job = id,
                                .generation = job.generation,
                                .cause = cause,
                                .step = soft.newest_step,
                                .unix_ms = desk.wall.unix_ms});
  close_serving(desk, id);
  forget_generation(desk, id);
  ++desk.counters.recoveries;
}

void end_generation(Desk& desk, JobId id, const std::string& cause) {
  const JobRecord& job = desk.job(id);
  desk.record(GenerationAborted{.job = id,
                                .generation = job.generation,
                                .cause = cause,
                                .step = desk.soft(id).newest_step,
                                .unix_ms = desk.wall.unix_ms,
                                .planned = true});
  forget_generation(desk, id);
}

namespace {

// The step that the new generation starts from, and who brings whom there.
Formation choose_base(const JobRecord& job, const std::vector<wire::HeldState>& held) {
  Formation formation;
  bool holders = false;
  for (const wire::HeldState& each : held) {
    if (!each.whole) continue;
    holders = true;
    formation.base_step = std::max(formation.base_step, each.step);
  }
  CommittedCheckpoint newest{job.terms.resume_step, job.terms.resume_folder};
  if (!job.checkpoints.empty()) newest = job.checkpoints.back();
  if (!holders || (!newest.folder.empty() && newest.step > formation.base_step)) {
    formation.base_step = newest.step;
  }
  // Also given where all hold the state, so that ranks know whether the base step has been saved.
  if (newest.step == formation.base_step) formation.checkpoint = newest.folder;
  std::vector<std::uint32_t> sources;
  for (std::uint32_t rank = 0; rank < held.size(); ++rank) {
    if (held[rank].whole && held[rank].step == formation.base_step) sources.push_back(rank);
  }
  if (sources.empty()) return formation;
  std::size_t next = 0;
  for (std::uint32_t rank = 0; rank < held.size(); ++rank) {
    const wire::HeldState& own = held[rank];
    // A pending step is finished from what the rank holds, without communication: some rank had all
    // votes.
    if (own.whole && (own.step == formation.base_step || own.pending == formation.base_step)) {
      continue;
    }
    formation.copies.push_back({.from = sources[next++ % sources.size()], .to = rank});
  }
  return formation;
}

}  // namespace

void order_group(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  JobSoft& soft = desk.soft(id);
  std::vector<wire::HeldState> held;
  std::vector<std::string> addresses;
  for (const ProcessId member : job.members) {
    const auto& ready = desk.processes[member].ready;
    TUTTI_ASSERT(ready.has_value());
    held.push_back(ready->held);
    addresses.push_back(ready->address);
    if (ready->held.whole) soft.newest_step = std::max(soft.newest_step, ready->held.step);
  }
  Formation formation;
  if (job.terms.kind == "train") formation = choose_base(job, held);
  formation.addresses = std::move(addresses);
  formation.secret = desk.fresh_secret();
  const std::uint64_t newest = soft.newest_step;
  const std::uint64_t lost = newest > formation.base_step ? newest - formation.base_step : 0;
  const bool recovering = job.state == JobState::recovering;
  if (recovering) {
    desk.note(
        {.job = id,
         .kind = EventKind::regrouped,
         .message = fmt::format("generation {} goes on from step {}, {} lost", job.generation.value,
                                formation.base_step, counted(lost, "step")),
         .generation = job.generation,
         .step = formation.base_step});
  }
  desk.record(GroupOrdered{.job = id,
                           .generation = job.generation,
                           .formation = std::move(formation),
                           .lost_steps = recovering ? lost : 0,
                           .aborted_unix_ms = soft.aborted_unix_ms,
                           .unix_ms = desk.wall.unix_ms});
  // What was redone is not committed any more.
  soft.newest_step = desk.job(id).formation.base_step;
  soft.regroup_due.reset();
  soft.start_due.reset();
  soft.formed_due = desk.now + desk.settings.form_max;
}

namespace {

// Ends the members that `late` says are to blame, as infrastructure.
template <class Late>
void end_late(Desk& desk, JobId id, const std::string& cause, const Late& late) {
  const std::vector<ProcessId> members = desk.job(id).members;
  for (const ProcessId member : members) {
    if (!member || !late(member)) continue;
    give_up_rank(desk, id, member, {wire::FailureClass::infrastructure, cause});
    const JobState state = desk.job(id).state;
    if (state == JobState::stopping || is_terminal(state)) return;
  }
}

}  // namespace

std::string describe_recovery(const Recovery& recovery, std::uint64_t step) {
  return fmt::format(
      "step {} was done {} ms after {} (decided {}, survivors out {}, regrouped {}, copied {} ms)",
      step, recovery.first_step_ms, recovery.planned ? "the old group ended" : "the loss was seen",
      recovery.decided_ms, recovery.aborted_ms, recovery.regrouped_ms, recovery.copied_ms);
}

// The step that the formed ranks stand at: the base step, or an older one where the checkpoints
// that they were led to did not verify. They agree among themselves.
std::uint64_t formed_step(Desk& desk, const JobRecord& job) {
  if (job.terms.kind != "train" || job.members.empty()) return job.formation.base_step;
  const auto& formed = desk.processes[job.members.front()].formed;
  return formed ? formed->step : job.formation.base_step;
}

void note_fallback(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  const std::uint64_t step = formed_step(desk, job);
  if (step >= job.formation.base_step) return;
  desk.soft(id).newest_step = step;
  desk.note({.job = id,
             .kind = EventKind::checkpoint_failed,
             .message = fmt::format("the checkpoint of step {} does not verify; {} lost",
                                    job.formation.base_step,
                                    counted(job.formation.base_step - step, "step")),
             .generation = job.generation,
             .step = step});
}

bool shrink_to_survivors(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  std::vector<Placement> gang;
  for (const ProcessId member : job.members) {
    const ProcessRecord* process = desk.durable.process(member);
    if (process != nullptr) gang.push_back(stay(*process));
  }
  const bool enough = !gang.empty() && gang.size() >= job.terms.ranks_min;
  if (job.terms.kind != "train" || !enough) return false;
  if (!charge_interruption(desk, id)) return true;
  const std::size_t before = job.members.size();
  start_generation(desk, id, std::move(gang));
  desk.note({.job = id,
             .kind = EventKind::resized,
             .message = fmt::format("goes on with {} instead of {}: no place for the others",
                                    counted(job.members.size(), "rank"), before),
             .generation = job.generation});
  return true;
}

void check_recovery_deadlines(Desk& desk, JobId id) {
  JobSoft& soft = desk.soft(id);
  const JobRecord& job = desk.job(id);
  const Generation generation = job.generation;
  const auto unready = [&](ProcessId process) {
    const ProcessSoft& its = desk.processes[process];
    return !its.ready || its.ready->generation != generation;
  };
  const auto is_new = [&](ProcessId process) {
    return desk.durable.process(process)->generation == generation;
  };
  if (soft.regroup_due && desk.now >= *soft.regroup_due) {
    soft.regroup_due.reset();
    end_late(desk, id, "it did not regroup in time",
             [&](ProcessId process) { return !is_new(process) && unready(process); });
  } else if (soft.start_due && desk.now >= *soft.start_due) {
    soft.start_due.reset();
    end_late(desk, id, "it did not start in time", unready);
  } else if (soft.formed_due && desk.now >= *soft.formed_due) {
    soft.formed_due.reset();
    end_late(desk, id, "it did not join its group in time", [&](ProcessId process) {
      const ProcessSoft& its = desk.processes[process];
      return !its.formed || its.formed->generation != generation;
    });
  } else if (soft.hang_due && desk.now >= *soft.hang_due) {
    check_hang(desk, id);
  }
}

}  // namespace tutti::coordinator
