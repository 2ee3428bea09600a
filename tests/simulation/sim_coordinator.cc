#include "tests/simulation/sim_coordinator.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace tutti::simulation {

namespace {

constexpr std::int64_t kEpochMs = 1'700'000'000'000;
// Facts after which the journal is replaced by a snapshot; small, so that both are met.
constexpr std::size_t kFactsPerSnapshot = 25;
constexpr double kSharedSync = 0.2;

}  // namespace

SimCoordinator::SimCoordinator(World& world, coordinator::ClusterSettings settings, Doors doors)
    : world_(world), settings_(std::move(settings)), doors_(std::move(doors)) {}

WallTime SimCoordinator::wall() const {
  return WallTime{kEpochMs + to_ms(world_.now().since_start)};
}

std::string SimCoordinator::random() {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (int i = 0; i < 32; ++i) out += kDigits[world_.rng().below(16)];
  return out;
}

void SimCoordinator::start() {
  ++life_;
  state_ = std::make_unique<coordinator::ClusterState>(settings_);
  state_->restore(disk_.snapshot);
  if (sabotage_ != Sabotage::forget_on_restart) {
    for (const coordinator::Fact& fact : disk_.facts) state_->replay(fact);
  }
  decided_through_ = 0;
  durable_through_ = 0;
  failing_ = false;
  is_armed_ = false;
  handle(state_->begin(world_.now(), wall(), disk_.last_event));
}

void SimCoordinator::crash(Duration away) {
  if (!state_) return;
  state_.reset();
  pending_facts_.clear();
  pending_effects_.clear();
  pending_event_ = 0;
  crash_at_ = 0;
  watched_.clear();
  for (const auto& [session, open] : std::exchange(liveness_, {})) doors_.liveness_ended(session);
  world_.after(away, [this] {
    if (!state_) start();
  });
}

void SimCoordinator::crash_at(std::uint64_t decisions, CrashPoint point, Duration away) {
  crash_at_ = decisions_ + decisions;
  crash_point_ = point;
  crash_away_ = away;
}

void SimCoordinator::fill_disk(bool full) {
  disk_.full = full;
  if (full || !state_ || !failing_) return;
  failing_ = false;
  flush();
  on(coordinator::LedgerRecovered{});
}

void SimCoordinator::on(const coordinator::Input& input) {
  if (!state_) return;
  handle(state_->on({.now = world_.now(),
                     .wall = wall(),
                     .random = random(),
                     .input = input,
                     .durable_through = durable_through_}));
}

bool SimCoordinator::sync() {
  if (pending_facts_.empty() && pending_event_ == 0) return true;
  if (disk_.full) return false;
  disk_.facts.insert(disk_.facts.end(), pending_facts_.begin(), pending_facts_.end());
  disk_.last_event = std::max(disk_.last_event, pending_event_);
  pending_facts_.clear();
  pending_event_ = 0;
  durable_through_ = decided_through_;
  if (disk_.facts.size() > kFactsPerSnapshot && sabotage_ == Sabotage::none) {
    disk_.facts.clear();
    disk_.snapshot = state_->snapshot();
  }
  return true;
}

void SimCoordinator::handle(coordinator::Decision decision) {
  ++decisions_;
  const bool crashes = crash_at_ != 0 && decisions_ >= crash_at_;
  for (const coordinator::Effect& effect : decision.immediate) perform(effect);
  pending_facts_.insert(pending_facts_.end(), decision.facts.begin(), decision.facts.end());
  if (!decision.events.empty()) pending_event_ = decision.events.back().seq;
  if (crashes && crash_point_ == CrashPoint::before_sync) return crash(crash_away_);
  if (sabotage_ == Sabotage::speak_before_sync && !pending_facts_.empty()) {
    durable_through_ = decided_through_ = decision.number;
    world_.after(50ms, [this, life = life_] {
      if (state_ && life == life_) sync();
    });
    release(std::move(decision.effects));
    arm();
    return;
  }
  decided_through_ = std::max(decided_through_, decision.number);
  pending_effects_.insert(pending_effects_.end(), decision.effects.begin(), decision.effects.end());
  doors_.decided(decision);
  if (crashes) {
    sync();
    return crash(crash_away_);
  }
  // Several decisions may share one sync.
  if (world_.rng().chance(kSharedSync)) {
    world_.after(world_.some(0ms, 2ms), [this, life = life_] {
      if (state_ && life == life_) flush();
    });
  } else {
    flush();
  }
  arm();
}

// Syncs what is pending and lets its effects leave.
void SimCoordinator::flush() {
  if (failing_) return;
  if (sync()) return release(std::exchange(pending_effects_, {}));
  failing_ = true;
  on(coordinator::LedgerFailed{.durable_through = durable_through_, .message = "disk full"});
}

void SimCoordinator::release(std::vector<coordinator::Effect> effects) {
  for (const coordinator::Effect& effect : effects) perform(effect);
}

void SimCoordinator::perform(const coordinator::Effect& effect) {
  if (const auto* send = std::get_if<coordinator::SendToWorker>(&effect)) doors_.send(*send);
  if (const auto* answer = std::get_if<coordinator::Answer>(&effect)) doors_.answer(*answer);
  if (const auto* watch = std::get_if<coordinator::WatchSession>(&effect)) {
    watched_[watch->session] = watch->token;
  }
  if (const auto* unwatch = std::get_if<coordinator::UnwatchSession>(&effect)) {
    watched_.erase(unwatch->session);
    if (liveness_.erase(unwatch->session) != 0) doors_.liveness_ended(unwatch->session);
  }
}

void SimCoordinator::receive(const std::string& peer, SessionId session, Sequence sequence,
                             const wire::FromWorker& message) {
  if (!state_) return;
  if (const auto* data = std::get_if<wire::SpoolData>(&message)) {
    return take_spool(peer, session, *data);
  }
  on(coordinator::WorkerFrame{
      .peer = peer, .session = session, .sequence = sequence, .message = message});
}

void SimCoordinator::take_spool(const std::string& peer, SessionId session,
                                const wire::SpoolData& data) {
  if (!state_->owns_session(peer, session)) return;
  std::uint64_t& stored = disk_.spools[{data.process, data.stream}];
  if (data.offset == stored) stored += data.bytes.size();
  doors_.send(
      {.peer = peer,
       .session = session,
       .generation = {},
       .sequence = {},
       .message = wire::SpoolAcked{.process = data.process,
                                   .stream = data.stream,
                                   .offset = stored,
                                   .end = data.end && data.offset + data.bytes.size() == stored}});
}

bool SimCoordinator::connect(SessionId session, const std::string& token) {
  const auto at = watched_.find(session);
  if (!state_ || at == watched_.end() || at->second != token) return false;
  liveness_[session] = true;
  return true;
}

void SimCoordinator::disconnected(SessionId session) {
  if (liveness_.erase(session) == 0) return;
  on(coordinator::WorkerDisconnected{.session = session});
}

void SimCoordinator::arm() {
  if (!state_) return;
  const std::optional<Instant> due = state_->next_due();
  if (!due || (is_armed_ && armed_ <= *due)) return;
  is_armed_ = true;
  armed_ = std::max(*due, world_.now());
  world_.after(armed_ - world_.now(), [this, life = life_, at = armed_] {
    if (!state_ || life != life_ || !is_armed_ || armed_ != at) return;
    is_armed_ = false;
    on(coordinator::Tick{});
  });
}

}  // namespace tutti::simulation
