#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

void revoke_key(Struck& at) {
  at.worker.expect_refusal(at.away);
  at.coordinator.on(coordinator::ExpelWorker{.worker = at.worker.name()});
}

}  // namespace tutti::simulation
