// Jobs that wait for the end of others: `after: {ok: [...], failed: [...], any: [...]}`.
//
// What is left of a job's dependencies is durable, so that a job they named can be forgotten once
// it has ended. A dependency that can never hold ends the job, with a line that says why.
#pragma once

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

// The jobs exist and can be waited for. Errors: not_found, invalid_argument.
Result<> check_dependencies(const Desk& desk, const JobTerms& terms);

// Takes what has ended off the job's list; may end the job.
void advance_dependencies(Desk& desk, JobId job);

// Who waits for the job is looked at again.
void wake_dependents(Desk& desk, JobId ended);

}  // namespace tutti::coordinator
