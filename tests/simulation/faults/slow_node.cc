#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched slow_node(Struck& at) {
  at.worker.slow_down(2 + static_cast<double>(at.choice % 15));
  at.world.after(at.away * 2, [&worker = at.worker] { worker.slow_down(1); });
  return at.here;
}

}  // namespace tutti::simulation
