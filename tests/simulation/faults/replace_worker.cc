#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void replace_worker(Struck& at) { at.worker.replace(); }

}  // namespace tutti::simulation
