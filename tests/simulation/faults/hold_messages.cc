#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

// An observer that holds back every frame of one kind, so that all others pass it.
Touched hold_messages(Struck& at) {
  return meet_one_kind(at, {.what = FrameFate::What::hold, .hold = 400ms});
}

}  // namespace tutti::simulation
