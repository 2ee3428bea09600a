// What WorkerState does about orders, and about what its ranks say.
#include <algorithm>
#include <csignal>

#include "worker/agent/worker_state.h"

namespace tutti::worker {

using namespace std::chrono_literals;

namespace {

// An aborted `run` program cannot join another generation: it is ended.
constexpr Duration kProgramAbortGrace = 5s;
// Of injected faults: longer ones are another's business.
constexpr std::uint64_t kFaultMsMax = 3'600'000;
constexpr std::uint64_t kDelayMsMax = 10'000;

}  // namespace

WorkerState::Process* WorkerState::living(ProcessId id) {
  const auto at = processes_.find(id);
  return at == processes_.end() || at->second.gone ? nullptr : &at->second;
}

bool WorkerState::is_stale(const Process& process, Generation generation, std::string_view what) {
  if (generation >= process.state.generation) return false;
  note(std::string(what) + " of generation " + to_string(generation) + " dropped: process " +
       to_string(process.start.process) + " is in generation " +
       to_string(process.state.generation));
  return true;
}

// Orders
// --------------------------------------------------------------------------------------------

void WorkerState::on_input(const UnknownOrder& input) {
  if (now_ < cut_until_) return;
  if (takes(input.session, input.sequence)) {
    note("an order of a newer coordinator is ignored: " + input.what);
  }
  acknowledge_orders();
}

bool WorkerState::takes(SessionId session, Sequence sequence) {
  if (!joined_ || session != session_ || !sequence) {
    ++stale_frames_;
    return false;
  }
  orders_owed_ = true;
  return orders_.admit(sequence) == wire::ReceiveGate::Verdict::take;
}

// After what the order led to.
void WorkerState::acknowledge_orders() {
  if (!std::exchange(orders_owed_, false)) return;
  emit(SendToCoordinator{.session = session_,
                         .sequence = {},
                         .message = wire::OrdersAcked{.through = orders_.taken()}});
}

std::optional<std::string> WorkerState::refusal(const wire::StartRank& order) const {
  if (stopping_) return "the worker is stopping";
  if (leaving_until_) return "the worker leaves";
  // Thousands may have ended since one whose output still waits.
  if (ended_ids_.contains(order.process) || spools_.knows(order.process))
    return "this process has ended already";
  if (order.kind == "run" && !settings_.hello.runs_programs) {
    return "this worker does not run programs";
  }
  if (order.kind == "run" && spools_.full()) {
    return "the output of too many programs waits for the coordinator to store it; see whether its "
           "disk is slow or full";
  }
  // The order lay here while this process stood still.
  if (order.kind == "run" && out_of_touch(order)) {
    return "the order came late: the coordinator may take this worker for lost";
  }
  if (order.queue && (holds_slot(order.slot) || spools_.crowded())) {
    const auto waiting = queued_.find(order.slot);
    if (waiting != queued_.end() && waiting->second.size() >= kQueuedMax) {
      return "too many programs wait for slot " + std::to_string(order.slot);
    }
  }
  for (const auto& [id, process] : processes_) {
    if (process.gone) continue;
    if (process.state.slot == order.slot && !(order.queue && order.at_once)) {
      return "slot " + std::to_string(order.slot) + " is held by process " + to_string(id);
    }
    if (process.start.job == order.job && process.state.generation > order.generation) {
      return "generation " + to_string(order.generation) + " is over";
    }
  }
  return std::nullopt;
}

void WorkerState::refuse_start(const wire::StartRank& order, std::string_view reason) {
  note("process " + to_string(order.process) + " is not started: " + std::string(reason));
  remember_ended(order.process);
  report(wire::RankExited{.job = order.job,
                          .generation = order.generation,
                          .process = order.process,
                          .code = 0,
                          .signal = 0,
                          .ordered = false,
                          .failure = wire::FailureClass::infrastructure,
                          .error = std::string(reason),
                          .seen_unix_ms = 0,
                          .silent = knows_silence_});
}

void WorkerState::on_order(const wire::StartRank& order) {
  if (Process* known = living(order.process)) {
    if (known->ready) report(*known->ready);
    if (known->start.at_once && known->formed) report(*known->formed);
    return;
  }
  if (const auto reason = refusal(order)) {
    refuse_start(order, *reason);
    return;
  }
  const bool waits =
      order.at_once && (holds_slot(order.slot) || (order.queue && spools_.crowded()));
  Process& process = processes_[order.process];
  process.start = order;
  process.program = order.kind == "run";
  process.state.job = order.job;
  process.state.generation = order.generation;
  process.state.process = order.process;
  process.state.rank = order.rank;
  process.state.size = order.size;
  process.state.slot = order.slot;
  spools_.open({.job = order.job,
                .generation = order.generation,
                .process = order.process,
                .rank = order.rank});
  if (process.program && order.at_once) {
    if (waits) {
      queued_[order.slot].push_back(order.process);
    } else {
      launch_at_once(process);
    }
    return;
  }
  process.start_deadline = now_ + std::chrono::milliseconds(order.start_ms_max);
  if (process.program) {
    emit(ReserveAddress{.process = order.process});
    return;
  }
  process.launched = true;
  emit(StartProcess{.start = order, .group = std::nullopt, .local_rank = 0, .local_size = 1});
  emit(SendToRank{.process = order.process, .message = order});
}

// Those that wait for it do not hold it.
bool WorkerState::holds_slot(std::uint32_t slot) const {
  return std::any_of(processes_.begin(), processes_.end(), [&](const auto& entry) {
    const Process& process = entry.second;
    const bool waits = process.start.at_once && !process.launched;
    return !process.gone && process.state.slot == slot && !waits;
  });
}

void WorkerState::launch_at_once(Process& process) {
  process.launched = true;
  process.launched_at = now_;
  process.group_sent = process.state.generation;
  wire::FormGroup alone;
  alone.job = process.start.job;
  alone.generation = process.state.generation;
  alone.process = process.start.process;
  StartProcess launch{.start = process.start, .group = std::move(alone)};
  if (!launch.start.device.empty()) launch.local_devices = {launch.start.device};
  emit(std::move(launch));
}

// The slot's process is gone: the next that waits for it begins.
void WorkerState::launch_next(std::uint32_t slot) {
  clear_line(slot);
  const auto at = queued_.find(slot);
  if (at == queued_.end() || holds_slot(slot) || spools_.crowded()) return;
  while (!at->second.empty()) {
    const ProcessId id = at->second.front();
    at->second.pop_front();
    Process* next = living(id);
    if (next == nullptr || next->launched) continue;
    return launch_at_once(*next);
  }
  queued_.erase(at);
}

void WorkerState::launch_waiting() {
  std::vector<std::uint32_t> slots;
  for (const auto& [slot, line] : queued_) slots.push_back(slot);
  for (const std::uint32_t slot : slots) launch_next(slot);
}

void WorkerState::on_order(const wire::Regroup& order) {
  Process* process = living(order.process);
  if (process == nullptr) return report_unknown(order.job, order.generation, order.process);
  if (is_stale(*process, order.generation, "Regroup")) return;
  if (process->state.generation == order.generation) {
    if (process->ready) report(*process->ready);
    return;
  }
  process->state.generation = order.generation;
  process->state.rank = order.rank;
  process->state.size = order.size;
  process->state.phase = wire::ProcessPhase::starting;
  process->formed.reset();
  const auto before = std::exchange(process->ready, std::nullopt);
  if (!process->program) {
    emit(SendToRank{.process = order.process, .message = order});
    return;
  }
  if (process->launched) {
    process->stop_ordered = true;
    stop_process(*process, kProgramAbortGrace, "a program cannot join another generation");
    return;
  }
  if (before) {
    wire::RankReady again = *before;
    again.generation = order.generation;
    again.rank = order.rank;
    ready(*process, again);
  }
}

void WorkerState::on_order(const wire::FormGroup& order) {
  Process* process = living(order.process);
  if (process == nullptr) return report_unknown(order.job, order.generation, order.process);
  if (is_stale(*process, order.generation, "FormGroup")) return;
  if (order.generation > process->state.generation) {
    note("FormGroup of generation " + to_string(order.generation) + " dropped: process " +
         to_string(order.process) + " was not ordered into it");
    return;
  }
  if (process->group_sent == order.generation) {
    if (process->formed) report(*process->formed);
    return;
  }
  process->group_sent = order.generation;
  if (process->program && out_of_touch(process->start)) {
    process->failure = wire::FailureClass::infrastructure;
    stop_process(*process, Duration{}, "its group was ordered long ago");
  } else if (process->program) {
    launch_program(*process, order);
  } else {
    // A rank that copies this one's state does not have the records of the steps that led to it.
    const bool copied =
        std::any_of(order.copies.begin(), order.copies.end(),
                    [&](const auto& copy) { return copy.from == process->state.rank; });
    if (copied) emit(SyncSteps{.job = order.job});
    emit(SendToRank{.process = order.process, .message = order});
  }
}

void WorkerState::launch_program(Process& process, const wire::FormGroup& group) {
  StartProcess launch{.start = process.start, .group = group, .local_rank = 0, .local_size = 0};
  std::map<std::uint32_t, std::string> devices;
  launch.start.generation = group.generation;
  launch.start.rank = process.state.rank;
  launch.start.size = process.state.size;
  for (const auto& [id, other] : processes_) {
    if (other.gone || other.start.job != process.start.job) continue;
    if (other.state.generation != group.generation) continue;
    ++launch.local_size;
    if (other.state.rank < process.state.rank) ++launch.local_rank;
    if (!other.start.device.empty()) devices[other.state.rank] = other.start.device;
  }
  for (auto& [rank, device] : devices) launch.local_devices.push_back(std::move(device));
  process.launched = true;
  emit(std::move(launch));
}

void WorkerState::on_order(const wire::AbortGeneration& order) {
  Process* process = living(order.process);
  if (process == nullptr) return;
  if (is_stale(*process, order.generation, "AbortGeneration")) return;
  if (process->program) {
    if (!process->launched) return;
    process->stop_ordered = true;
    stop_process(*process, kProgramAbortGrace, order.reason);
    return;
  }
  if (process->state.phase == wire::ProcessPhase::formed) {
    process->state.phase = wire::ProcessPhase::broken;
  }
  emit(SendToRank{.process = order.process, .message = order});
}

void WorkerState::on_order(const wire::StopRank& order) {
  Process* process = living(order.process);
  if (order.unless_begun && (process == nullptr || process->launched)) return;
  if (process == nullptr) return report_unknown(order.job, {}, order.process);
  process->stop_ordered = true;
  stop_process(*process, std::chrono::milliseconds(order.grace_ms), order.reason);
}

void WorkerState::stop_process(Process& process, Duration grace, std::string_view reason) {
  const ProcessId id = process.start.process;
  if (process.reason.empty()) process.reason = reason;
  if (!process.launched) {
    report_exit(process, {.job = process.start.job,
                          .generation = process.state.generation,
                          .process = id,
                          .code = 0,
                          .signal = 0,
                          .ordered = process.stop_ordered,
                          .failure = process.failure,
                          .error = "stopped before its program began",
                          .seen_unix_ms = 0});
    return;
  }
  const Instant kill_at = now_ + grace;
  if (!process.kill_at || kill_at < *process.kill_at) process.kill_at = kill_at;
  process.start_deadline.reset();
  if (process.state.phase == wire::ProcessPhase::stopping) return;
  process.state.phase = wire::ProcessPhase::stopping;
  if (process.program) {
    emit(SignalProcess{.process = id, .signal = SIGTERM, .scope = SignalScope::group});
    return;
  }
  emit(SendToRank{.process = id,
                  .message = wire::StopRank{.job = process.start.job,
                                            .process = id,
                                            .grace_ms = static_cast<std::uint32_t>(to_ms(grace)),
                                            .reason = std::string(reason)}});
}

// Says again that it is gone, so that a coordinator that still waits for it goes on.
void WorkerState::report_unknown(JobId job, Generation generation, ProcessId process) {
  report(wire::RankExited{.job = job,
                          .generation = generation,
                          .process = process,
                          .code = 0,
                          .signal = 0,
                          .ordered = true,
                          .failure = wire::FailureClass::none,
                          .error = "there is no such process here",
                          .seen_unix_ms = 0});
}

void WorkerState::on_order(const wire::CommitCheckpoint& order) {
  // Its generation is that of the checkpoint's folder, and the process may have moved on since.
  if (living(order.process) == nullptr) return;
  emit(SendToRank{.process = order.process, .message = order});
}

void WorkerState::on_order(const wire::SetFlags& order) {
  Process* process = living(order.process);
  if (process == nullptr || process->program) return;
  if (is_stale(*process, order.generation, "SetFlags")) return;
  emit(SendToRank{.process = order.process, .message = order});
}

void WorkerState::on_order(const wire::SignalRank& order) {
  if (!settings_.hello.faults) {
    note("a fault was ordered, but this worker was not started with --faults");
    return;
  }
  const Process* process = living(order.process);
  if (process == nullptr || !process->launched) return;
  emit(SignalProcess{
      .process = order.process, .signal = order.signal, .scope = SignalScope::process});
}

void WorkerState::on_order(const wire::BreakWorker& order) {
  if (!settings_.hello.faults) {
    note("a fault was ordered, but this worker was not started with --faults");
    return;
  }
  const std::chrono::milliseconds lasts(std::min<std::uint64_t>(order.lasts_ms, kFaultMsMax));
  const std::chrono::milliseconds delay(std::min<std::uint64_t>(order.delay_ms, kDelayMsMax));
  switch (order.fault) {
    case wire::WorkerFault::kill: emit(KillSelf{}); break;
    case wire::WorkerFault::cut: cut_until_ = now_ + lasts; break;
    case wire::WorkerFault::slow_disk: emit(SlowDisk{.delay = delay, .lasts = lasts}); break;
  }
}

// What ranks say
// ------------------------------------------------------------------------------------

void WorkerState::ready(Process& process, const wire::RankReady& message) {
  process.start_deadline.reset();
  process.ready = message;
  process.state.address = message.address;
  process.state.held = message.held;
  if (process.state.phase == wire::ProcessPhase::starting) {
    process.state.phase = wire::ProcessPhase::ready;
  }
  report(message);
}

void WorkerState::on_rank(Process& process, const wire::RankReady& message) {
  process.start_deadline.reset();
  if (is_stale(process, message.generation, "RankReady")) return;
  ready(process, message);
}

void WorkerState::on_rank(Process& process, const wire::GroupFormed& message) {
  if (is_stale(process, message.generation, "GroupFormed")) return;
  process.formed = message;
  process.state.formed = message;
  if (process.state.phase == wire::ProcessPhase::starting ||
      process.state.phase == wire::ProcessPhase::ready) {
    process.state.phase = wire::ProcessPhase::formed;
  }
  report(message);
}

void WorkerState::on_rank(Process& process, const wire::GenerationBroken& message) {
  if (is_stale(process, message.generation, "GenerationBroken")) return;
  process.state.held = message.held;
  if (process.state.phase != wire::ProcessPhase::stopping) {
    process.state.phase = wire::ProcessPhase::broken;
  }
  report(message);
}

void WorkerState::on_rank(Process& process, const wire::FirstStepDone& message) {
  if (!is_stale(process, message.generation, "FirstStepDone")) report(message);
}

// Who goes on from the checkpoint does not make the steps before it again.
void WorkerState::on_rank(Process&, const wire::CheckpointPart& message) {
  emit(SyncSteps{.job = message.job});
  report(message);
}

void WorkerState::on_rank(Process&, const wire::CheckpointCommitted& message) { report(message); }

void WorkerState::on_rank(Process& process, const wire::RankFinished& message) {
  if (is_stale(process, message.generation, "RankFinished")) return;
  process.finished = message;
  // Only of one that ended well: a coordinator that was away takes `finished` in a Hello for that,
  // and learns of a failure from the report that follows.
  if (message.failure == wire::FailureClass::none &&
      process.state.phase != wire::ProcessPhase::stopping) {
    process.state.phase = wire::ProcessPhase::finished;
  }
  report(message);
}

void WorkerState::on_rank(Process& process, const wire::StepReported& message) {
  if (message.line.size() > kStepLineBytesMax) {
    note("a step record of " + std::to_string(message.line.size()) + " bytes dropped");
    return;
  }
  emit(AppendSpool{.process = process.start.process,
                   .stream = wire::Stream::steps,
                   .bytes = message.line + "\n"});
}

void WorkerState::on_rank(Process& process, const wire::RankProgress& message) {
  if (message.generation >= process.state.generation) process.state.progress = message;
}

}  // namespace tutti::worker
