#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched cut_link(Struck& at) {
  at.worker.cut(SimWorker::Cut::both);
  at.world.after(at.away * (at.choice % 4 == 0 ? 4 : 1), [&worker = at.worker] { worker.heal(); });
  return at.here;
}

}  // namespace tutti::simulation
