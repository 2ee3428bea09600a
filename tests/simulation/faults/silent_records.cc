#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

// Nothing of what is to be stored arrives: it lies where it was written.
Touched silent_records(Struck& at) {
  const Instant end = at.world.now() + at.away;
  at.network.observe([&world = at.world, end](const FrameSeen& frame) {
    const bool drops = world.now() < end && frame.message == "SpoolData";
    return drops ? FrameFate{.what = FrameFate::What::drop} : FrameFate{};
  });
  return at.everyone;
}

}  // namespace tutti::simulation
