#include "coordinator/pending_ends.h"

#include <fmt/format.h>

#include <boost/describe/enum_to_string.hpp>

#include <algorithm>
#include <iterator>
#include <utility>
#include <variant>

#include "coordinator/scheduler/arrays.h"

namespace tutti::coordinator {

namespace {

constexpr const char* kWaits = "the disk is full: how it ended is said once that is durable";

JobState job_state_of(TaskState state) {
  switch (state) {
    case TaskState::done: return JobState::done;
    case TaskState::failed: return JobState::failed;
    case TaskState::cancelled: return JobState::cancelled;
    default: return JobState::running;
  }
}

std::string stopping() { return boost::describe::enum_to_string(JobState::stopping, "stopping"); }

}  // namespace

void PendingEnds::note(const Fact& fact, const ClusterState& state) {
  const auto note_array = [&](JobId id) {
    const JobRecord* job = state.find_job(id);
    if (job != nullptr && job->terms.array_count != 0) arrays_[id] = job->terms.array_count;
  };
  if (const auto* settled = std::get_if<JobSettled>(&fact)) {
    if (!is_terminal(settled->outcome.state)) return;
    ends_[settled->job] = settled->outcome.state;
    note_array(settled->job);
  } else if (const auto* stopping = std::get_if<JobStopping>(&fact)) {
    note_array(stopping->job);
  } else if (const auto* cancelled = std::get_if<TaskCancelled>(&fact)) {
    ends_[task_id(cancelled->job, cancelled->index)] = JobState::cancelled;
  }
}

void PendingEnds::clear() {
  ends_.clear();
  arrays_.clear();
}

// Of an array that is stopped, which of its tasks were cancelled before is not told apart.
bool PendingEnds::takes_back(JobId job, JobState ended) const {
  if (!is_terminal(ended)) return false;
  if (ends_.contains(job)) return true;
  const auto after = arrays_.lower_bound(job);
  if (ended != JobState::cancelled || after == arrays_.begin()) return false;
  const auto& [array, tasks] = *std::prev(after);
  return job < task_id(array, tasks);
}

void PendingEnds::show(JobSummary& job) const {
  TaskCounts& tasks = job.tasks;
  const auto take_back = [&](std::uint32_t& ended, std::uint32_t count) {
    tasks.active += std::min(ended, count);
    ended -= std::min(ended, count);
  };
  const JobId behind = task_id(job.job, tasks.total());
  for (auto at = ends_.upper_bound(job.job); at != ends_.end() && at->first < behind; ++at) {
    if (at->second == JobState::done) take_back(tasks.done, 1);
    if (at->second == JobState::failed) take_back(tasks.failed, 1);
    if (at->second == JobState::cancelled) take_back(tasks.cancelled, 1);
  }
  if (arrays_.contains(job.job)) take_back(tasks.cancelled, tasks.cancelled);
  if (!takes_back(job.job, job.state)) return;
  job.state = JobState::stopping;
  job.exit_code.reset();
  job.ended_unix_ms = 0;
}

void PendingEnds::show(JobDetail& job) const {
  const bool pending = takes_back(job.summary.job, job.summary.state);
  show(job.summary);
  show(job.tasks);
  if (!pending) return;
  job.outcome = {};
  job.waiting = kWaits;
}

void PendingEnds::show(std::vector<TaskView>& tasks) const {
  for (TaskView& task : tasks) {
    if (!takes_back(task.job, job_state_of(task.state))) continue;
    task = {.index = task.index,
            .job = task.job,
            .state = TaskState::active,
            .phase = stopping(),
            .exit_code = std::nullopt,
            .message = {}};
  }
}

void PendingEnds::show(Explanation& explained) const {
  if (!takes_back(explained.job, explained.state)) return;
  Explanation shown;
  shown.job = explained.job;
  shown.state = JobState::stopping;
  shown.reason = ExplainReason::disk;
  shown.summary = kWaits;
  shown.lines = {fmt::format("job {}: {}", explained.job.value, kWaits)};
  explained = std::move(shown);
}

void PendingEnds::show(Durable::Counts& counts, const ClusterState& state) const {
  for (const auto& [id, ended] : ends_) {
    const JobRecord* job = state.find_job(id);
    if (job == nullptr || job->array) continue;  // tasks are their array's
    const auto at = counts.find({job->terms.kind, ended});
    if (at == counts.end()) continue;
    ++counts[{job->terms.kind, JobState::stopping}];
    if (--at->second == 0) counts.erase(at);
  }
}

}  // namespace tutti::coordinator
