#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void kill_rank(Struck& at) { at.worker.kill_rank(at.choice); }

}  // namespace tutti::simulation
