#include "tests/simulation/sim_worker.h"

#include <iterator>
#include <utility>
#include <variant>

namespace tutti::simulation {

SimWorker::SimWorker(RankWorld& ranks, CoordinatorDoor door, WorkerOptions options)
    : ranks_(ranks),
      world_(ranks.world),
      door_(std::move(door)),
      options_(std::move(options)),
      up_(world_, options_.network),
      down_(world_, options_.network) {}

void SimWorker::start() {
  ++incarnation_;
  worker::WorkerSettings settings;
  settings.seed = world_.rng().next();
  settings.hello.worker = options_.name;
  settings.hello.incarnation = std::to_string(incarnation_);
  settings.hello.host = options_.name;
  settings.hello.slots = options_.slots;
  settings.hello.cores = options_.slots;
  settings.hello.memory_bytes = std::uint64_t{1} << 30;
  settings.hello.profiles = {"portable"};
  settings.hello.faults = true;
  settings.hello.join_token = "join";
  state_ = std::make_unique<worker::WorkerState>(std::move(settings));
  for (const worker::Effect& effect : state_->start(world_.now())) {
    std::visit([this](const auto& each) { perform(each); }, effect);
  }
  tick();
}

void SimWorker::crash(Duration away) {
  if (!state_) return;
  state_.reset();
  processes_.clear();  // parent-death signal
  peer_.clear();
  kept_.clear();
  const SessionId session = std::exchange(liveness_, {});
  if (session && !cut_) {
    world_.after(world_.some(1ms, 10ms), [this, session] { door_.disconnected(session); });
  }
  world_.after(away, [this] {
    if (!state_) start();
  });
}

void SimWorker::cut(bool is_cut) {
  cut_ = is_cut;
  up_.cut(is_cut);
  down_.cut(is_cut);
}

void SimWorker::calm() {
  cut(false);
  up_.calm();
  down_.calm();
}

void SimWorker::later(Duration delay, std::function<void()> action) {
  world_.after(delay, [this, incarnation = incarnation_, action = std::move(action)] {
    if (state_ && incarnation == incarnation_) action();
  });
}

void SimWorker::tick() {
  on(worker::Tick{});
  later(worker::kTickPeriod, [this] { tick(); });
}

void SimWorker::on(const worker::Input& input) {
  if (!state_) return;
  for (const worker::Effect& effect : state_->on(world_.now(), input)) {
    std::visit([this](const auto& each) { perform(each); }, effect);
  }
}

void SimWorker::receive(const std::string& peer, SessionId session, Sequence sequence,
                        const wire::ToWorker& message) {
  down_.send([this, peer, session, sequence, message] {
    if (peer != peer_) return;  // of a connection that was thrown away
    on(worker::FrameReceived{.session = session, .sequence = sequence, .message = message});
  });
}

void SimWorker::liveness_ended(SessionId session) {
  if (session != liveness_) return;
  liveness_ = {};
  if (!cut_) later(world_.some(1ms, 10ms), [this, session] { on(worker::LinkLost{session}); });
}

void SimWorker::perform(const worker::SendToCoordinator& effect) {
  up_.send([this, peer = peer_, effect] { deliver(peer, effect); });
}

void SimWorker::deliver(const std::string& peer, const worker::SendToCoordinator& effect) {
  if (door_.receive(peer, effect.session, effect.sequence, effect.message)) return;
  if (peer == peer_) kept_.push_back(effect);
}

void SimWorker::coordinator_up() {
  for (const worker::SendToCoordinator& effect : std::exchange(kept_, {})) perform(effect);
}

void SimWorker::perform(const worker::SendToRank& effect) {
  later(100us, [this, effect] {
    const auto at = processes_.find(effect.process);
    if (at != processes_.end() && at->second.rank) at->second.rank->on(effect.message);
  });
}

void SimWorker::perform(const worker::ReserveAddress& effect) {
  later(1ms, [this, effect] {
    on(worker::AddressReserved{.process = effect.process, .address = options_.name + ":1"});
  });
}

void SimWorker::perform(const worker::StartProcess& effect) {
  const ProcessId id = effect.start.process;
  Process& process = processes_[id];
  process.start = effect.start;
  process.rank = std::make_unique<Rank>(
      ranks_, effect.start,
      [this, id](const wire::FromRank& message) {
        later(100us,
              [this, id, message] { on(worker::RankSpoke{.process = id, .message = message}); });
      },
      [this, id](std::int32_t code, std::int32_t signal) {
        later(2ms, [this, id, code, signal] {
          on(worker::SpoolGrew{.process = id, .stream = wire::Stream::log, .size = 10});
          processes_[id].log = 10;
          on(worker::ProcessExited{
              .process = id, .code = code, .signal = signal, .seen_unix_ms = 0});
          processes_.erase(id);
        });
      });
  on(worker::ProcessStarted{.process = id, .pid = static_cast<std::int64_t>(id.value) + 1000});
  if (effect.group) process.rank->run_program(effect.group->generation);
}

void SimWorker::perform(const worker::SignalProcess& effect) {
  const auto at = processes_.find(effect.process);
  if (at != processes_.end() && at->second.rank) at->second.rank->signal(effect.signal);
}

void SimWorker::perform(const worker::AppendSpool& effect) {
  const auto at = processes_.find(effect.process);
  if (at == processes_.end()) return;
  at->second.steps += effect.bytes.size();
  const std::uint64_t size = at->second.steps;
  later(0ms, [this, effect, size] {
    on(worker::SpoolGrew{.process = effect.process, .stream = effect.stream, .size = size});
  });
}

void SimWorker::perform(const worker::ReadSpool& effect) {
  later(100us, [this, effect] {
    on(worker::SpoolRead{.process = effect.process,
                         .stream = effect.stream,
                         .offset = effect.offset,
                         .bytes = std::string(effect.bytes_max, 'x')});
  });
}

void SimWorker::perform(const worker::ConnectLiveness& effect) {
  const SessionId old = std::exchange(liveness_, effect.session);
  later(1ms, [this, old, effect] {
    if (old && !cut_) door_.disconnected(old);
    if (cut_ || !door_.connect(effect.session, effect.token, options_.name)) {
      on(worker::LinkLost{effect.session});
    }
  });
}

void SimWorker::perform(const worker::Reconnect& effect) {
  peer_.clear();
  kept_.clear();
  later(effect.delay + 1ms, [this] {
    peer_ =
        options_.name + "/" + std::to_string(incarnation_) + "/" + std::to_string(++connection_);
    on(worker::Connected{});
  });
}

void SimWorker::perform(const worker::Quit& effect) {
  world_.violate("I10", "a worker gave up: " + effect.message);
}

Rank* SimWorker::choose_rank(std::uint64_t choice) {
  if (processes_.empty()) return nullptr;
  auto at = processes_.begin();
  std::advance(at, static_cast<std::ptrdiff_t>(choice % processes_.size()));
  return at->second.rank.get();
}

void SimWorker::kill_rank(std::uint64_t choice) {
  constexpr std::int32_t kKill = 9;
  if (Rank* rank = choose_rank(choice)) rank->signal(kKill);
}

void SimWorker::stop_rank(std::uint64_t choice) {
  constexpr std::int32_t kStop = 19;
  Rank* rank = choose_rank(choice);
  // A program that hangs is its user's matter (limit.time).
  if (rank != nullptr && !rank->is_program()) rank->signal(kStop);
}

std::map<std::uint32_t, int> SimWorker::slots_in_use() const {
  std::map<std::uint32_t, int> out;
  for (const auto& [id, process] : processes_) {
    if (process.rank && process.rank->alive()) ++out[process.start.slot];
  }
  return out;
}

}  // namespace tutti::simulation
