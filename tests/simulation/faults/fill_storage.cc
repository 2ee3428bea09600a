#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void fill_storage(Struck& at) {
  at.ranks.storage.full = true;
  at.world.after(at.away, [&ranks = at.ranks] { ranks.storage.full = false; });
}

}  // namespace tutti::simulation
