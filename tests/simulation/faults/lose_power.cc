#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched lose_power(Struck& at) {
  // Of one machine: others go on with what it had made.
  if (at.choice % 2 == 0) {
    if (!at.worker.alive()) return std::nullopt;
    at.worker.lose_power(at.away);
    return at.here;
  }
  at.coordinator.crash(at.away);
  for (const auto& worker : at.workers) worker->lose_power(at.away + at.world.some(0ms, 500ms));
  return at.everyone;
}

}  // namespace tutti::simulation
