#include "coordinator/life/starts.h"

#include <fmt/core.h>

#include <algorithm>
#include <vector>

#include "coordinator/cluster/job_life.h"
#include "coordinator/membership/quarantine.h"
#include "coordinator/scheduler/index.h"

namespace tutti::coordinator {

namespace {

// Another rank of the gang has begun elsewhere.
bool begun_elsewhere(const Desk& desk, const JobRecord& job, const ProcessRecord& process) {
  return std::any_of(job.members.begin(), job.members.end(), [&](ProcessId member) {
    const ProcessRecord* other = desk.durable.process(member);
    return other != nullptr && other->pid != 0 && other->worker != process.worker;
  });
}

// Whether there are other nodes for it, now or once they are free.
bool may_go_elsewhere(Desk& desk, const JobRecord& job, const std::string& worker) {
  refresh_board(desk);
  const scheduler::Shape shape = shape_of(job.terms);
  const std::uint64_t here = desk.board.capacity.fit(shape, worker).ever;
  return desk.board.capacity.sum(shape).ever - here >= job.terms.ranks_min;
}

}  // namespace

Refusal weigh_refusal(Desk& desk, const JobRecord& job, const ProcessRecord& process) {
  if (begun_elsewhere(desk, job, process)) return Refusal::by_node;
  const bool tried = !job.refused_on.empty();
  return tried || !may_go_elsewhere(desk, job, process.worker) ? Refusal::by_user
                                                               : Refusal::may_be_node;
}

void try_elsewhere(Desk& desk, JobId id, const std::string& worker, const Loss& loss) {
  desk.record(StartRefused{.job = id, .worker = worker, .proven = false});
  stop_job(desk, id,
           {.state = JobState::queued,
            .exit_code = 0,
            .failure = wire::FailureClass::none,
            .message = loss.message + "; another node is tried first"});
}

void prove_refusal(Desk& desk, const JobRecord& job, const ProcessRecord& process) {
  if (job.refused_on.empty() || job.refused_on == process.worker) return;
  const std::string worker = job.refused_on;
  desk.record(StartRefused{.job = job.job, .worker = worker, .proven = true});
  blame_for_refusal(
      desk, worker, job,
      fmt::format("its program could not be started there, and was on {}", process.worker));
}

void forget_refusals_by(Desk& desk, const std::string& worker) {
  std::vector<JobId> jobs;
  for (const auto& [id, job] : desk.durable.jobs()) {
    const auto& avoid = job.terms.avoid;
    if (!is_terminal(job.state) && std::binary_search(avoid.begin(), avoid.end(), worker)) {
      jobs.push_back(id);
    }
  }
  for (const JobId id : jobs) desk.record(RefusalsForgotten{.job = id});
}

}  // namespace tutti::coordinator
