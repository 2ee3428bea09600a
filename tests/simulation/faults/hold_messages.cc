#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

// An observer that holds back every frame of one kind, so that all others pass it.
void hold_messages(Struck& at) {
  constexpr std::string_view kKinds[] = {
      "Hello",       "Welcome",    "OrdersAcked",  "RankStarted", "RankReady",
      "GroupFormed", "RankExited", "SpoolData",    "SpoolAcked",  "GenerationBroken",
      "Regroup",     "FormGroup",  "RankFinished", "StopRank",    "ReportsAcked"};
  meet_one_kind(at, kKinds, {.what = FrameFate::What::hold, .hold = 400ms});
}

}  // namespace tutti::simulation
