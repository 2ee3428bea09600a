#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched stop_coordinator(Struck& at) {
  if (at.coordinator.state() == nullptr) return std::nullopt;
  // Beyond the lease now and then: it must not blame workers for its own absence.
  at.coordinator.stand_still(at.away * (at.choice % 3 == 0 ? 3 : 1));
  return at.everyone;
}

}  // namespace tutti::simulation
