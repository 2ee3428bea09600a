#include "coordinator/scheduler/dependencies.h"

#include <fmt/core.h>
#include <boost/describe/enum_to_string.hpp>

#include <utility>

#include "coordinator/cluster/job_life.h"
#include "coordinator/scheduler/arrays.h"

namespace tutti::coordinator {

namespace {

bool holds(const Dependency& dependency, JobState ended) {
  if (dependency.on == "ok") return ended == JobState::done;
  if (dependency.on == "failed") return ended == JobState::failed;
  return true;
}

}  // namespace

Result<> check_dependencies(const Desk& desk, const JobTerms& terms) {
  for (const Dependency& each : terms.after) {
    if (desk.durable.job(each.job) != nullptr) continue;
    const std::string where = fmt::format("after.{}", each.on);
    if (each.job >= desk.durable.next_job()) {
      return Error{ErrorCode::not_found,
                   fmt::format("{}: there is no job {}", where, each.job.value)};
    }
    if (const JobRecord* array = array_of(desk, each.job)) {
      return Error{ErrorCode::invalid_argument,
                   fmt::format("{}: job {} is a task of array {}; name the array", where,
                               each.job.value, array->job.value)};
    }
    return Error{ErrorCode::not_found,
                 fmt::format("{}: job {} has been forgotten, and how it ended with it", where,
                             each.job.value)};
  }
  return {};
}

void advance_dependencies(Desk& desk, JobId id) {
  const std::vector<Dependency> left = desk.job(id).dependencies;
  for (const Dependency& each : left) {
    const JobRecord* on = desk.durable.job(each.job);
    if (on != nullptr && !is_terminal(on->state)) {
      desk.board.dependents[each.job].insert(id);
      continue;
    }
    if (on != nullptr && holds(each, on->state)) {
      desk.record(DependencyMet{.job = id, .on = each.job, .unix_ms = desk.wall.unix_ms});
      watch_queue_limit(desk, desk.job(id));
      desk.capacity_changed();
      continue;
    }
    const std::string ended =
        on == nullptr ? "is not known any more"
                      : fmt::format("ended {}", boost::describe::enum_to_string(on->state, "?"));
    return stop_job(desk, id,
                    {.state = JobState::cancelled,
                     .exit_code = 5,
                     .failure = wire::FailureClass::none,
                     .message = fmt::format("after.{}: job {} {}, so this job can never start",
                                            each.on, each.job.value, ended)});
  }
}

void wake_dependents(Desk& desk, JobId ended) {
  const auto at = desk.board.dependents.find(ended);
  if (at == desk.board.dependents.end()) return;
  const std::set<JobId> waiting = std::move(at->second);
  desk.board.dependents.erase(at);
  for (const JobId id : waiting) {
    const JobRecord* job = desk.durable.job(id);
    if (job != nullptr && job->state == JobState::queued) advance_dependencies(desk, id);
  }
}

}  // namespace tutti::coordinator
