#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void end_worker(Struck& at) { at.worker.stop(at.away); }

}  // namespace tutti::simulation
