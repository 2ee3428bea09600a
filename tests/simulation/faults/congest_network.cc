#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched congest_network(Struck& at) {
  at.network.congest(at.away / 8);
  at.world.after(at.away, [&network = at.network] { network.congest(0ms); });
  return at.everyone;
}

}  // namespace tutti::simulation
