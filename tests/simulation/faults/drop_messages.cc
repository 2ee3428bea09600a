#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

// An observer that loses every frame of one kind, for a while.
Touched drop_messages(Struck& at) { return meet_one_kind(at, {.what = FrameFate::What::drop}); }

}  // namespace tutti::simulation
