#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched replace_worker(Struck& at) {
  if (!at.worker.replace()) return std::nullopt;
  return at.here;
}

}  // namespace tutti::simulation
