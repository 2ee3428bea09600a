#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

// An observer that loses every frame of one kind, for a while.
void drop_messages(Struck& at) {
  constexpr std::string_view kKinds[] = {
      "Hello",     "Welcome",          "Heartbeat",   "HeartbeatAnswered", "OrdersAcked",
      "StartRank", "Regroup",          "FormGroup",   "AbortGeneration",   "ReportsAcked",
      "RankReady", "GenerationBroken", "GroupFormed", "RankExited",        "CommitCheckpoint"};
  const std::string_view kind = kKinds[at.choice % std::size(kKinds)];
  const Instant end = at.world.now() + at.away;
  at.network.observe([&world = at.world, kind, end](const FrameSeen& frame) {
    const bool dropped = world.now() < end && frame.message == kind;
    return FrameFate{.what = dropped ? FrameFate::What::drop : FrameFate::What::pass};
  });
}

}  // namespace tutti::simulation
