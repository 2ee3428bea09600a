// Nodes that get no new work: drained on request, leaving by themselves (SIGTERM), or quarantined
// because jobs of several users failed there.
//
// A draining node is empty by its deadline (I16). Where there is room elsewhere, a server's
// successor is started there and takes over before the old one ends, and a training job that has
// ranks on other nodes moves only those that are here, or goes on with fewer. All others are asked
// to leave (release.h) with what is left of that time as their notice: training jobs save and queue
// again, programs get their SIGTERM and a grace. So is a move that came to nothing.
//
// What a node is blamed for counts for kBlameLife; the failures of kQuarantineUsers different users
// in that time put it into quarantine, which only an undrain ends.
#pragma once

#include <string>
#include <vector>

#include "coordinator/cluster/desk.h"
#include "coordinator/cluster/recovery.h"

namespace tutti::coordinator {

void on_drain(Desk& desk, const DrainNode& input);
void on_undrain(Desk& desk, const UndrainNode& input);
void on_leaving(Desk& desk, const WorkerLink& link, const wire::WorkerLeaving& report);

// A failure on the node that may be its doing; the user's own never is.
void blame_node(Desk& desk, const std::string& worker, const JobRecord& job, const Loss& loss);

// What the node is blamed for at this time, and of how many users: "3 failures of 2 users in the
// last 60 min: job 7 of ann: ended by signal 9; ...". Empty if there is nothing.
struct NodeScore {
  std::uint32_t failures = 0;
  std::uint32_t users = 0;
  std::string message;
};
NodeScore score_of(const WorkerRecord& worker, std::int64_t now_unix_ms);

// Asks every job that is on a draining node to leave it, and says when the node is empty. Cheap
// where no node drains.
void advance_drains(Desk& desk);

}  // namespace tutti::coordinator
