#include "tests/simulation/cluster/sim_worker.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <variant>

#include "protocol/wire/link.h"
#include "worker/agent/handover.h"

namespace tutti::simulation {

SimWorker::SimWorker(RankWorld& ranks, Network& network, CoordinatorDoor door,
                     WorkerOptions options)
    : ranks_(ranks),
      world_(ranks.world),
      door_(std::move(door)),
      options_(std::move(options)),
      up_(network, options_.name, Direction::to_coordinator),
      down_(network, options_.name, Direction::to_worker) {}

void SimWorker::start() {
  ++incarnation_;
  stopping_ = false;
  heard_ = asked_ = world_.now();
  begin(nullptr);
}

void SimWorker::begin(const worker::SavedState* saved) {
  ++binary_;
  worker::WorkerSettings settings;
  settings.seed = world_.rng().next();
  settings.hello = hello();
  state_ = std::make_unique<worker::WorkerState>(std::move(settings));
  if (saved != nullptr) state_->restore(*saved);
  if (!is_cut()) unreachable_since_.reset();
  // What it says arrives where only the way down is cut: its silence begins anew.
  if (unreachable_since_ && !up_.is_cut()) unreachable_since_ = world_.now();
  for (const worker::Effect& effect : state_->start(world_.now())) {
    std::visit([this](const auto& each) { perform(each); }, effect);
  }
  feed_left_spools();
  tick();
}

wire::Hello SimWorker::hello() const {
  wire::Hello out;
  out.worker = options_.name;
  out.incarnation = std::to_string(incarnation_);
  out.host = options_.name;
  out.slots = world_.breaks(Mutation::hide_slots) ? 0 : options_.slots;
  if (world_.breaks(Mutation::claim_slots)) out.slots += 2;
  out.cores = options_.slots;
  out.memory_bytes = kNodeMemory;
  out.labels = options_.labels;
  out.profiles = {options_.profile};
  if (world_.breaks(Mutation::claim_profile)) out.profiles = {"portable"};
  for (std::uint32_t slot = 0; slot < options_.devices.size(); ++slot) {
    out.devices.push_back({.uuid = device_of(slot),
                           .name = options_.profile,
                           .memory_bytes = options_.devices[slot]});
  }
  out.faults = true;
  out.join_token = "join";
  out.limits = "rlimit";
  return out;
}

std::string SimWorker::device_of(std::uint32_t slot) const {
  if (options_.devices.empty()) return {};
  return "GPU-" + options_.name + "-" + std::to_string(slot);
}

bool SimWorker::has_label(std::string_view label) const {
  return std::find(options_.labels.begin(), options_.labels.end(), label) != options_.labels.end();
}

void SimWorker::feed_left_spools() {
  for (const auto& [id, spool] : spools_) {
    if (spool.released) continue;
    if (!processes_.contains(id)) world_.reached("a worker found what an earlier one left");
    on(worker::SpoolFound{.job = spool.start.job,
                          .generation = spool.start.generation,
                          .process = id,
                          .rank = spool.start.rank,
                          .log_size = spool.log.size(),
                          .steps_size = spool.steps.size(),
                          .cut = spool.cut});
  }
}

void SimWorker::crash(Duration away) {
  if (!state_) return;
  world_.trace(options_.name + " dies");
  state_.reset();
  processes_.clear();  // parent-death signal
  peer_.clear();
  kept_.clear();
  if (!unreachable_since_) unreachable_since_ = world_.now();
  const SessionId session = std::exchange(liveness_, {});
  if (session && !is_cut()) {
    world_.after(world_.some(1ms, 10ms), [this, session] { door_.disconnected(session); });
  }
  world_.after(away, [this] {
    if (!state_) start();
  });
}

bool SimWorker::replace() {
  if (!state_ || stopping_ || state_->leaving()) return false;
  world_.trace(options_.name + " is replaced in place");
  if (!processes_.empty()) world_.reached("a worker was replaced under its ranks");
  worker::Handover left;
  left.incarnation = std::to_string(incarnation_);
  left.state = state_->save();
  for (const auto& [id, process] : processes_) left.processes.emplace_back().process = id;
  const auto taken = worker::decode_handover(worker::encode_handover(left));
  if (!taken || *taken != left) {
    world_.violate("I10", "a handover does not give itself, and its ranks are lost");
    return true;
  }
  // Its connections end with the exec; processes, pipes and spools do not.
  peer_.clear();
  kept_.clear();
  const SessionId session = std::exchange(liveness_, {});
  if (session && !is_cut()) {
    world_.after(world_.some(1ms, 10ms), [this, session] { door_.disconnected(session); });
  }
  begin(&taken->state);
  return true;
}

void SimWorker::lose_power(Duration away) {
  crash(away);
  for (auto& [id, spool] : spools_) {
    if (spool.released) continue;
    spool.cut = true;
    const auto lose = [&](std::string& stream, std::string& whole, std::size_t synced) {
      if (whole.size() < stream.size()) whole = stream;
      if (stream.size() <= synced) return;
      stream.resize(synced + world_.faults().below(stream.size() - synced + 1));
      if (stream.size() < whole.size()) world_.reached("a spool lost its end");
    };
    lose(spool.log, spool.whole_log, 0);
    lose(spool.steps, spool.whole_steps, spool.synced_steps);
    // As the worker that finds it does.
    spool.steps.resize(spool.steps.rfind('\n') + 1);
  }
}

bool SimWorker::stop(Duration away) {
  if (!state_ || std::exchange(stopping_, true)) return false;
  world_.trace(options_.name + " is asked to end");
  stop_away_ = away;
  on(worker::StopRequested{});
  return true;
}

bool SimWorker::expect_refusal(Duration away) {
  if (!state_ || std::exchange(stopping_, true)) return false;
  stop_away_ = away;
  return true;
}

void SimWorker::cut(Cut what) {
  world_.trace(options_.name + " is cut off");
  if (what != Cut::down) up_.cut();
  if (what != Cut::up) down_.cut();
  if (!unreachable_since_) unreachable_since_ = world_.now();
}

void SimWorker::heal() {
  up_.heal();
  down_.heal();
  if (state_) unreachable_since_.reset();
}

void SimWorker::slow_down(double factor) {
  slowness_ = factor;
  for (auto& [id, process] : processes_) process.rank->slow_down(factor);
}

void SimWorker::later(Duration delay, std::function<void()> action) {
  const auto slowed =
      Duration(static_cast<std::int64_t>(static_cast<double>(delay.count()) * slowness_));
  world_.after(slowed, [this, incarnation = incarnation_, action = std::move(action)] {
    if (state_ && incarnation == incarnation_) action();
  });
}

void SimWorker::soon(Duration delay, std::function<void()> action) {
  later(delay, [this, binary = binary_, action = std::move(action)] {
    if (binary == binary_) action();
  });
}

void SimWorker::tick() {
  on(worker::Tick{});
  if (world_.breaks(Mutation::kill_on_silence) && world_.now() - heard_ > 3s) {
    for (const auto& process : state_->processes()) {
      perform(worker::SignalProcess{.process = process.process, .signal = 9});
    }
  }
  soon(worker::kTickPeriod, [this] { tick(); });
}

void SimWorker::on(const worker::Input& input) {
  if (!state_) return;
  for (const worker::Effect& effect : state_->on(world_.now(), input)) {
    std::visit([this](const auto& each) { perform(each); }, effect);
    if (!state_) return;
  }
}

// The link
// -----------------------------------------------------------------------------------------------

void SimWorker::receive(const std::string& peer, SessionId session, Sequence sequence,
                        const wire::ToWorker& message) {
  wire::FrameHeader header;
  header.session = session;
  header.sequence = sequence;
  const Result<std::string> frame = wire::encode_frame<wire::ToWorker>(message, header);
  TUTTI_ASSERT(frame.ok());
  note_one_way(down_, up_);
  down_.send(wire::message_name(message), [this, peer, bytes = *frame] {
    if (peer != peer_) return;  // of a connection that was thrown away
    wire::FrameCounters counters;
    const auto decoded = wire::decode_frame<wire::ToWorker>(bytes, counters);
    TUTTI_ASSERT(decoded.ok());
    world_.trace("to " + options_.name + " " + bytes.substr(wire::kFrameHeaderBytes));
    note_orders(decoded->message);
    const bool word = std::holds_alternative<wire::HeartbeatAnswered>(decoded->message) ||
                      std::holds_alternative<wire::Welcome>(decoded->message);
    forming_ = std::holds_alternative<wire::FormGroup>(decoded->message);
    on(worker::FrameReceived{.session = decoded->header.session,
                             .sequence = decoded->header.sequence,
                             .message = decoded->message});
    forming_ = false;
    if (word && state_ && state_->joined() && state_->session() == decoded->header.session) {
      heard_ = asked_;
    }
  });
}

void SimWorker::note_one_way(const Channel& used, const Channel& other) {
  if (used.is_cut() && !other.is_cut()) world_.reached("a frame met a cut of one direction");
}

void SimWorker::note_orders(const wire::ToWorker& message) {
  ProcessId process;
  if (const auto* stop = std::get_if<wire::StopRank>(&message)) process = stop->process;
  if (const auto* signal = std::get_if<wire::SignalRank>(&message)) process = signal->process;
  const auto at = processes_.find(process);
  if (at != processes_.end()) at->second.ordered = true;
}

void SimWorker::liveness_ended(SessionId session) {
  if (session != liveness_) return;
  liveness_ = {};
  if (down_.is_cut()) return;
  soon(world_.some(1ms, 10ms), [this, session] { on(worker::LinkLost{session}); });
}

void SimWorker::perform(const worker::SendToCoordinator& effect) {
  const bool asks = std::holds_alternative<wire::Hello>(effect.message) ||
                    std::holds_alternative<wire::Heartbeat>(effect.message);
  if (asks) asked_ = world_.now();
  send(effect);
}

void SimWorker::send(worker::SendToCoordinator sent) {
  auto* exited = std::get_if<wire::RankExited>(&sent.message);
  if (exited != nullptr && exited->signal == 9 && world_.breaks(Mutation::blame_user)) {
    exited->failure = wire::FailureClass::user;
  }
  const bool beats = std::holds_alternative<wire::Heartbeat>(sent.message);
  if (beats && up_.is_cut() && world_.breaks(Mutation::pass_heartbeats)) {
    return world_.after(1ms, [this, peer = peer_, sent] { deliver(peer, sent); });
  }
  note_one_way(up_, down_);
  up_.send(wire::message_name(sent.message), [this, peer = peer_, sent] { deliver(peer, sent); });
}

void SimWorker::deliver(const std::string& peer, const worker::SendToCoordinator& effect) {
  wire::FrameHeader header;
  header.session = effect.session;
  header.sequence = effect.sequence;
  const Result<std::string> frame = wire::encode_frame<wire::FromWorker>(effect.message, header);
  TUTTI_ASSERT(frame.ok());
  world_.trace("from " + options_.name + " " + frame->substr(wire::kFrameHeaderBytes));
  wire::FrameCounters counters;
  const auto decoded = wire::decode_frame<wire::FromWorker>(*frame, counters);
  TUTTI_ASSERT(decoded.ok());
  if (door_.receive(peer, effect.session, effect.sequence, decoded->message)) return;
  if (peer == peer_) kept_.push_back(effect);
}

// Its socket kept them: they were said when the worker said them.
void SimWorker::coordinator_up() {
  for (const worker::SendToCoordinator& effect : std::exchange(kept_, {})) send(effect);
}

void SimWorker::perform(const worker::ConnectLiveness& effect) {
  const SessionId old = std::exchange(liveness_, effect.session);
  soon(1ms, [this, old, effect] {
    if (old && !up_.is_cut()) door_.disconnected(old);
    if (is_cut() || !door_.connect(effect.session, effect.token, options_.name)) {
      on(worker::LinkLost{effect.session});
    }
  });
}

void SimWorker::perform(const worker::Reconnect& effect) {
  peer_.clear();
  kept_.clear();
  soon(effect.delay + 1ms, [this] {
    peer_ =
        options_.name + "/" + std::to_string(incarnation_) + "/" + std::to_string(++connection_);
    on(worker::Connected{});
  });
}

void SimWorker::perform(const worker::KillSelf&) {
  world_.after(0ms, [this, incarnation = incarnation_] {
    if (incarnation == incarnation_) crash(300ms);
  });
}

void SimWorker::perform(const worker::Quit& effect) {
  if (!stopping_) return world_.violate("I10", "a worker gave up: " + effect.message);
  world_.reached("a worker ended as it was asked to");
  const Duration away = stop_away_;
  // The state machine is still on the stack.
  world_.after(0ms, [this, away, incarnation = incarnation_] {
    if (incarnation == incarnation_) crash(away);
  });
}

}  // namespace tutti::simulation
