// Programs that could not be started: the user's mistake (there is no such program), or the node's
// (an interpreter is missing there).
//
// The first time nobody is charged: the job queues again, and stays away from that node. Where it
// cannot be started on another one either, it is the user's, as it is where no other node suits it.
// Where it starts, in the next try or on another rank's node, it was the node, which is blamed
// (quarantine.h), and the job's array stays away from it, too.
#pragma once

#include <string>

#include "coordinator/cluster/desk.h"
#include "coordinator/cluster/recovery.h"

namespace tutti::coordinator {

enum class Refusal { by_user, may_be_node, by_node };

// The job's process could not be started on its node.
Refusal weigh_refusal(Desk& desk, const JobRecord& job, const ProcessRecord& process);
// To the queue, for another node; nobody is charged.
void try_elsewhere(Desk& desk, JobId job, const std::string& worker, const Loss& loss);
// The process has begun: what could not start it is to blame.
void prove_refusal(Desk& desk, const JobRecord& job, const ProcessRecord& process);
// The node was put in order: it is tried again.
void forget_refusals_by(Desk& desk, const std::string& worker);

}  // namespace tutti::coordinator
