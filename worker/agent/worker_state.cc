#include "worker/agent/worker_state.h"

#include <algorithm>
#include <csignal>

#include "protocol/wire/link.h"

namespace tutti::worker {

using namespace std::chrono_literals;

namespace {

// How long a worker that ends waits for its last reports to be acknowledged.
constexpr Duration kFarewell = 500ms;
// A rank whose socket is closed has this long to be gone by itself.
constexpr Duration kUnlinkedGrace = 2s;
// A session that ends sooner counts as one in a row of failures.
constexpr Duration kLastingSession = 10s;
constexpr std::uint32_t kShortSessionsMax = 6;  // 200 ms doubled: up to 6.4 s between two
// How often a liveness port that was blocked is tried again.
constexpr Duration kLivenessRetry = 30s;

// Exit codes of tutti-rank are those of the command line (DESIGN §11).
wire::FailureClass blame_rank(const wire::RankExited& exit) {
  if (exit.signal != 0) {
    const bool from_outside = exit.signal == SIGKILL || exit.signal == SIGTERM ||
                              exit.signal == SIGINT || exit.signal == SIGHUP;
    return from_outside ? wire::FailureClass::infrastructure : wire::FailureClass::own;
  }
  switch (exit.code) {
    case 1:
    case 2:
    case 5: return wire::FailureClass::user;
    case 3: return wire::FailureClass::infrastructure;
    default: return wire::FailureClass::own;
  }
}

wire::FailureClass blame_program(const wire::RankExited& exit) {
  if (exit.signal == SIGKILL) return wire::FailureClass::infrastructure;
  return exit.signal != 0 || exit.code != 0 ? wire::FailureClass::user : wire::FailureClass::none;
}

// By SIGKILL; or a shell says so of what it ran.
bool was_killed(const wire::RankExited& exit) {
  constexpr std::int32_t kShellOfSignal = 128;
  return exit.signal == SIGKILL || exit.code == kShellOfSignal + SIGKILL;
}

std::string describe_exit(const wire::RankExited& exit) {
  if (exit.signal != 0) return "ended by signal " + std::to_string(exit.signal);
  return "exited with code " + std::to_string(exit.code);
}

}  // namespace

WorkerState::WorkerState(WorkerSettings settings)
    : settings_(std::move(settings)), rng_(settings_.seed) {}

void WorkerState::restore(const SavedState& saved) {
  greeting_ = saved.greeting;
  in_touch_at_ = saved.answered_at;
  for (const SavedProcess& process : saved.processes) {
    if (process.gone) continue;  // an older binary's: its spools are below
    const ProcessId id = process.start.process;
    processes_[id] = process;
    if (process.start.at_once && !process.launched) {
      queued_[process.state.slot].push_back(id);
    }
  }
  for (const ProcessId id : saved.ended) remember_ended(id);
  for (const SavedSpool& spool : saved.spools) spools_.restore(spool);
  for (const std::string& bytes : saved.reports) {
    wire::FrameCounters counters;
    auto frame = wire::decode_frame<wire::FromWorker>(bytes, counters);
    if (frame) static_cast<void>(reports_.push(std::move(frame->message)));
  }
}

SavedState WorkerState::save() const {
  SavedState out;
  out.greeting = greeting_;
  out.answered_at = in_touch_at_;
  for (const auto& [id, process] : processes_) out.processes.push_back(process);
  out.ended.assign(ended_order_.begin(), ended_order_.end());
  out.spools = spools_.save();
  for (const auto& entry : reports_.unacknowledged()) {
    if (auto frame = wire::encode_frame(entry.message)) out.reports.push_back(*std::move(frame));
  }
  return out;
}

Effects WorkerState::start(Instant now) {
  now_ = now;
  hello_deadline_ = now_ + settings_.hello_wait;
  emit(Reconnect{});
  return std::exchange(effects_, {});
}

Effects WorkerState::on(Instant now, const Input& input) {
  now_ = now;
  if (ended_) return {};
  std::visit([this](const auto& each) { on_input(each); }, input);
  if (!ended_) flush();
  // Not before: whoever is in the middle of them would stumble.
  for (const ProcessId id : std::exchange(gone_, {})) processes_.erase(id);
  if (now_ < cut_until_) {
    std::erase_if(effects_, [](const Effect& effect) {
      return std::holds_alternative<SendToCoordinator>(effect);
    });
  }
  return std::exchange(effects_, {});
}

std::vector<wire::ProcessState> WorkerState::processes() const {
  std::vector<wire::ProcessState> out;
  for (const auto& [id, process] : processes_) {
    if (!process.gone) out.push_back(process.state);
  }
  return out;
}

// The link to the coordinator
// -----------------------------------------------------------------------

void WorkerState::on_input(const Connected&) {
  if (joined_) return;
  asked_at_ = now_;
  wire::Hello hello = settings_.hello;
  hello.greeting = ++greeting_;
  hello.processes = processes();
  hello.reports = reports_.size();
  hello.exits = exits_to_greet_with();
  emit(SendToCoordinator{.session = {}, .sequence = {}, .message = std::move(hello)});
  const Duration wait = std::min<Duration>(settings_.hello_wait * (1 << std::min(attempts_, 8U)),
                                           settings_.hello_wait_max);
  ++attempts_;
  hello_deadline_ = now_ + wait + jitter(wait / 4);
}

void WorkerState::on_input(const LinkLost& input) {
  if (joined_ && input.session == session_) reconnect("the connection to the coordinator ended");
}

void WorkerState::on_input(const LivenessRefused& input) {
  if (!joined_ || input.session != session_) return;
  if (!liveness_retry_) {
    note("no liveness connection, the coordinator sees us by heartbeats alone: " + input.reason);
  }
  liveness_retry_ = now_ + kLivenessRetry + jitter(kLivenessRetry / 4);
}

void WorkerState::reconnect(std::string_view why) {
  if (joined_) {
    note("looking for the coordinator again: " + std::string(why));
    const bool lasted = now_ - joined_at_ >= kLastingSession;
    short_sessions_ = lasted ? 0 : std::min(short_sessions_ + 1, kShortSessionsMax);
    reports_.restart();  // all of them will be sent again
  }
  joined_ = false;
  session_ = {};
  liveness_retry_.reset();
  spools_.restart();
  // The first loss is answered at once; sessions that end again and again, or a coordinator that
  // does not answer, are given more and more time, so that a thousand workers do not keep it busy.
  const std::uint32_t tries = std::max(short_sessions_, 1U) - 1;
  const Duration delay = jitter((attempts_ == 0 ? 20ms : 200ms) * (1 << tries));
  hello_deadline_ = now_ + delay + settings_.hello_wait;
  emit(Reconnect{.delay = delay});
}

bool WorkerState::is_cut(const FrameReceived& input) const {
  return now_ < cut_until_ && !std::holds_alternative<wire::BreakWorker>(input.message);
}

void WorkerState::on_input(const FrameReceived& input) {
  if (is_cut(input)) return;
  std::visit([&](const auto& message) { on_frame(input, message); }, input.message);
}

void WorkerState::on_frame(const FrameReceived&, const wire::Welcome& message) {
  // Only the newest Hello counts: what an older one said may have changed since.
  if (joined_ || !message.session || message.greeting != greeting_) {
    ++stale_frames_;
    return;
  }
  joined_ = true;
  joined_at_ = now_;
  attempts_ = 0;
  knows_silence_ = message.knows_silence;
  session_ = message.session;
  heartbeat_ = std::chrono::milliseconds(std::max(message.heartbeat_ms, 10U));
  lease_ = std::chrono::milliseconds(std::max(message.lease_ms, 100U));
  answered_at_ = now_;
  in_touch_at_ = asked_at_;
  next_heartbeat_ = now_ + heartbeat_;
  orders_.restart();
  reports_.restart();
  spools_.restart();
  readings_due_ = !readings_.empty();
  note("joined, session " + to_string(session_));
  liveness_ = {.session = session_, .port = message.liveness_port, .token = message.liveness_token};
  if (liveness_.port != 0) emit(liveness_);
}

void WorkerState::on_frame(const FrameReceived& frame, const wire::Refused& message) {
  if (joined_ && frame.session != session_) {
    ++stale_frames_;
    return;
  }
  if (message.code == "permission_denied" || message.code == "unsupported") {
    begin_stop(5, "the coordinator does not admit this worker: " + message.message);
    return;
  }
  note("not admitted yet: " + message.message);
  hello_deadline_ = now_ + settings_.hello_wait + jitter(settings_.hello_wait / 4);
}

void WorkerState::on_frame(const FrameReceived& frame, const wire::HeartbeatAnswered&) {
  if (!joined_ || frame.session != session_) {
    ++stale_frames_;
    return;
  }
  answered_at_ = now_;
  in_touch_at_ = asked_at_;
}

void WorkerState::on_frame(const FrameReceived& frame, const wire::ReportsAcked& message) {
  if (!joined_ || frame.session != session_) {
    ++stale_frames_;
    return;
  }
  reports_.acknowledge(message.through, now_);
}

void WorkerState::on_frame(const FrameReceived& frame, const wire::SpoolAcked& message) {
  if (!joined_ || frame.session != session_) {
    ++stale_frames_;
    return;
  }
  if (auto truncate = spools_.acked(message)) emit(*std::move(truncate));
  release_if_done(message.process);
}

template <class Order>
void WorkerState::on_frame(const FrameReceived& frame, const Order& order) {
  if (takes(frame.session, frame.sequence)) on_order(order);
  acknowledge_orders();
}

void WorkerState::flush() {
  if (!joined_) return;
  for (auto& entry : reports_.due(now_)) {
    emit(SendToCoordinator{
        .session = session_, .sequence = entry.sequence, .message = std::move(entry.message)});
  }
  for (ReadSpool& read : spools_.due(now_)) emit(std::move(read));
}

// Processes
// -----------------------------------------------------------------------------------------

void WorkerState::on_input(const RankSpoke& input) {
  Process* process = living(input.process);
  if (process == nullptr) return;
  std::visit(
      [&](const auto& message) {
        if (message.process == input.process && message.job == process->start.job) {
          on_rank(*process, message);
        } else {
          note("process " + to_string(input.process) + " spoke for another one; dropped");
        }
      },
      input.message);
}

void WorkerState::on_input(const RankLinkLost& input) {
  Process* process = living(input.process);
  if (process == nullptr || process->kill_at) return;
  process->failure = wire::FailureClass::own;
  process->reason = input.reason;
  process->kill_at = now_ + kUnlinkedGrace;
}

void WorkerState::on_input(const AddressReserved& input) {
  Process* process = living(input.process);
  if (process == nullptr || !process->program || process->launched) return;
  process->state.address = input.address;
  ready(*process, {.job = process->start.job,
                   .generation = process->state.generation,
                   .process = input.process,
                   .rank = process->state.rank,
                   .address = input.address,
                   .held = {}});
}

void WorkerState::on_input(const ProcessStarted& input) {
  Process* process = living(input.process);
  if (process == nullptr) return;
  process->state.pid = input.pid;
  process->state.limits = input.limits;
  report(wire::RankStarted{.job = process->start.job,
                           .generation = process->state.generation,
                           .process = input.process,
                           .pid = input.pid,
                           .limits = input.limits});
  if (!process->program) return;
  wire::GroupFormed formed{.job = process->start.job,
                           .generation = process->state.generation,
                           .process = input.process,
                           .rank = process->state.rank,
                           .step = 0,
                           .copied_bytes = 0,
                           .serve_endpoint = {},
                           .serve_key = {},
                           .model = {}};
  if (!process->start.queue) return on_rank(*process, formed);
  // Who lets it wait for its slot knows that it has formed by having begun.
  process->formed = process->state.formed = std::move(formed);
  if (process->state.phase == wire::ProcessPhase::starting) {
    process->state.phase = wire::ProcessPhase::formed;
  }
}

void WorkerState::on_input(const StartFailed& input) {
  Process* process = living(input.process);
  if (process == nullptr) return;
  report_exit(*process,
              {.job = process->start.job,
               .generation = process->state.generation,
               .process = input.process,
               .code = 0,
               .signal = 0,
               .ordered = process->stop_ordered,
               .failure = process->stop_ordered ? wire::FailureClass::none : input.failure,
               .error = input.error,
               .seen_unix_ms = 0});
}

void WorkerState::on_input(const ProcessExited& input) {
  Process* process = living(input.process);
  if (process == nullptr) return;
  wire::RankExited exit{.job = process->start.job,
                        .generation = process->state.generation,
                        .process = input.process,
                        .code = input.code,
                        .signal = input.signal,
                        .ordered = process->stop_ordered,
                        .failure = wire::FailureClass::none,
                        .error = {},
                        .seen_unix_ms = input.seen_unix_ms,
                        .began = true,
                        .out_of_memory = input.out_of_memory,
                        .memory_peak_bytes = input.memory_peak_bytes,
                        .cpu_ms = input.cpu_ms,
                        .log_tail = input.log_tail};
  if (process->launched_at) {
    const auto ran =
        std::chrono::duration_cast<std::chrono::microseconds>(now_ - *process->launched_at);
    exit.ran_us = static_cast<std::uint64_t>(std::max<std::int64_t>(1, ran.count()));
  }
  blame(*process, exit);
  // Its job may go on elsewhere, and save there what came after these steps.
  if (!process->program) emit(SyncSteps{.job = exit.job});
  report_exit(*process, std::move(exit));
}

void WorkerState::blame(const Process& process, wire::RankExited& exit) const {
  if (exit.ordered) {
    exit.error = process.reason;
    return;
  }
  if (process.failure != wire::FailureClass::none) {
    exit.failure = process.failure;
    exit.error = process.reason;
  } else if (exit.out_of_memory && was_killed(exit)) {
    exit.failure = wire::FailureClass::user;
    exit.error = "out of memory: ended by the kernel" +
                 (process.state.limits.empty() ? std::string() : " (" + process.state.limits + ")");
  } else if (process.finished.process && process.finished.failure != wire::FailureClass::none) {
    exit.failure = process.finished.failure;
    exit.error = process.finished.message;
  } else if (process.program) {
    exit.failure = blame_program(exit);
  } else if (!process.finished.process || exit.code != 0 || exit.signal != 0) {
    exit.failure = blame_rank(exit);
  }
  if (exit.failure != wire::FailureClass::none && exit.error.empty()) {
    exit.error = describe_exit(exit);
  }
}

void WorkerState::report_exit(Process& process, wire::RankExited exit) {
  process.gone = true;
  gone_.push_back(exit.process);
  const ProcessId id = exit.process;
  const std::uint32_t slot = process.state.slot;
  remember_ended(id);
  spools_.ended(id);
  if (knows_silence_ && spools_.silence(id)) exit.silent = true;
  report(std::move(exit));
  release_if_done(id);
  launch_next(slot);
}

void WorkerState::remember_ended(ProcessId id) {
  if (!ended_ids_.insert(id).second) return;
  ended_order_.push_back(id);
  if (ended_order_.size() > kEndedMax) {
    ended_ids_.erase(ended_order_.front());
    ended_order_.pop_front();
  }
}

void WorkerState::release_if_done(ProcessId id) {
  if (!spools_.done(id)) return;
  const bool was_crowded = spools_.crowded();
  spools_.forget(id);
  emit(ReleaseProcess{.process = id});
  if (was_crowded) launch_waiting();
}

// Spools
// --------------------------------------------------------------------------------------------

void WorkerState::on_input(const SpoolGrew& input) { spools_.grew(input); }

void WorkerState::on_input(const SpoolRead& input) {
  auto chunk = spools_.read(input, now_);
  if (chunk && joined_) {
    emit(SendToCoordinator{.session = session_, .sequence = {}, .message = *std::move(chunk)});
  }
}

void WorkerState::on_input(const SpoolFound& input) {
  if (processes_.contains(input.process)) return;
  spools_.open({.job = input.job,
                .generation = input.generation,
                .process = input.process,
                .rank = input.rank,
                .cut = input.cut});
  spools_.grew({.process = input.process, .stream = wire::Stream::log, .size = input.log_size});
  spools_.grew({.process = input.process, .stream = wire::Stream::steps, .size = input.steps_size});
  spools_.ended(input.process);
  remember_ended(input.process);
  if (input.steps_size > 0) emit(SyncSteps{.job = input.job});
}

// Time
// ----------------------------------------------------------------------------------------------

void WorkerState::on_input(const DevicesRead& input) {
  readings_ = input.readings;
  readings_due_ = !readings_.empty();
}

void WorkerState::on_input(const RestartRefused& input) { restart_refused_ = input.reason; }

void WorkerState::on_input(const Tick&) {
  tick_processes();
  tick_link();
  tick_liveness();
  tick_silence();
  tick_stop();
}

void WorkerState::tick_liveness() {
  if (!joined_ || !liveness_retry_ || now_ < *liveness_retry_) return;
  liveness_retry_ = now_ + kLivenessRetry + jitter(kLivenessRetry / 4);
  emit(liveness_);
}

void WorkerState::tick_link() {
  if (!joined_) {
    if (now_ >= hello_deadline_) reconnect("no answer");
    return;
  }
  if (now_ - answered_at_ > lease_) {
    reconnect("the coordinator is silent");
    return;
  }
  if (now_ < next_heartbeat_) return;
  next_heartbeat_ = now_ + heartbeat_;
  asked_at_ = now_;
  wire::Heartbeat heartbeat;
  for (const auto& [id, process] : processes_) {
    if (!process.gone && process.state.progress.process) {
      heartbeat.progress.push_back(process.state.progress);
    }
  }
  if (std::exchange(readings_due_, false)) heartbeat.readings = readings_;
  heartbeat.restart_refused = std::exchange(restart_refused_, {});
  emit(SendToCoordinator{.session = session_, .sequence = {}, .message = std::move(heartbeat)});
}

void WorkerState::tick_processes() {
  for (auto& [id, process] : processes_) {
    if (process.gone) continue;
    if (process.start_deadline && now_ >= *process.start_deadline) {
      process.start_deadline.reset();
      process.failure = wire::FailureClass::infrastructure;
      process.reason = "not ready within " + std::to_string(process.start.start_ms_max / 1000) +
                       " s of its start";
      process.kill_at = now_;
    }
    if (process.kill_at && now_ >= *process.kill_at && process.launched) {
      // Again each second, should the first one have met a process that was just being made.
      process.kill_at = now_ + 1s;
      emit(SignalProcess{.process = id, .signal = SIGKILL, .scope = SignalScope::group});
    }
  }
}

void WorkerState::on_input(const StopRequested&) {
  if (stopping_ || leaving_until_) return begin_stop(0, {}, Hurry::yes);
  const bool alive = std::any_of(processes_.begin(), processes_.end(),
                                 [](const auto& entry) { return !entry.second.gone; });
  if (!joined_ || !alive) return begin_stop(0, {});
  begin_leaving();
}

void WorkerState::begin_leaving() {
  leaving_until_ = now_ + settings_.notice;
  note("leaving within " + std::to_string(to_ms(settings_.notice) / 1000) +
       " s; ranks save and stop");
  report(wire::WorkerLeaving{.deadline_ms = static_cast<std::uint64_t>(to_ms(settings_.notice)),
                             .reason = "the worker was told to end"});
}

void WorkerState::begin_stop(int exit_code, std::string message, Hurry hurry) {
  const Duration grace = hurry == Hurry::yes ? Duration{} : settings_.stop_grace;
  if (stopping_) {
    if (hurry == Hurry::no) return;
    for (auto& [id, process] : processes_) {
      if (!process.gone && process.launched) process.kill_at = now_;
    }
    return;
  }
  stopping_ = true;
  quit_ = {.exit_code = exit_code, .message = std::move(message)};
  stop_bound_ = now_ + grace + 3s;
  std::vector<ProcessId> all;
  for (const auto& [id, process] : processes_) all.push_back(id);
  for (const ProcessId id : all) {
    Process* process = living(id);
    if (process == nullptr) continue;
    process->failure = wire::FailureClass::infrastructure;
    stop_process(*process, grace, "the worker was stopped");
  }
  tick_stop();
}

void WorkerState::tick_stop() {
  const bool alive = std::any_of(processes_.begin(), processes_.end(),
                                 [](const auto& entry) { return !entry.second.gone; });
  if (leaving_until_ && !stopping_ && (!alive || !joined_ || now_ >= *leaving_until_)) {
    begin_stop(0, {});
  }
  if (!stopping_ || ended_) return;
  if (alive && now_ < stop_bound_) return;
  if (!quit_at_) quit_at_ = now_ + (joined_ ? kFarewell : Duration{});
  if (!reports_.empty() && now_ < *quit_at_) return;
  ended_ = true;
  emit(quit_);
}

Duration WorkerState::jitter(Duration up_to) {
  return Duration(static_cast<std::int64_t>(rng_.uniform() * static_cast<double>(up_to.count())));
}

}  // namespace tutti::worker
