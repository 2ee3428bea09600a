#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched slow_disk(Struck& at) {
  at.coordinator.slow_disk(at.choice % 2 == 0 ? 1s : 50ms);
  at.world.after(at.away, [&coordinator = at.coordinator] { coordinator.slow_disk(0ms); });
  return at.everyone;
}

}  // namespace tutti::simulation
