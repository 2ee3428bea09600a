#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched fill_storage(Struck& at) {
  at.ranks.storage.full = true;
  at.world.after(at.away, [&ranks = at.ranks] { ranks.storage.full = false; });
  return at.everyone;
}

}  // namespace tutti::simulation
