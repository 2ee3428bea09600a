// What WorkerState does about `run` programs when nothing is heard of the coordinator: it starts
// their successors elsewhere once lease and stop_after are over, and must not find them beside
// ours.
#include <algorithm>
#include <set>
#include <vector>

#include "worker/agent/worker_state.h"

namespace tutti::worker {

// Whether the coordinator may take the programs of such an order for gone. In a session it is the
// lease's end that says so first.
bool WorkerState::out_of_touch(const wire::StartRank& order) const {
  const std::chrono::milliseconds stop_after(order.stop_after_ms);
  if (stop_after.count() == 0) return false;
  const Duration patience = joined_ ? std::max<Duration>(stop_after, lease_) : stop_after;
  return now_ - in_touch_at_ >= patience;
}

// Who waits for the slot and may not begin any more is done with, as if it had been called back.
void WorkerState::clear_line(std::uint32_t slot) {
  const auto at = queued_.find(slot);
  if (at == queued_.end()) return;
  std::vector<ProcessId> late;
  std::erase_if(at->second, [&](ProcessId id) {
    const Process* process = living(id);
    if (process == nullptr || process->launched || !out_of_touch(process->start)) return false;
    late.push_back(id);
    return true;
  });
  for (const ProcessId id : late) {
    Process& process = *living(id);
    process.stop_ordered = true;
    stop_process(process, Duration{}, "no word of the coordinator while it waited for its slot");
  }
}

void WorkerState::tick_silence() {
  std::set<std::uint32_t> slots;
  for (const auto& [slot, line] : queued_) slots.insert(slot);
  for (const std::uint32_t slot : slots) clear_line(slot);
  for (auto& [id, process] : processes_) {
    const bool runs = process.program && process.launched && !process.gone;
    if (!runs || process.state.phase == wire::ProcessPhase::stopping) continue;
    if (!out_of_touch(process.start)) continue;
    process.failure = wire::FailureClass::infrastructure;
    stop_process(process, settings_.stop_grace,
                 "no word of the coordinator for " +
                     std::to_string(process.start.stop_after_ms / 1000) + " s");
  }
}

}  // namespace tutti::worker
