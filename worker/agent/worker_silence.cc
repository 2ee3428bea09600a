// What WorkerState does while the coordinator does not answer: what is to be said waits, over any
// number of sessions, and `run` programs end, since their successors begin elsewhere once lease and
// stop_after are over, and must not find them beside ours.
#include <algorithm>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "worker/agent/worker_state.h"

namespace tutti::worker {

namespace {

// Said again by every Hello: in a ProcessState.
bool is_repeated(const wire::FromWorker& message) {
  return std::holds_alternative<wire::RankStarted>(message) ||
         std::holds_alternative<wire::RankReady>(message) ||
         std::holds_alternative<wire::GroupFormed>(message);
}

}  // namespace

// Programs
// -----------------------------------------------------------------------------------------

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

// Reports
// ------------------------------------------------------------------------------------------

// The first ones with the last lines of their logs, by which some are told apart.
std::vector<wire::RankExited> WorkerState::exits_to_greet_with() const {
  std::vector<wire::RankExited> out;
  std::size_t tails = 0;
  for (const auto& entry : reports_.unacknowledged()) {
    const auto* exit = std::get_if<wire::RankExited>(&entry.message);
    if (exit == nullptr) continue;
    out.push_back(*exit);
    wire::RankExited& told = out.back();
    tails += told.log_tail.size();
    if (tails > kHelloTailBytesMax) told.log_tail.clear();
    if (told.error.size() > kHelloErrorBytesMax) told.error.resize(kHelloErrorBytesMax);
  }
  return out;
}

void WorkerState::report(wire::FromWorker message) {
  if (reports_.size() >= kReportsMax && !joined_) reports_.take_back(is_repeated);
  if (reports_.size() >= kReportsMax && is_repeated(message)) {
    note("too many reports wait for the coordinator; one that is told again is dropped");
    return;
  }
  const auto* part = std::get_if<wire::CheckpointPart>(&message);
  if (part != nullptr && !joined_) drop_old_parts(part->process);
  const std::string lost = part == nullptr
                               ? "an end"
                               : "the part of step " + std::to_string(part->step) + " of job " +
                                     to_string(part->job) + ", which cannot be committed";
  if (!reports_.push(std::move(message))) {
    note("too much waits for the coordinator, and " + lost + ", is lost");
  }
}

void WorkerState::drop_old_parts(ProcessId process) {
  const auto is_part = [&](const wire::FromWorker& message) {
    const auto* part = std::get_if<wire::CheckpointPart>(&message);
    return part != nullptr && part->process == process;
  };
  const auto& waiting = reports_.unacknowledged();
  const auto count = std::count_if(waiting.begin(), waiting.end(),
                                   [&](const auto& entry) { return is_part(entry.message); });
  auto too_many = static_cast<std::ptrdiff_t>(count) + 1 - static_cast<std::ptrdiff_t>(kPartsMax);
  if (too_many <= 0) return;
  note("process " + to_string(process) +
       " has saved again while the coordinator is away; its "
       "oldest part is given up");
  reports_.take_back(
      [&](const wire::FromWorker& message) { return is_part(message) && too_many-- > 0; });
}

}  // namespace tutti::worker
