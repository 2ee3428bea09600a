#include "coordinator/scheduler/arrays.h"

#include <fmt/core.h>
#include <boost/describe/enum_to_string.hpp>

#include <algorithm>
#include <utility>

#include "coordinator/cluster/job_life.h"

namespace tutti::coordinator {

namespace {

constexpr std::string_view kIndex = "${index}";

TaskState state_of(char letter) {
  switch (letter) {
    case 'a': return TaskState::active;
    case 'd': return TaskState::done;
    case 'f': return TaskState::failed;
    case 'c': return TaskState::cancelled;
    default: return TaskState::waiting;
  }
}

JobState job_state_of(TaskState state) {
  switch (state) {
    case TaskState::done: return JobState::done;
    case TaskState::failed: return JobState::failed;
    case TaskState::cancelled: return JobState::cancelled;
    default: return JobState::queued;
  }
}

const TaskEnd* end_of(const JobRecord& array, std::uint32_t index) {
  const auto at = std::find_if(array.tasks.ends.begin(), array.tasks.ends.end(),
                               [&](const TaskEnd& end) { return end.index == index; });
  return at == array.tasks.ends.end() ? nullptr : &*at;
}

Outcome outcome_of(const JobRecord& array) {
  const ArrayTasks& tasks = array.tasks;
  if (tasks.failed == 0 && tasks.cancelled == 0) {
    return {.state = JobState::done,
            .exit_code = 0,
            .failure = wire::FailureClass::none,
            .message = {}};
  }
  const auto first = std::find_if(tasks.ends.begin(), tasks.ends.end(), [&](const TaskEnd& end) {
    return tasks.failed == 0 || tasks.states[end.index] == 'f';
  });
  const bool failed = tasks.failed != 0;
  Outcome out{.state = failed ? JobState::failed : JobState::cancelled,
              .exit_code = 1,
              .failure = wire::FailureClass::none,
              .message = fmt::format("{} of {} tasks {}", failed ? tasks.failed : tasks.cancelled,
                                     tasks.states.size(), failed ? "failed" : "were cancelled")};
  if (first == tasks.ends.end()) return out;
  out.exit_code = first->exit_code;
  out.failure = first->failure;
  out.code = first->code;
  out.signal = first->signal;
  if (!first->message.empty()) {
    out.message += fmt::format("; the first was task {}: {}", first->index, first->message);
  }
  return out;
}

TaskView view_of(const Desk& desk, const JobRecord& array, std::uint32_t index) {
  TaskView view{.index = index,
                .job = task_id(array.job, index),
                .state = state_of(array.tasks.states[index]),
                .phase = {},
                .exit_code = std::nullopt,
                .message = {}};
  if (view.state == TaskState::done) view.exit_code = 0;
  if (view.state == TaskState::active) {
    view.phase = boost::describe::enum_to_string(desk.job(view.job).state, "unknown");
  }
  return view;
}

void add_end(TaskView& view, const TaskEnd& end) {
  view.exit_code = end.exit_code;
  view.message = end.message;
  view.code = end.code;
  view.signal = end.signal;
}

}  // namespace

const JobRecord* array_of(const Desk& desk, JobId task) {
  const auto& jobs = desk.durable.jobs();
  auto at = jobs.upper_bound(task);
  if (at == jobs.begin()) return nullptr;
  const JobRecord* near = &std::prev(at)->second;
  if (near->array) near = desk.durable.job(near->array);
  if (near == nullptr || near->job == task) return nullptr;
  return task.value <= near->job.value + near->terms.array_count ? near : nullptr;
}

JobId start_task(Desk& desk, JobId array) {
  const JobRecord& job = desk.job(array);
  const bool first = job.state == JobState::queued;
  const std::uint32_t index = job.tasks.next;
  const JobId id = task_id(job.job, index);
  JobSoft& soft = desk.soft(array);
  soft.waiting.clear();
  soft.queued_due.reset();
  soft.full_size_due.reset();
  soft.overdue_due.reset();
  desk.record(TaskStarted{.job = id, .array = array, .index = index});
  desk.touch(array);
  if (first) {
    desk.note({.job = array,
               .kind = EventKind::running,
               .message = fmt::format("{} tasks", desk.job(array).terms.array_count)});
  }
  resume_job(desk, desk.job(id));
  return id;
}

void fold_task(Desk& desk, JobId task) {
  const JobId array = desk.job(task).array;
  desk.record(JobForgotten{.job = task});
  desk.touched.erase(task);
  if (desk.durable.job(array) != nullptr) desk.touch(array);
}

void advance_array(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  if (job.tasks.waiting != 0) desk.capacity_changed();
  if (job.tasks.waiting == 0 && job.tasks.active == 0) stop_job(desk, id, outcome_of(job));
}

void stop_tasks(Desk& desk, JobId array, const Outcome& outcome) {
  std::vector<JobId> active;
  const auto& jobs = desk.durable.jobs();
  const JobId last = JobId{array.value + desk.job(array).terms.array_count};
  for (auto at = jobs.upper_bound(array); at != jobs.end() && at->first <= last; ++at) {
    active.push_back(at->first);
  }
  for (const JobId task : active) stop_job(desk, task, outcome);
}

void cancel_task(Desk& desk, const JobRecord& array, JobId task, const std::string& message) {
  const auto index = static_cast<std::uint32_t>(task.value - array.job.value - 1);
  if (array.tasks.states[index] != 'w') return;
  desk.record(TaskCancelled{.job = array.job, .index = index, .message = message});
  desk.touch(array.job);
}

std::string spec_of_task(std::string_view spec, std::uint32_t index) {
  std::string out;
  const std::string number = std::to_string(index);
  for (std::size_t from = 0;;) {
    const std::size_t at = spec.find(kIndex, from);
    out += spec.substr(from, at == spec.npos ? spec.npos : at - from);
    if (at == spec.npos) return out;
    out += number;
    from = at + kIndex.size();
  }
}

std::vector<TaskView> task_views(const Desk& desk, const JobRecord& array) {
  std::vector<TaskView> out;
  out.reserve(array.tasks.states.size());
  for (std::uint32_t index = 0; index < array.tasks.states.size(); ++index) {
    out.push_back(view_of(desk, array, index));
  }
  for (const TaskEnd& end : array.tasks.ends) {
    add_end(out[end.index], end);
  }
  return out;
}

std::vector<TaskView> telling_tasks(const Desk& desk, const JobRecord& array) {
  std::vector<TaskView> out;
  for (std::uint32_t index = 0; index < array.tasks.states.size() && out.size() < kTasksListed;
       ++index) {
    const char letter = array.tasks.states[index];
    if (letter == 'w' || letter == 'd') continue;
    out.push_back(view_of(desk, array, index));
    const TaskEnd* end = end_of(array, index);
    if (end != nullptr) add_end(out.back(), *end);
  }
  return out;
}

std::optional<JobDetail> task_detail(const Desk& desk, JobId task) {
  const JobRecord* array = array_of(desk, task);
  if (array == nullptr) return std::nullopt;
  const auto index = static_cast<std::uint32_t>(task.value - array->job.value - 1);
  JobDetail out;
  out.summary.job = task;
  out.summary.name = fmt::format("{}.{}", array->terms.name, index);
  out.summary.kind = array->terms.kind;
  out.summary.owner = array->owner;
  out.summary.priority = array->terms.priority;
  out.summary.submitted_unix_ms = array->submitted_unix_ms;
  out.spec = spec_of_task(array->spec, index);
  out.folder = fmt::format("{}/{}", array->folder, index);
  const TaskState state = state_of(array->tasks.states[index]);
  out.summary.state = job_state_of(state);
  if (state == TaskState::waiting) {
    out.waiting = fmt::format("waits for its turn among the {} tasks of array {}",
                              array->tasks.waiting, array->job.value);
    return out;
  }
  out.summary.exit_code = state == TaskState::done ? 0 : 1;
  // When is not kept for each; the array's own end, or just now.
  out.summary.ended_unix_ms = is_terminal(array->state) ? array->ended_unix_ms : desk.wall.unix_ms;
  out.outcome.state = out.summary.state;
  if (const TaskEnd* end = end_of(*array, index)) {
    out.summary.exit_code = end->exit_code;
    out.outcome.exit_code = end->exit_code;
    out.outcome.failure = end->failure;
    out.outcome.message = end->message;
    out.outcome.code = end->code;
    out.outcome.signal = end->signal;
  }
  return out;
}

}  // namespace tutti::coordinator
