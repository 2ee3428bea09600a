#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void stop_coordinator(Struck& at) {
  // Beyond the lease now and then: it must not blame workers for its own absence.
  at.coordinator.stand_still(at.away * (at.choice % 3 == 0 ? 3 : 1));
}

}  // namespace tutti::simulation
