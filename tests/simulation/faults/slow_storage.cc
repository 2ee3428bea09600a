#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched slow_storage(Struck& at) {
  at.ranks.storage.write_max = 2s;
  at.world.after(at.away, [&ranks = at.ranks] { ranks.storage.write_max = 5ms; });
  return at.everyone;
}

}  // namespace tutti::simulation
