#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void slow_disk(Struck& at) {
  at.coordinator.slow_disk(at.choice % 2 == 0 ? 1s : 50ms);
  at.world.after(at.away, [&coordinator = at.coordinator] { coordinator.slow_disk(0ms); });
}

}  // namespace tutti::simulation
