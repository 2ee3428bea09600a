#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched cut_one_way(Struck& at) {
  at.worker.cut(at.choice % 2 == 0 ? SimWorker::Cut::up : SimWorker::Cut::down);
  at.world.after(at.away * (at.choice % 4 == 0 ? 4 : 1), [&worker = at.worker] { worker.heal(); });
  return at.here;
}

}  // namespace tutti::simulation
