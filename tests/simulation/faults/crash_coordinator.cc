#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void crash_coordinator(Struck& at) {
  constexpr CrashPoint kPoints[] = {CrashPoint::before_sync, CrashPoint::after_sync,
                                    CrashPoint::between_effects};
  at.coordinator.crash_at(1 + at.choice / 3 % 10, kPoints[at.choice % 3], at.away);
}

}  // namespace tutti::simulation
