#include "coordinator/cluster/checkpoints.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "coordinator/cluster/recovery.h"

namespace tutti::coordinator {

namespace {

// Ranks that are asked to commit before the checkpoint is given up.
constexpr std::uint32_t kCommitAttemptsMax = 5;

void drop(Desk& desk, JobId id, std::uint64_t step, const std::string& reason) {
  const JobRecord& job = desk.job(id);
  desk.record(CheckpointDropped{.job = id, .step = step, .reason = reason});
  desk.note({.job = id,
             .kind = EventKind::checkpoint_failed,
             .message = fmt::format("checkpoint of step {}: {}", step, reason),
             .generation = job.generation,
             .step = step});
  JobSoft& soft = desk.soft(id);
  soft.checkpoint_due.reset();
  soft.commit_due.reset();
  soft.committer = {};
}

// A member that has been ready once can write; the lowest rank after the last one asked.
const ProcessRecord* choose_committer(Desk& desk, const JobRecord& job, std::uint32_t attempt) {
  std::vector<const ProcessRecord*> able;
  for (const ProcessId member : job.members) {
    const ProcessRecord* process = desk.durable.process(member);
    if (process == nullptr || desk.link_of(*process) == nullptr) continue;
    if (desk.processes[member].ready) able.push_back(process);
  }
  return able.empty() ? nullptr : able[attempt % able.size()];
}

bool was_asked(const JobRecord& job, std::uint64_t step) {
  return std::find(job.commits_asked.begin(), job.commits_asked.end(), step) !=
         job.commits_asked.end();
}

// Every rank has finished, so that nobody saves a later step: given up, the job would end with its
// last step unsaved. The member that was asked in vain stands still, and another one, or its
// successor, commits what is written.
bool is_last(Desk& desk, const JobRecord& job, ProcessId asked) {
  const auto finished = [&](ProcessId member) {
    const auto& said = desk.processes[member].finished;
    return member && said && said->generation == job.generation;
  };
  return job.generation_alive && job.terms.hang_action != "tell" && is_member(job, asked) &&
         std::all_of(job.members.begin(), job.members.end(), finished);
}

// Steps of the job whose checkpoints other jobs serve, resume from or verify: those that have not
// ended.
void add_steps_read(const Desk& desk, const JobRecord& job, std::vector<std::uint64_t>& steps) {
  const std::string prefix = job.folder + "/checkpoints/step-";
  for (const auto& [id, soft] : desk.jobs) {
    for (const std::string& folder : desk.job(id).terms.reads) {
      if (!folder.starts_with(prefix)) continue;
      std::uint64_t step = 0;
      const char* end = folder.data() + folder.size();
      if (std::from_chars(folder.data() + prefix.size(), end, step).ec == std::errc{}) {
        steps.push_back(step);
      }
    }
  }
}

}  // namespace

void on_report(Desk& desk, const wire::CheckpointPart& report) {
  const JobRecord* job = desk.durable.job(report.job);
  if (job == nullptr || job->generation != report.generation || !job->generation_alive ||
      report.rank >= job->members.size() || job->members[report.rank] != report.process) {
    ++desk.counters.stale_reports;
    return;
  }
  const OpenCheckpoint& open = job->open_checkpoint;
  if (report.step < open.step) return;
  if (!job->checkpoints.empty() && report.step <= job->checkpoints.back().step) return;
  if (report.step <= job->dropped_step) return;
  const bool same = open.step == report.step && open.generation == report.generation;
  if (open.whole() && open.step == report.step) return;
  if (open.step != 0 && open.step != report.step) {
    drop(desk, report.job, open.step, "a newer one has begun");
  }
  if (!report.error.empty()) {
    drop(desk, report.job, report.step, fmt::format("rank {}: {}", report.rank, report.error));
    return;
  }
  const bool known =
      same && std::any_of(open.parts.begin(), open.parts.end(),
                          [&](const auto& part) { return part.rank == report.rank; });
  if (known) return;
  desk.record(CheckpointPartTaken{.job = report.job,
                                  .generation = report.generation,
                                  .step = report.step,
                                  .part = {.rank = report.rank, .files = report.files}});
  JobSoft& soft = desk.soft(report.job);
  if (!same) {
    soft.checkpoint_due = desk.now + desk.settings.checkpoint_max;
    soft.commit_attempts = 0;
  }
  if (desk.job(report.job).open_checkpoint.whole()) soft.checkpoint_due.reset();
}

void on_report(Desk& desk, const wire::CheckpointCommitted& report) {
  const JobRecord* job = desk.durable.job(report.job);
  if (job == nullptr || is_terminal(job->state)) {
    ++desk.counters.stale_reports;
    return;
  }
  const bool open = job->open_checkpoint.step == report.step;
  if (!report.error.empty()) {
    if (!open || desk.soft(report.job).committer != report.process) return;
    JobSoft& soft = desk.soft(report.job);
    soft.committer = {};
    soft.commit_due.reset();
    desk.touch(report.job);
    if (++soft.commit_attempts < kCommitAttemptsMax) return;
    return drop(desk, report.job, report.step, report.error);
  }
  // Only whole checkpoints are ordered to be committed, so one that was given up meanwhile is good
  // as well. One that is not among those asked for may have been pruned since.
  if (!was_asked(*job, report.step)) return;
  desk.record(CheckpointTaken{.job = report.job, .step = report.step, .folder = report.folder});
  desk.note({.job = report.job,
             .kind = EventKind::checkpoint,
             .message = fmt::format("step {} is saved in {}", report.step, report.folder),
             .generation = job->generation,
             .step = report.step});
  if (!open) return;
  JobSoft& soft = desk.soft(report.job);
  soft.committer = {};
  soft.commit_due.reset();
}

void advance_commit(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  const OpenCheckpoint& open = job.open_checkpoint;
  if (!open.whole() || job.state == JobState::stopping) return;
  JobSoft& soft = desk.soft(id);
  if (soft.committer) {
    // Still asked, in the session in which it was asked?
    const ProcessRecord* asked = desk.durable.process(soft.committer);
    WorkerLink* link = asked == nullptr || asked->lost ? nullptr : desk.link_of(*asked);
    if (link != nullptr && link->session == soft.committer_session) return;
    soft.committer = {};
  }
  const ProcessRecord* process = choose_committer(desk, job, soft.commit_attempts);
  if (process == nullptr) return;
  WorkerLink& link = *desk.link_of(*process);
  std::vector<wire::CheckpointFile> files;
  for (const CheckpointPartRecord& part : open.parts) {
    files.insert(files.end(), part.files.begin(), part.files.end());
  }
  std::vector<std::uint64_t> in_use;
  if (!job.formation.checkpoint.empty() && !job.formed) in_use.push_back(job.formation.base_step);
  add_steps_read(desk, job, in_use);
  // Should the answer to this commit be lost with its rank, the newest that is known must still be
  // there to go on from, however many are kept.
  if (!job.checkpoints.empty()) in_use.push_back(job.checkpoints.back().step);
  // Any of those that were asked for may be the newest that is ever known.
  in_use.insert(in_use.end(), job.commits_asked.begin(), job.commits_asked.end());
  if (!was_asked(job, open.step)) desk.record(CommitOrdered{.job = id, .step = open.step});
  desk.order(link, wire::CommitCheckpoint{.job = id,
                                          .generation = open.generation,
                                          .process = process->process,
                                          .step = open.step,
                                          .files = std::move(files),
                                          .keep = job.terms.checkpoints_kept,
                                          .in_use = std::move(in_use)});
  soft.committer = process->process;
  soft.committer_session = link.session;
  soft.commit_due = desk.now + desk.settings.commit_max;
}

void check_checkpoint_deadlines(Desk& desk, JobId id) {
  JobSoft& soft = desk.soft(id);
  const OpenCheckpoint& open = desk.job(id).open_checkpoint;
  if (soft.checkpoint_due && desk.now >= *soft.checkpoint_due) {
    soft.checkpoint_due.reset();
    if (open.step != 0 && !open.whole()) {
      drop(desk, id, open.step, "not all parts were written in time");
    }
  }
  if (soft.commit_due && desk.now >= *soft.commit_due) {
    soft.commit_due.reset();
    const ProcessId silent = std::exchange(soft.committer, {});
    desk.touch(id);
    if (++soft.commit_attempts < kCommitAttemptsMax || open.step == 0) return;
    if (is_last(desk, desk.job(id), silent)) {
      soft.commit_attempts = 0;
      return give_up_rank(
          desk, id, silent,
          {wire::FailureClass::infrastructure, "it did not commit the last checkpoint in time"});
    }
    drop(desk, id, open.step, "no rank committed it in time");
  }
}

}  // namespace tutti::coordinator
