#include "coordinator/life/admission.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "coordinator/cluster/job_life.h"
#include "coordinator/scheduler/dependencies.h"
#include "coordinator/scheduler/index.h"
#include "protocol/base/counted.h"

namespace tutti::coordinator {

Result<> admit(const Desk& desk, const std::string& owner, const JobTerms& terms) {
  if (desk.jobs.size() >= kQueuedJobsMax) {
    return Error{
        ErrorCode::exhausted,
        fmt::format("{} jobs are queued or running; wait until some have ended", kQueuedJobsMax)};
  }
  std::uint64_t waiting = 0;
  for (const auto& [user, load] : desk.board.users) waiting += load.queued;
  if (waiting + terms.array_count > kQueuedTasksMax) {
    return Error{
        ErrorCode::exhausted,
        fmt::format("{} jobs and tasks are queued, and {} are the most", waiting, kQueuedTasksMax)};
  }
  const scheduler::Quota quota = desk.board.quotas.of(owner);
  const auto user = desk.board.users.find(owner);
  const std::uint64_t queued = user == desk.board.users.end() ? 0 : user->second.queued;
  const std::uint64_t more = std::max(1U, terms.array_count);
  if (quota.queued && queued + more > *quota.queued) {
    return Error{ErrorCode::exhausted,
                 fmt::format("{} may have {} jobs queued, and has {} (an array counts its tasks)",
                             owner, *quota.queued, queued)};
  }
  if (quota.slots && terms.ranks_min > *quota.slots) {
    return Error{ErrorCode::exhausted, fmt::format("{} may hold {} slots, and this job needs {}",
                                                   owner, *quota.slots, terms.ranks_min)};
  }
  return check_dependencies(desk, terms);
}

namespace {

// What is worth saying at once: machines may still come, so it is accepted.
std::string notice_of(Desk& desk, const JobTerms& terms) {
  const std::uint64_t ever = desk.board.capacity.sum(shape_now(desk, terms)).ever;
  if (ever >= terms.ranks_min) return {};
  return fmt::format("it needs {} and the cluster has {} that suit it: it waits for more",
                     counted(terms.ranks_min, "slot"), ever);
}

}  // namespace

void on_submit(Desk& desk, const SubmitJob& input) {
  if (!input.key.empty()) {
    const std::optional<KeyRecord> known = desk.durable.with_key(input.owner, input.key);
    if (known && desk.wall.unix_ms - known->unix_ms < kKeyLifeMs) {
      if (known->spec_hash != hash_of_spec(input.yaml)) {
        return desk.refuse(input.request, ErrorCode::already_exists,
                           fmt::format("key {} was used for job {} with another spec", input.key,
                                       known->job.value));
      }
      if (!may_be_told_again(desk, known->job, input.request)) {
        return desk.refuse(input.request, ErrorCode::unavailable, "it is being stored; ask again");
      }
      return desk.answer(input.request, JobAccepted{.job = known->job, .existing = true});
    }
  }
  if (!desk.ledger_failure.empty()) {
    return desk.refuse(input.request, ErrorCode::unavailable, desk.full_disk());
  }
  Result<JobTerms> terms = terms_of(input.spec, desk.wall);
  if (!terms) {
    return desk.refuse(input.request, terms.error().code, terms.error().message);
  }
  refresh_board(desk);
  if (Result<> admitted = admit(desk, input.owner, *terms); !admitted) {
    return desk.refuse(input.request, admitted.error().code, admitted.error().message);
  }
  const JobId id = desk.durable.next_job();
  desk.record(JobSubmitted{.job = id,
                           .key = input.key,
                           .owner = input.owner,
                           .spec = input.yaml,
                           .folder = fmt::format("{}/{}", desk.settings.job_folders, id.value),
                           .terms = *std::move(terms),
                           .unix_ms = desk.wall.unix_ms});
  const JobRecord& job = desk.job(id);
  desk.note({.job = id,
             .kind = EventKind::submitted,
             .message = fmt::format("{} job {}", job.terms.kind, job.terms.name)});
  resume_job(desk, job);
  desk.soft(id).decision = desk.last_decision + 1;
  desk.soft(id).requests = {input.request};
  desk.answer(input.request,
              JobAccepted{.job = id, .existing = false, .notice = notice_of(desk, job.terms)});
  // Not placed before the submit is durable, so that it can still be taken back.
  desk.schedule_next = true;
}

}  // namespace tutti::coordinator
