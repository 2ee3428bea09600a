#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched crash_worker(Struck& at) {
  if (!at.worker.alive()) return std::nullopt;
  at.worker.crash(at.away);
  return at.here;
}

}  // namespace tutti::simulation
