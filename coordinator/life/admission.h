// Which submits are taken.
//
// What can wait is taken, also if nothing that suits it is there: machines come and go, and the
// answer says so. Refused is what may never run (beyond its user's slots, a dependency that is not
// known) and what is too much (queues, kQueuedJobsMax).
#pragma once

#include <string>

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

// Whether one more job like this would be taken. Errors: exhausted, and those of dependencies.
Result<> admit(const Desk& desk, const std::string& owner, const JobTerms& terms);

void on_submit(Desk& desk, const SubmitJob& input);

}  // namespace tutti::coordinator
