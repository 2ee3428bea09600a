#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

// Between two machines, for ranks only: workers and the coordinator reach everybody.
Touched cut_ranks(Struck& at) {
  if (at.workers.size() < 2) return std::nullopt;
  const SimWorker& other = *at.workers[at.choice % at.workers.size()];
  if (&other == &at.worker) return std::nullopt;
  const std::pair<std::string, std::string> cut = std::minmax(at.worker.name(), other.name());
  at.ranks.cuts.insert(cut);
  at.world.after(at.away * (at.choice % 3 == 0 ? 5 : 1),
                 [&ranks = at.ranks, cut] { ranks.cuts.erase(cut); });
  return at.here;
}

}  // namespace tutti::simulation
