// Nodes that cost more than they do: what is held against each, and when that is enough to set it
// aside.
//
//   jobs of kQuarantineUsers users failed there, or had programs that could not be started there
//   and were started elsewhere: until it is undrained
//   lost kLossesMax times: until it has stayed for ClusterSettings::steady, or is undrained; with
//   one more loss it is set aside again
//
// All that is held against a node counts for kBlameLife. None is set aside that does not stand out
// among the others, whose going would leave less than half of all, or that a job which is there
// could not do without.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "coordinator/cluster/desk.h"
#include "coordinator/cluster/recovery.h"

namespace tutti::coordinator {

inline constexpr Duration kBlameLife = std::chrono::hours(1);
inline constexpr std::uint32_t kQuarantineUsers = 3;
inline constexpr std::uint32_t kLossesMax = 5;

// A failure on the node that may be its doing; the user's own never is.
void blame_node(Desk& desk, const std::string& worker, const JobRecord& job, const Loss& loss);
// The job's program could not be started on the node, and was started elsewhere.
void blame_for_refusal(Desk& desk, const std::string& worker, const JobRecord& job,
                       const std::string& cause);
// It has just been lost, and nobody had asked for that.
void blame_for_loss(Desk& desk, const std::string& worker, const std::string& reason);

// What the node is blamed for at this time, and of how many users: "3 failures of 2 users in the
// last 60 min: job 7 of ann: ended by signal 9; ...". Empty if there is nothing.
struct NodeScore {
  std::uint32_t failures = 0;  // and programs that could not be started
  std::uint32_t users = 0;
  std::uint32_t losses = 0;
  std::string message;
};
NodeScore score_of(const WorkerRecord& worker, std::int64_t now_unix_ms);

// "once it has stayed for 15 min without a loss, or by `tutti undrain NODE`"; empty: nothing is to
// end.
std::string what_ends(const WorkerRecord& worker);

// When a node that was set aside for its losses takes work again, if nothing happens to it.
std::optional<Instant> steady_due(const Desk& desk, const std::string& worker,
                                  const WorkerLink& link);
// Takes those back that are due.
void take_back_steady(Desk& desk);

}  // namespace tutti::coordinator
