#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

// Beyond lease and stop_after together: its programs must have ended when their successors begin.
Touched long_cut(Struck& at) {
  at.worker.cut(SimWorker::Cut::both);
  at.world.after(5s + at.away * 10, [&worker = at.worker] { worker.heal(); });
  return at.here;
}

}  // namespace tutti::simulation
