#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched fill_disk(Struck& at) {
  at.coordinator.fill_disk();
  at.world.after(at.away, [&coordinator = at.coordinator] { coordinator.free_disk(); });
  return at.everyone;
}

}  // namespace tutti::simulation
