#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched revoke_key(Struck& at) {
  if (at.coordinator.state() == nullptr || !at.worker.expect_refusal(at.away)) return std::nullopt;
  at.coordinator.on(coordinator::ExpelWorker{.worker = at.worker.name()});
  return at.here;
}

}  // namespace tutti::simulation
