#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

// It touches who is there when it crashes (Scenario::note_crash).
Touched crash_coordinator(Struck& at) {
  constexpr CrashPoint kPoints[] = {CrashPoint::before_sync, CrashPoint::after_sync,
                                    CrashPoint::between_effects};
  at.coordinator.crash_at(1 + at.choice / 3 % 10, kPoints[at.choice % 3], at.away);
  return std::nullopt;
}

}  // namespace tutti::simulation
