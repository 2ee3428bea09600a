// Why a job is where it is: position, what is missing, who holds it, when it starts at the latest.
//
// Made on request from the same indices that decide, so that it says what the scheduler does. It
// looks at every job that is ahead and at every node that suits: a few milliseconds for 100,000
// jobs.
#pragma once

#include <string>

#include "coordinator/cluster/cluster_views.h"
#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

Explanation explain(Desk& desk, JobId job);

// The same of a job that was not submitted: what would become of it now. `reason` is `now` if it
// would start at once. Nothing changes. Errors: those that a submit would be refused with.
Result<Explanation> plan(Desk& desk, const std::string& owner, const spec::JobSpec& spec);

// One line: what the job waits for; empty if it waits for nothing.
std::string waiting_line(Desk& desk, const JobRecord& job);

}  // namespace tutti::coordinator
