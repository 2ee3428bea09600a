#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void congest_network(Struck& at) {
  at.network.congest(at.away / 8);
  at.world.after(at.away, [&network = at.network] { network.congest(0ms); });
}

}  // namespace tutti::simulation
