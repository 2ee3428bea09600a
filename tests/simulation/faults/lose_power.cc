#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void lose_power(Struck& at) {
  at.coordinator.crash(at.away);
  for (const auto& worker : at.workers) worker->lose_power(at.away + at.world.some(0ms, 500ms));
}

}  // namespace tutti::simulation
