#include "coordinator/cluster/release.h"

#include <utility>

#include "coordinator/cluster/job_life.h"

namespace tutti::coordinator {

bool is_releasing(const JobRecord& job) { return job.release.to != ReleaseTo::none; }

void release_job(Desk& desk, JobId id, Release release) {
  const JobRecord& job = desk.job(id);
  if (is_terminal(job.state) || release.to == ReleaseTo::resize) return;
  const bool ends = release.to == ReleaseTo::end;
  if (job.state == JobState::queued && !ends) return;
  stop_job(desk, id,
           {.state = ends ? JobState::cancelled : JobState::queued,
            .exit_code = ends ? 1 : 0,
            .failure = wire::FailureClass::none,
            .message = std::move(release.reason)});
}

}  // namespace tutti::coordinator
