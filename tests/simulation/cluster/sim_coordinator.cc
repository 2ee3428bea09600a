#include "tests/simulation/cluster/sim_coordinator.h"

#include <algorithm>
#include <variant>

#include "coordinator/cluster/durable.h"

namespace tutti::simulation {

namespace {

// Facts after which the journal is replaced by a snapshot; small, so that both are met.
constexpr std::size_t kFactsPerSnapshot = 40;
constexpr double kSharedSync = 0.2;
constexpr std::size_t kSecretDigits = 32;
// Longer than a worker waits between two heartbeats.
constexpr Duration kSlowSync = 500ms;

// Zero: it asks for no answer.
coordinator::RequestId request_of(const coordinator::Input& input) {
  return std::visit(
      [](const auto& each) {
        if constexpr (requires { each.request; }) {
          return each.request;
        } else {
          return coordinator::RequestId{};
        }
      },
      input);
}

}  // namespace

SimCoordinator::SimCoordinator(World& world, coordinator::ClusterSettings settings, Doors doors)
    : world_(world),
      settings_(std::move(settings)),
      first_quotas_(settings_.quotas),
      doors_(std::move(doors)),
      journal_(world) {}

std::string SimCoordinator::random() {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (std::size_t i = 0; i < kSecretDigits; ++i) out += kDigits[world_.rng().below(16)];
  return out;
}

WallTime SimCoordinator::wall() const {
  if (!world_.breaks(Mutation::old_clock)) return world_.wall();
  return WallTime{kEpochMs + to_ms(world_.now() - Instant{})};
}

coordinator::ClusterSettings SimCoordinator::settings_of_life() const {
  coordinator::ClusterSettings out = settings_;
  if (world_.breaks(Mutation::lose_quotas)) out.quotas = {};
  if (world_.breaks(Mutation::keep_quotas)) out.quotas = first_quotas_;
  return out;
}

void SimCoordinator::start() {
  ++life_;
  world_.trace("coordinator starts");
  in_force_ = settings_.quotas;
  state_ = std::make_unique<coordinator::ClusterState>(settings_of_life());
  past_ = journal_.recover();
  state_->restore(past_.snapshot);
  for (const coordinator::Fact& fact : past_.facts) state_->replay(fact);
  decided_through_ = 0;
  durable_through_ = 0;
  failing_ = false;
  flush_due_ = false;
  is_armed_ = false;
  busy_until_ = world_.now();
  alive_since_ = world_.now();
  doors_.started();
  handle(state_->begin(world_.now(), wall(), past_.last_event));
}

void SimCoordinator::crash(Duration away) {
  if (!state_) return;
  world_.trace("coordinator crashes");
  state_.reset();
  journal_.crash();
  facts_.clear();
  events_.clear();
  effects_.clear();
  backlog_.clear();
  open_requests_.clear();
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

void SimCoordinator::fill_disk() {
  world_.trace("coordinator's disk is full");
  full_ = true;
}

void SimCoordinator::free_disk() {
  full_ = false;
  if (state_ && failing_) flush();
}

void SimCoordinator::configure(coordinator::RequestId request,
                               coordinator::scheduler::Quotas quotas) {
  world_.trace("other quotas are configured");
  settings_.quotas = quotas;
  coordinator::SetQuotas input;
  input.request = request;
  input.quotas = std::move(quotas);
  on(input);
}

void SimCoordinator::stand_still(Duration time) {
  if (!state_) return;
  world_.trace("coordinator stands still");
  busy_until_ = std::max(busy_until_, world_.now() + time);
  world_.after(busy_until_ - world_.now(), [this, life = life_] {
    if (!state_ || life != life_ || standing_still()) return;
    for (const coordinator::Input& input : std::exchange(backlog_, {})) on(input);
    arm();
  });
}

void SimCoordinator::on(const coordinator::Input& input) {
  if (!state_) return;
  if (const coordinator::RequestId request = request_of(input)) open_requests_.insert(request);
  if (standing_still()) return backlog_.push_back(input);
  const auto* drain = std::get_if<coordinator::DrainNode>(&input);
  if (drain != nullptr && world_.breaks(Mutation::forget_drain)) {
    return answer({.request = drain->request, .body = coordinator::Done{}});
  }
  handle(state_->on({.now = world_.now(),
                     .wall = wall(),
                     .random = random(),
                     .input = received(input),
                     .durable_through = durable_through_}));
}

// The mutations of what a client asked for.
coordinator::Input SimCoordinator::received(coordinator::Input input) {
  if (auto* configured = std::get_if<coordinator::SetQuotas>(&input)) {
    in_force_ = configured->quotas;
    if (world_.breaks(Mutation::lose_quotas)) configured->quotas = {};
    if (world_.breaks(Mutation::keep_quotas)) configured->quotas = first_quotas_;
  }
  auto* submit = std::get_if<coordinator::SubmitJob>(&input);
  if (submit == nullptr) return input;
  if (world_.breaks(Mutation::drop_key)) submit->key.clear();
  spec::JobSpec& spec = submit->spec;
  if (world_.breaks(Mutation::lose_at_once)) spec.array.at_once = 0;
  if (world_.breaks(Mutation::lose_dependencies)) spec.after = {};
  if (world_.breaks(Mutation::lose_priority)) spec.priority = 0;
  if (world_.breaks(Mutation::lose_labels)) spec.resources.labels = {};
  if (world_.breaks(Mutation::lose_device)) spec.resources.device = "any";
  if (world_.breaks(Mutation::lose_memory)) spec.resources.memory_bytes = 0;
  if (world_.breaks(Mutation::lose_cores)) spec.resources.cores = 0;
  if (world_.breaks(Mutation::lose_budget)) spec.retries.infrastructure += 1'000;
  if (world_.breaks(Mutation::lose_device_memory)) spec.resources.device_memory_bytes = 0;
  if (world_.breaks(Mutation::lose_wait)) spec.on_loss.wait_ms = 0;
  if (world_.breaks(Mutation::one_owner)) submit->owner = "tester";
  if (world_.breaks(Mutation::many_owners)) submit->owner += submit->yaml;
  if (world_.breaks(Mutation::raise_priority) && submit->request.value % 2 == 0) {
    spec.priority += 5;
  }
  if (world_.breaks(Mutation::lose_delay)) spec.delay_ms = spec.begin_unix_ms = 0;
  if (world_.breaks(Mutation::more_ranks) && spec.resources.ranks_max > spec.resources.ranks_min) {
    spec.resources.ranks_max *= 2;
  }
  return input;
}

void SimCoordinator::perform_immediate(const coordinator::Decision& decision) {
  for (const coordinator::Effect& effect : decision.immediate) perform(effect);
}

void SimCoordinator::handle(coordinator::Decision decision) {
  ++decisions_;
  const bool crashes = crash_at_ != 0 && decisions_ >= crash_at_;
  perform_immediate(decision);
  if (world_.breaks(Mutation::speak_before_sync) && !decision.facts.empty()) {
    return speak_first(std::move(decision));
  }
  facts_.insert(facts_.end(), decision.facts.begin(), decision.facts.end());
  events_.insert(events_.end(), decision.events.begin(), decision.events.end());
  effects_.insert(effects_.end(), decision.effects.begin(), decision.effects.end());
  decided_through_ = std::max(decided_through_, decision.number);
  doors_.decided(decision);
  if (crashes) {
    crash_at_ = 0;
    doors_.crashes();
    if (!full_) journal_.append(facts_, events_);
    if (crash_point_ != CrashPoint::before_sync) journal_.sync();
    if (crash_point_ == CrashPoint::between_effects && !full_ && !effects_.empty()) {
      world_.reached("a crash came between the effects of a decision");
      effects_.resize(world_.rng().below(effects_.size()) + 1);
      release(std::exchange(effects_, {}));
    }
    return crash(crash_away_);
  }
  // Several decisions may share one sync.
  if (!flush_due_ && world_.rng().chance(kSharedSync)) {
    flush_due_ = true;
    world_.after(world_.some(0ms, 2ms), [this, life = life_] {
      if (!state_ || life != life_) return;
      flush_due_ = false;
      flush();
    });
  } else if (!flush_due_) {
    flush();
  }
  arm();
}

// The mutation: its effects leave, and the sync comes some time later.
void SimCoordinator::speak_first(coordinator::Decision decision) {
  decided_through_ = durable_through_ = decision.number;
  facts_.insert(facts_.end(), decision.facts.begin(), decision.facts.end());
  events_.insert(events_.end(), decision.events.begin(), decision.events.end());
  doors_.decided(decision);
  release(decision.effects);
  world_.after(50ms, [this, life = life_] {
    if (state_ && life == life_) flush();
  });
  arm();
}

// What has changed since the one before makes this one, byte for byte.
void SimCoordinator::write_snapshot() {
  const coordinator::Snapshot snapshot = state_->snapshot();
  coordinator::Snapshot changed = journal_.truth().snapshot;
  apply(state_->changes(), changed);
  if (changed != snapshot) {
    world_.violate("I11", "what changed since the last snapshot does not make the next one");
  }
  state_->begin_changes();
  journal_.write_snapshot(snapshot);
}

bool SimCoordinator::sync() {
  if (facts_.empty() && events_.empty()) return true;
  if (full_) return false;
  journal_.append(facts_, events_);
  journal_.sync();
  facts_.clear();
  events_.clear();
  durable_through_ = decided_through_;
  if (journal_.facts_since_snapshot() > kFactsPerSnapshot) {
    write_snapshot();
  }
  return true;
}

// Syncs what is pending and lets its effects leave.
void SimCoordinator::flush() {
  if (standing_still()) {
    flush_due_ = true;
    return world_.after(busy_until_ - world_.now(), [this, life = life_] {
      if (!state_ || life != life_) return;
      flush_due_ = false;
      flush();
    });
  }
  if (sync_max_ > 0ms && !facts_.empty() && !full_) {
    const Duration takes = world_.some(1ms, sync_max_);
    if (takes > kSlowSync) world_.reached("a sync was slow");
    stand_still(takes);
  }
  if (sync()) {
    const bool recovered = std::exchange(failing_, false);
    release(std::exchange(effects_, {}));
    if (recovered) {
      world_.reached("the ledger failed and recovered");
      on(coordinator::LedgerRecovered{});
    }
    return;
  }
  if (std::exchange(failing_, true)) return;
  on(coordinator::LedgerFailed{.durable_through = durable_through_, .message = "disk full"});
}

void SimCoordinator::release(const std::vector<coordinator::Effect>& effects) {
  for (const coordinator::Effect& effect : effects) perform(effect);
}

void SimCoordinator::answer(const coordinator::Answer& answer) {
  // Each once: of a submit that was taken back, two come (cluster_messages.h).
  if (open_requests_.erase(answer.request) == 0) return;
  if (world_.breaks(Mutation::drop_answer) && answer.request.value % 3 == 0) return;
  if (world_.breaks(Mutation::refuse_and_keep)) {
    return doors_.answer(
        {.request = answer.request, .body = Error{ErrorCode::invalid_argument, "not today"}});
  }
  doors_.answer(answer);
  if (world_.breaks(Mutation::answer_twice)) doors_.answer(answer);
}

void SimCoordinator::perform(const coordinator::Effect& effect) {
  if (const auto* send = std::get_if<coordinator::SendToWorker>(&effect)) doors_.send(*send);
  if (const auto* given = std::get_if<coordinator::Answer>(&effect)) answer(*given);
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

std::vector<coordinator::NodeView> SimCoordinator::nodes() const {
  std::vector<coordinator::NodeView> nodes = state_->nodes();
  for (coordinator::NodeView& node : nodes) {
    if (world_.breaks(Mutation::miscount_free)) ++node.free_slots;
  }
  return nodes;
}

std::optional<coordinator::Explanation> SimCoordinator::explain(JobId job) const {
  std::optional<coordinator::Explanation> why = state_->explain(job);
  if (!why) return why;
  if (world_.breaks(Mutation::promise_late) && why->earliest_unix_ms)
    *why->earliest_unix_ms += to_ms(1h);
  if (world_.breaks(Mutation::hide_holders) && why->must_end.size() > 1) why->must_end.resize(1);
  return why;
}

void SimCoordinator::arm() {
  if (!state_) return;
  const std::optional<Instant> due = state_->next_due();
  if (!due || (is_armed_ && armed_ <= *due)) return;
  is_armed_ = true;
  // A sync that is due comes first, as in the real host's turn.
  armed_ = std::max(*due, world_.now() + (flush_due_ ? 1ms : 0ms));
  world_.after(armed_ - world_.now(), [this, life = life_, at = armed_] {
    if (!state_ || life != life_ || !is_armed_ || armed_ != at) return;
    is_armed_ = false;
    on(coordinator::Tick{});
  });
}

}  // namespace tutti::simulation
