// The faults that a schedule may hold, in one table: what each is called, what it strikes and what
// belongs to it.
//
// To add one: a row here and a case in injection.cc. The names are those of `tutti fault`.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace tutti::cli {

enum class FaultKind { kill_rank, stop_rank, cut, slow_disk, kill_worker, kill_coordinator };

enum class FaultTarget { rank, node, coordinator };

// Whether a fault is over at once, or ends after a while.
enum class FaultLasts { no, yes };

// Whether a job may lose a rank by it. One that may not explains no recovery.
enum class FaultLoses { nothing, ranks };

struct FaultKindRow {
  FaultKind kind = FaultKind::kill_rank;
  std::string_view name;
  FaultTarget target = FaultTarget::rank;
  FaultLasts lasts = FaultLasts::no;
  FaultLoses loses = FaultLoses::ranks;
  std::string_view done;  // "killed rank 1"
};

inline constexpr FaultKindRow kFaultKinds[] = {
    {FaultKind::kill_rank, "kill-rank", FaultTarget::rank, FaultLasts::no, FaultLoses::ranks,
     "killed"},
    {FaultKind::stop_rank, "stop-rank", FaultTarget::rank, FaultLasts::yes, FaultLoses::ranks,
     "stopped"},
    {FaultKind::cut, "cut", FaultTarget::node, FaultLasts::yes, FaultLoses::ranks, "cut off"},
    {FaultKind::slow_disk, "slow-disk", FaultTarget::node, FaultLasts::yes, FaultLoses::nothing,
     "slowed the disk of"},
    {FaultKind::kill_worker, "kill-worker", FaultTarget::node, FaultLasts::no, FaultLoses::ranks,
     "killed the worker of"},
    {FaultKind::kill_coordinator, "kill-coordinator", FaultTarget::coordinator, FaultLasts::no,
     FaultLoses::nothing, "killed the coordinator"},
};

inline const FaultKindRow& row_of(FaultKind kind) {
  return kFaultKinds[static_cast<std::size_t>(kind)];
}

}  // namespace tutti::cli
