#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

// An observer that loses every frame of one kind, for a while.
void drop_messages(Struck& at) {
  constexpr std::string_view kKinds[] = {
      "Hello",     "Welcome",          "Heartbeat",   "HeartbeatAnswered", "OrdersAcked",
      "StartRank", "Regroup",          "FormGroup",   "AbortGeneration",   "ReportsAcked",
      "RankReady", "GenerationBroken", "GroupFormed", "RankExited",        "CommitCheckpoint"};
  meet_one_kind(at, kKinds, {.what = FrameFate::What::drop});
}

}  // namespace tutti::simulation
