#include "coordinator/cluster/release.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "coordinator/cluster/job_life.h"
#include "coordinator/cluster/recovery.h"
#include "coordinator/scheduler/schedule.h"
#include "protocol/base/assert.h"
#include "protocol/base/counted.h"

namespace tutti::coordinator {

namespace {

// What the release is for, once the job has left.
Outcome outcome_of(const ReleaseRecord& release) {
  const bool ends = release.to == ReleaseTo::end;
  return {.state = ends ? JobState::cancelled : JobState::queued,
          .exit_code = ends ? 1 : 0,
          .failure = wire::FailureClass::none,
          .message = release.reason};
}

// A more final release replaces one that is under way.
bool may_replace(const ReleaseRecord& old, ReleaseTo to) {
  return to == ReleaseTo::end && old.to != ReleaseTo::end;
}

// Whether a resize makes sense now: the whole gang stands and stays.
bool can_resize(const Desk& desk, const JobRecord& job, const Release& release) {
  const bool kind = job.terms.kind == "train" || job.terms.kind == "serve";
  const std::size_t size = release.keep.size() + release.newcomers.size();
  if (!kind || !job.generation_alive || !job.formed || is_releasing(job)) return false;
  if (size < job.terms.ranks_min || size > job.terms.ranks_max) return false;
  const auto stays = [&](ProcessId process) {
    return desk.durable.process(process) != nullptr && is_member(job, process);
  };
  return std::all_of(release.keep.begin(), release.keep.end(), stays);
}

ReleaseRecord record_of(const Desk& desk, const JobRecord& job, Release& release) {
  const Duration notice = release.notice.count() > 0 ? release.notice : desk.settings.notice;
  ReleaseRecord out{.to = release.to,
                    .cause = release.cause,
                    .reason = std::move(release.reason),
                    .begun_unix_ms = desk.wall.unix_ms,
                    .due_unix_ms = desk.wall.unix_ms + to_ms(notice),
                    .save = false,
                    .next = {}};
  if (release.to == ReleaseTo::resize) {
    out.next = std::move(release.keep);
    // Without a rank that stays, the state has to pass through a checkpoint.
    out.save = out.next.empty() && job.terms.kind == "train";
    for (const Placement& place : release.newcomers) out.next.push_back(place.process);
  } else {
    out.save = job.terms.kind == "train";
  }
  return out;
}

void announce(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  const ReleaseRecord& release = job.release;
  const char* what = release.to == ReleaseTo::resize ? "changes its ranks" : "leaves its slots";
  desk.note({.job = id,
             .kind = EventKind::releasing,
             .message = fmt::format("{} within {} s: {}", what,
                                    (release.due_unix_ms - release.begun_unix_ms + 999) / 1000,
                                    release.reason),
             .generation = job.generation});
  resume_release(desk, id);
}

// Ranks have a state that no checkpoint holds, or may have.
bool may_save(const JobRecord& job) {
  if (job.terms.kind != "train") return false;
  return job.state == JobState::running || job.state == JobState::recovering;
}

// Between two generations: the survivor whose newest known state is the furthest.
const ProcessRecord* choose_holder(Desk& desk, const JobRecord& job) {
  const ProcessRecord* best = nullptr;
  std::uint64_t best_step = 0;
  for (const ProcessId member : job.members) {
    const ProcessRecord* process = desk.durable.process(member);
    if (process == nullptr || desk.link_of(*process) == nullptr) continue;
    const ProcessSoft& soft = desk.processes[member];
    // One that never stood in a group, nor brought a state with it, has none.
    if (!soft.formed && !soft.held.whole) continue;
    const std::uint64_t step = std::max(soft.held.step, soft.formed ? soft.formed->step : 0);
    if (best != nullptr && step <= best_step) continue;
    best = process;
    best_step = step;
  }
  return best;
}

void save_alone(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  JobSoft& soft = desk.soft(id);
  if (soft.settle_until && desk.now < *soft.settle_until) return;
  const ProcessRecord* holder = choose_holder(desk, job);
  if (holder == nullptr) return stop_job(desk, id, outcome_of(job.release));
  if (!charge_interruption(desk, id)) return;
  start_generation(desk, id, {stay(*holder)});
}

bool is_ready(Desk& desk, ProcessId process, Generation generation) {
  const auto& ready = desk.processes[process].ready;
  return ready && ready->generation == generation;
}

// Every process that is started for the next generation has its state set up.
bool newcomers_ready(Desk& desk, const JobRecord& job) {
  return std::all_of(job.release.next.begin(), job.release.next.end(), [&](ProcessId process) {
    return is_member(job, process) || is_ready(desk, process, Generation{job.generation.value + 1});
  });
}

void regroup(Desk& desk, JobId id, const std::vector<ProcessId>& next, const std::string& cause) {
  std::vector<Placement> gang;
  for (const ProcessId process : next) gang.push_back(stay(*desk.durable.process(process)));
  const std::size_t before = desk.job(id).members.size();
  ++desk.counters.resizes;
  end_generation(desk, id, cause);
  start_generation(desk, id, std::move(gang));
  const JobRecord& job = desk.job(id);
  desk.note({.job = id,
             .kind = EventKind::resized,
             .message = fmt::format("goes on with {} instead of {}: {}",
                                    counted(job.members.size(), "rank"), before, cause),
             .generation = job.generation});
}

// The step that all have finished after is in a checkpoint, or this generation could not write it.
bool has_saved(Desk& desk, const JobRecord& job) {
  if (job.members.empty()) return true;
  const auto& finished = desk.processes[job.members.front()].finished;
  const std::uint64_t step = finished ? finished->step : 0;
  if (job.dropped_step >= step) return true;
  return !job.checkpoints.empty() && job.checkpoints.back().step >= step;
}

void advance_resize(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  for (const ProcessId process : job.release.next) {
    const ProcessRecord* record = desk.durable.process(process);
    if (record == nullptr || record->lost || record->ordered_to_stop) {
      return drop_resize(desk, id, "a newcomer was lost");
    }
  }
  // Nothing rides on a step of a serve job: the old rank ends once the new one serves.
  if (job.terms.kind == "serve" && newcomers_ready(desk, job)) finish_release(desk, id);
}

}  // namespace

bool is_releasing(const JobRecord& job) { return job.release.to != ReleaseTo::none; }

bool may_preempt(const JobRecord& job) {
  return job.terms.preemptions_max == 0 || job.preemptions < job.terms.preemptions_max;
}

void release_job(Desk& desk, JobId id, Release release) {
  const JobRecord& job = desk.job(id);
  if (release.cause == ReleaseCause::preempted && !may_preempt(job)) return;
  const bool resizes = release.to == ReleaseTo::resize;
  if (is_terminal(job.state) || release.to == ReleaseTo::none) return;
  if (resizes && !can_resize(desk, job, release)) return;
  if (job.state == JobState::queued || job.state == JobState::stopping) {
    if (release.to != ReleaseTo::end) return;
    Outcome outcome = outcome_of(record_of(desk, job, release));
    return stop_job(desk, id, std::move(outcome));
  }
  if (job.release.to == ReleaseTo::resize && !resizes) {
    drop_resize(desk, id, release.reason);
  } else if (is_releasing(job) && !may_replace(job.release, release.to)) {
    return hasten_release(desk, id,
                          release.notice.count() > 0 ? release.notice : desk.settings.notice);
  }
  std::vector<Placement> newcomers = release.newcomers;
  desk.record(JobReleasing{
      .job = id, .release = record_of(desk, job, release), .newcomers = std::move(newcomers)});
  announce(desk, id);
  if (!resizes && !may_save(job)) stop_job(desk, id, outcome_of(job.release));
}

void hasten_release(Desk& desk, JobId id, Duration notice) {
  const JobRecord& job = desk.job(id);
  const std::int64_t due = desk.wall.unix_ms + to_ms(notice);
  const bool leaves = job.release.to == ReleaseTo::queue || job.release.to == ReleaseTo::end;
  if (!leaves || due >= job.release.due_unix_ms) return;
  ReleaseRecord sooner = job.release;
  sooner.due_unix_ms = due;
  desk.record(JobReleasing{.job = id, .release = std::move(sooner), .newcomers = {}});
  if (job.state != JobState::stopping) resume_release(desk, id);
}

void advance_release(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  if (job.release.to == ReleaseTo::resize) return advance_resize(desk, id);
  // A group that forms or works hears of it at its next step, or when it enters.
  if (job.generation_alive) return;
  save_alone(desk, id);
}

void finish_release(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  const ReleaseRecord release = job.release;
  if (release.to != ReleaseTo::resize && release.save && !has_saved(desk, job)) {
    // They were told to stop for a change of size that this release took the place of.
    const std::vector<ProcessId> members = job.members;
    return regroup(desk, id, members, "it has not saved yet");
  }
  switch (release.to) {
    case ReleaseTo::queue:
      desk.note({.job = id,
                 .kind = EventKind::preempted,
                 .message = fmt::format("left after step {}: {}", desk.soft(id).newest_step,
                                        release.reason),
                 .generation = job.generation,
                 .step = desk.soft(id).newest_step});
      return stop_job(desk, id, outcome_of(release));
    case ReleaseTo::end: return stop_job(desk, id, outcome_of(release));
    case ReleaseTo::resize:
      if (newcomers_ready(desk, job)) return regroup(desk, id, release.next, release.reason);
      drop_resize(desk, id, "a newcomer was not ready");
      break;
    case ReleaseTo::none: break;
  }
  // Asked to leave by a release that came to nothing meanwhile: the same ranks go on.
  const std::vector<ProcessId> members = job.members;
  regroup(desk, id, members, "it goes on as it was");
}

void drop_resize(Desk& desk, JobId id, const std::string& reason) {
  const JobRecord& job = desk.job(id);
  const std::vector<ProcessId> next = job.release.next;
  desk.record(ReleaseEnded{.job = id, .reason = reason});
  desk.soft(id).release_due.reset();
  for (const ProcessId process : next) {
    const ProcessRecord* record = desk.durable.process(process);
    if (record == nullptr || record->ordered_to_stop || is_member(job, process)) continue;
    desk.record(ProcessStopOrdered{.process = process});
  }
  // A node that is drained is to be left in another way.
  desk.capacity_changed();
  desk.note({.job = id,
             .kind = EventKind::resized,
             .message = fmt::format("stays at {}: {}", counted(job.size, "rank"), reason),
             .generation = job.generation});
}

void check_release_deadline(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  desk.soft(id).release_due.reset();
  if (!is_releasing(job) || job.state == JobState::stopping) return;
  if (job.release.to == ReleaseTo::resize) return drop_resize(desk, id, "it took too long");
  Outcome outcome = outcome_of(job.release);
  outcome.message += " (stopped hard: the notice was over)";
  stop_job(desk, id, std::move(outcome));
}

void resume_release(Desk& desk, JobId id) {
  const ReleaseRecord& release = desk.job(id).release;
  if (release.to == ReleaseTo::none) return;
  desk.soft(id).release_due = desk.now + notice_left(desk, release);
}

Duration notice_left(const Desk& desk, const ReleaseRecord& release) {
  const std::int64_t left = release.due_unix_ms - desk.wall.unix_ms;
  // More than the whole of it: the time of day was set back meanwhile.
  const std::int64_t whole = std::max<std::int64_t>(0, release.due_unix_ms - release.begun_unix_ms);
  return std::chrono::milliseconds(std::clamp<std::int64_t>(left, 0, whole));
}

bool wants_flags(Desk& desk, const JobRecord& job) {
  if (!is_releasing(job) || job.terms.kind != "train") return false;
  return job.release.to != ReleaseTo::resize || newcomers_ready(desk, job);
}

}  // namespace tutti::coordinator
