#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void fill_disk(Struck& at) {
  at.coordinator.fill_disk();
  at.world.after(at.away, [&coordinator = at.coordinator] { coordinator.free_disk(); });
}

}  // namespace tutti::simulation
