#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void lose_power(Struck& at) {
  // Of one machine: others go on with what it had made.
  if (at.choice % 2 == 0) return at.worker.lose_power(at.away);
  at.coordinator.crash(at.away);
  for (const auto& worker : at.workers) worker->lose_power(at.away + at.world.some(0ms, 500ms));
}

}  // namespace tutti::simulation
