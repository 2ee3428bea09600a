#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched end_worker(Struck& at) {
  if (!at.worker.stop(at.away)) return std::nullopt;
  return at.here;
}

}  // namespace tutti::simulation
