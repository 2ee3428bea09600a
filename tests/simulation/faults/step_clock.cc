#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void step_clock(Struck& at) {
  constexpr Duration kSteps[] = {-1h, -30s, -500ms, 500ms, 30s, 1h};
  at.world.trace("the clock is set");
  at.world.step_wall(kSteps[at.choice % std::size(kSteps)]);
}

}  // namespace tutti::simulation
