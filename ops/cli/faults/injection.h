// One fault given to the cluster, and taken back: what `tutti fault ...` and a schedule both do.
//
// Errors: those of the API (not_found: no such living rank or node; permission_denied: a cluster
// without --faults); unavailable (the part does not run just now); not_found (`tutti up` does not
// run on this machine with this state folder, which alone lets a coordinator be killed).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ops/cli/client/api.h"
#include "ops/cli/faults/fault_kinds.h"

namespace tutti::cli {

struct FaultOrder {
  FaultKind kind = FaultKind::kill_rank;
  std::uint64_t job = 0;
  std::uint32_t rank = 0;
  std::string node = {};
  std::uint64_t lasts_ms = 0;
  std::uint64_t delay_ms = 0;
};

Result<> inject_fault(Api& api, const FaultOrder& order);
Result<> continue_rank(Api& api, std::uint64_t job, std::uint32_t rank);
// Ends the faults of a node.
Result<> heal_node(Api& api, const std::string& node);

// Kills the "coordinator" or "worker" of the `tutti up --faults` on this state folder; its pid.
Result<pid_t> kill_part(std::string_view part);
// Whether that could be done. Errors: as kill_part, and permission_denied.
Result<> check_local_cluster();

// What a run of faults has to take back, whenever it ends: stopped ranks go on, nodes are healed,
// jobs that it submitted are cancelled. What was said once to be over is not touched.
//
// Threads: any.
class FaultUndo {
 public:
  // Whether more may be broken; not once it was undone. Each before its order is given.
  bool stops_rank(std::uint64_t job, std::uint32_t rank);
  bool breaks_node(const std::string& node);
  bool submits();
  bool is_undone() { return !submits(); }
  void submitted(std::uint64_t job);

  void continued(std::uint64_t job, std::uint32_t rank);
  void healed(const std::string& node);
  void ended(std::uint64_t job);

  // What was taken back, and what could not be, a sentence each.
  std::vector<std::string> undo(Api& api);

 private:
  std::mutex mutex_;
  bool undone_ = false;
  std::set<std::pair<std::uint64_t, std::uint32_t>> stopped_;
  std::set<std::string> broken_;
  std::set<std::uint64_t> jobs_;
};

}  // namespace tutti::cli
