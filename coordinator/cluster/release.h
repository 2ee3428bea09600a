// Asking a running job to leave its slots, or to go on with other ones, at a step that all its
// ranks have in common.
//
//   release_job -> JobReleasing -> SetFlags(save, stop) ride on the next step's exchange
//               -> every rank saves its part and has finished, after the same step
//               -> queue (keeps its place) | end (cancelled) | resize (regroups with `next`)
//
// A change of size first starts its newcomers, while the others go on; they are asked to stop once
// the newcomers are ready, so that the pause is one regrouping and one copy. Bounded by the notice:
// a job that has not left by then is stopped hard and its last checkpoint counts; a change of size
// is given up. A job that is between two generations lets one full holder save alone. Programs of
// `run` jobs get SIGTERM and what is left of the notice, then SIGKILL.
//
// Decisions (whom to preempt, when to grow) are the scheduler's.
#pragma once

#include <string>
#include <vector>

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

struct Release {
  ReleaseTo to = ReleaseTo::queue;
  ReleaseCause cause = ReleaseCause::preempted;
  std::string reason = {};                // one line: who needs the slots, or why
  Duration notice = {};                   // 0: ClusterSettings::notice
  std::vector<ProcessId> keep = {};       // resize: members that go on, in the order of their ranks
  std::vector<Placement> newcomers = {};  // resize: started beside them; ids from next_process()
};

// Asks the job to leave. Does nothing if it is leaving already in a way that is at least as final,
// or has ended. What has nothing to save (queued, placed, not formed yet) leaves at once.
void release_job(Desk& desk, JobId job, Release release);

// Whether retries.preemptions leaves room for another one; release_job refuses it otherwise.
bool may_preempt(const JobRecord& job);

// Whether the job was asked to leave, or to change its size, and has not done so yet.
bool is_releasing(const JobRecord& job);

// What the release needs next; for a job that has not begun to stop.
// A release that is under way, to the queue or to an end, has no more time than this from now on.
void hasten_release(Desk& desk, JobId job, Duration notice);
// What is left of its notice.
Duration notice_left(const Desk& desk, const ReleaseRecord& release);

void advance_release(Desk& desk, JobId job);
// Every rank has finished after a common step that is not the job's last.
void finish_release(Desk& desk, JobId job);
// The generation ended otherwise: a change of size is given up.
void drop_resize(Desk& desk, JobId job, const std::string& reason);
void check_release_deadline(Desk& desk, JobId job);
// The release's deadline, for a job that was read from the ledger.
void resume_release(Desk& desk, JobId job);

// Whether ranks of the living generation are to be told to stop after a step.
bool wants_flags(Desk& desk, const JobRecord& job);

}  // namespace tutti::coordinator
