// Which submits are taken.
//
// What can wait is taken, also if nothing that suits it is there: machines come and go, and the
// answer says so. Refused is what may never run (beyond its user's slots, a dependency that is not
// known) and what is too much (queues, kQueuedJobsMax).
#pragma once

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

void on_submit(Desk& desk, const SubmitJob& input);

}  // namespace tutti::coordinator
