#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void crash_coordinator(Struck& at) {
  const CrashPoint point = at.choice % 2 == 0 ? CrashPoint::before_sync : CrashPoint::after_sync;
  at.coordinator.crash_at(1 + at.choice / 2 % 10, point, at.away);
}

}  // namespace tutti::simulation
