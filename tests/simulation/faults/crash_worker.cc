#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void crash_worker(Struck& at) { at.worker.crash(at.away); }

}  // namespace tutti::simulation
