// Arrays: one job as many tasks (DESIGN jobs, decision record on arrays).
//
// An array is one record with a letter a task. A task becomes a job of its own when its turn comes,
// lives like every other job (gang, generations, retries, logs), and is folded into its array when
// it has ended. Ids are fixed at the submit: task i of array N is job N + 1 + i, whether it is
// active or not. In the spec of task i, ${index} is i.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/cluster/cluster_views.h"
#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

constexpr JobId task_id(JobId array, std::uint32_t index) { return JobId{array.value + 1 + index}; }
// The array that has a task with this id; none: no array that is remembered has.
const JobRecord* array_of(const Desk& desk, JobId task);

// The next task of the array is a job from here on; its id.
JobId start_task(Desk& desk, JobId array);
// A task that has ended is folded into its array.
void fold_task(Desk& desk, JobId task);
// All tasks have ended: so has the array.
void advance_array(Desk& desk, JobId array);

// Stops those that are active.
void stop_tasks(Desk& desk, JobId array, const Outcome& outcome);
// A task that is not a job of its own now: it will not become one.
void cancel_task(Desk& desk, const JobRecord& array, JobId task, const std::string& message);

// The spec with the task's number in place of ${index}.
std::string spec_of_task(std::string_view spec, std::uint32_t index);

// Those that are active or did not end well, at most kTasksListed.
std::vector<TaskView> telling_tasks(const Desk& desk, const JobRecord& array);
// All, by index.
std::vector<TaskView> task_views(const Desk& desk, const JobRecord& array);
// Of a task that is not a job of its own now.
std::optional<JobDetail> task_detail(const Desk& desk, JobId task);

}  // namespace tutti::coordinator
