// A job from submit to its end: what it needs next, and when it is over.
//
// advance() looks at the whole of a job's state and makes every transition that it allows; it is
// called for each job that an input touched, until nothing changes.
#pragma once

#include "coordinator/cluster/desk.h"
#include "protocol/spec/job_spec.h"

namespace tutti::coordinator {

// Errors: unsupported (a kind that this version does not run), invalid_argument.
// `now`: of the submit, for a delay.
Result<JobTerms> terms_of(const spec::JobSpec& spec, WallTime now);

void on_cancel(Desk& desk, const CancelJob& input);
void on_fault(Desk& desk, const InjectFault& input);
void on_hash_mismatch(Desk& desk, const StepHashMismatch& input);
void on_ledger_failed(Desk& desk, const LedgerFailed& input);

void on_report(Desk& desk, const wire::RankStarted& report);
void on_report(Desk& desk, const wire::RankReady& report);
void on_report(Desk& desk, const wire::GroupFormed& report);
void on_report(Desk& desk, const wire::FirstStepDone& report);
void on_report(Desk& desk, const wire::RankFinished& report);

// Decides the outcome; it takes effect when no process is left. A later decision replaces one that
// only queues the job again.
void stop_job(Desk& desk, JobId job, Outcome outcome);

void advance(Desk& desk, JobId job);
void check_job_deadlines(Desk& desk, JobId job);
// Deadlines of a job that was read from the ledger.
void resume_job(Desk& desk, const JobRecord& job);
// limit.queued of a job that waits for its turn and for no other job; limit.time of one that runs.
void watch_queue_limit(Desk& desk, const JobRecord& job);
void watch_time_limit(Desk& desk, const JobRecord& job);
void close_serving(Desk& desk, JobId job);

}  // namespace tutti::coordinator
