#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

// An observer that holds back every frame of one kind, so that all others pass it.
void hold_messages(Struck& at) {
  constexpr std::string_view kKinds[] = {
      "Hello",       "Welcome",    "OrdersAcked",  "RankStarted", "RankReady",
      "GroupFormed", "RankExited", "SpoolData",    "SpoolAcked",  "GenerationBroken",
      "Regroup",     "FormGroup",  "RankFinished", "StopRank",    "ReportsAcked"};
  const std::string_view kind = kKinds[at.choice % std::size(kKinds)];
  const Instant end = at.world.now() + at.away;
  at.network.observe([&world = at.world, kind, end](const FrameSeen& frame) {
    const bool held = world.now() < end && frame.message == kind;
    return FrameFate{.what = held ? FrameFate::What::hold : FrameFate::What::pass, .hold = 400ms};
  });
}

}  // namespace tutti::simulation
