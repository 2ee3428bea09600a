#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void hang_rank(Struck& at) {
  at.worker.hang_rank(at.choice, at.choice % 2 == 0 ? at.away : Duration(1h));
}

}  // namespace tutti::simulation
