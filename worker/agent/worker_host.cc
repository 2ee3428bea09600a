#include "worker/agent/worker_host.h"

#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

#include "protocol/base/log.h"
#include "protocol/wire/link.h"
#include "protocol/wire/untaken.h"
#include "worker/agent/device_readings.h"
#include "worker/inventory/measured_links.h"

namespace tutti::worker {

using namespace std::chrono_literals;

namespace {

// How often a join.json that is not there yet is looked for.
constexpr Duration kJoinPoll = 50ms;

// Less than what a line is worth.
constexpr Duration kGather = 3ms;
constexpr std::size_t kGatheredMax = 64;

// How long a handover waits for what is half done: starts, frames on their way.
constexpr Duration kHandoverWithin = 10s;
constexpr Duration kHandoverRetry = 20ms;

// How often the heap gives back what is free, while processes come and go.
constexpr Duration kGiveBackPeriod = 5s;

Spools::Stream member_of(wire::Stream stream) {
  return stream == wire::Stream::log ? &Spool::log : &Spool::steps;
}

}  // namespace

WorkerHost::WorkerHost(actor::Runtime& runtime, HostSettings settings)
    : runtime_(runtime),
      host_(runtime, {.name = "worker"}),
      settings_(std::move(settings)),
      state_(settings_.worker),
      spools_(settings_.spools),
      cores_(settings_.cores.cores),
      limiter_(settings_.cgroups, settings_.plan.mark),
      oom_kills_(oom_kills()),
      oom_seen_at_(monotonic_now()) {}

WorkerHost::~WorkerHost() = default;

void WorkerHost::start() {
  join_until_ = monotonic_now() + settings_.join_wait;
  adopt_spools();
  watch_devices();
  for (const Effect& effect : state_.start(monotonic_now())) {
    std::visit([this](const auto& each) { perform(each); }, effect);
  }
  tick();
}

void WorkerHost::stop() {
  // A full mailbox drains by itself; SIGTERM is then simply sent again by whoever waits.
  if (!host_.tell([this] { feed(StopRequested{}); })) {
    TUTTI_LOG_WARNING("worker", "too busy to take the request to stop");
  }
}

void WorkerHost::feed(Input input) {
  inputs_.push_back(std::move(input));
  if (feeding_) return;
  feeding_ = true;
  while (!inputs_.empty()) {
    const Input next = std::move(inputs_.front());
    inputs_.pop_front();
    for (const Effect& effect : state_.on(monotonic_now(), next)) {
      std::visit([this](const auto& each) { perform(each); }, effect);
    }
  }
  feeding_ = false;
}

void WorkerHost::tick() {
  feed(Tick{});
  reap_strays();
  sweep_folders();
  give_back_memory();
  host_.arm(kTickPeriod, [this] { tick(); });
}

// Some thousand programs whose output waits for the coordinator need a few MiB. Afterwards the heap
// would keep that: what lives on lies between.
void WorkerHost::give_back_memory() {
  const Instant now = monotonic_now();
  if (!released_ || now - gave_back_at_ < kGiveBackPeriod) return;
  released_ = false;
  gave_back_at_ = now;
  ::malloc_trim(0);
}

// Of those whose processes live, which another binary has begun, only these stay open.
void WorkerHost::adopt_spools() {
  mark_boot(settings_.spools, settings_.worker.hello.boot_id);
  for (const SpoolOwner& owner : find_spools(settings_.spools)) {
    open_spool(owner);
    const Spool& spool = *spools_.find(owner.process);
    feed(SpoolFound{.job = owner.job,
                    .generation = owner.generation,
                    .process = owner.process,
                    .rank = owner.rank,
                    .log_size = spool.log.size(),
                    .steps_size = spool.steps.size(),
                    .cut = is_cut(settings_.spools, owner)});
    if (!processes_.contains(owner.process)) spools_.rest(owner.process);
  }
}

// A driver that does not answer holds up nobody but the watch.
void WorkerHost::watch_devices() {
  if (settings_.worker.hello.devices.empty()) return;
  gpus_.start(
      [this](const GpuInventory& inventory) {
        // A mailbox that is full now has room for the next reading.
        static_cast<void>(host_.tell([this, inventory] {
          const auto& leased = settings_.worker.hello.devices;
          for (const std::string& line : new_troubles(inventory, readings_, leased)) {
            TUTTI_LOG_WARNING("worker", "{}", line);
          }
          readings_ = readings_of(inventory, leased);
          feed(DevicesRead{.readings = readings_});
        }));
      },
      [file = settings_.measured_links, said = false]() mutable {
        GpuInventory inventory = take_gpu_inventory();
        const auto links = read_measured_links(file);
        if (links) {
          add_measured_links(inventory, *links);
        } else if (links.error().code != ErrorCode::not_found && !std::exchange(said, true)) {
          TUTTI_LOG_WARNING("worker", "how fast GPUs reach each other is not known: {}",
                            links.error().message);
        }
        return inventory;
      });
}

// The coordinator
// -----------------------------------------------------------------------------------

void WorkerHost::perform(const Reconnect& effect) {
  drop_connection();
  reconnect_timer_ = host_.arm(effect.delay, [this] { open_connection(); });
}

void WorkerHost::drop_connection() {
  host_.cancel(reconnect_timer_);
  liveness_.reset();
  if (!endpoint_) return;
  // It may be calling us right now.
  host_.arm(Duration{0},
            [old = std::shared_ptr<transport::ClientEndpoint>(std::move(endpoint_))] {});
}

void WorkerHost::open_connection() {
  // Read each time: a coordinator that was set up anew has other keys.
  auto join = read_join(settings_.join, settings_.learned);
  if (join) {
    joined_once_ = true;
    // A lease is longer than to try them all takes.
    way_ = std::exchange(connected_, false) ? 0 : way_;
    connect((*join)[way_++ % join->size()]);
    return;
  }
  if (!joined_once_ && monotonic_now() >= join_until_) {
    perform(Quit{.exit_code = 3, .message = "cannot join a cluster: " + join.error().message});
    return;
  }
  if (join.error().code != ErrorCode::not_found) {
    TUTTI_LOG_WARNING("worker", "{}", join.error().message);
  }
  reconnect_timer_ = host_.arm(kJoinPoll, [this] { open_connection(); });
}

void WorkerHost::connect(const JoinInfo& join) {
  if (!join_ || join_->host != join.host) {
    auto local = local_address(join.host);
    local_address_ = local ? *std::move(local) : std::string("127.0.0.1");
  }
  join_ = join;
  const wire::Hello& hello = settings_.worker.hello;
  auto endpoint = transport::open_client(
      host_,
      {.address = join.endpoint,
       .routing_id = hello.worker + "." + hello.incarnation + "." + std::to_string(++connections_),
       .security = transport::Security::curve,
       .server_key = join.server_key,
       .keys = settings_.keys},
      {.on_frame = [this](std::string bytes) { on_coordinator_frame(bytes); },
       .on_connected = [this] { on_connected(); },
       .on_disconnected = [this] { feed(LinkLost{.session = state_.session()}); }});
  if (!endpoint) {
    TUTTI_LOG_WARNING("worker", "cannot connect to {}: {}", join.endpoint,
                      endpoint.error().message);
    return;  // the state asks for another connection when no answer comes
  }
  endpoint_ = *std::move(endpoint);
}

// It has shown that it holds the key. Where that is the new one, and not where it was said to be,
// this is where the next connection begins.
void WorkerHost::on_connected() {
  connected_ = true;
  const auto ways = read_join(settings_.join, settings_.learned);
  const bool found = ways && join_->server_key == ways->front().server_key;
  if (found && *join_ != ways->front()) keep({.join = *join_, .before = {}, .at = wall_now()});
  feed(Connected{});
}

void WorkerHost::on_coordinator_frame(const std::string& bytes) {
  auto frame = wire::decode_frame<wire::ToWorker>(bytes, coordinator_frames_);
  if (!frame) {
    if (const auto header = wire::header_of_untaken(bytes)) {
      return feed(UnknownOrder{
          .session = header->session, .sequence = header->sequence, .what = frame.error().message});
    }
    TUTTI_LOG_WARNING("worker", "a frame of the coordinator was dropped: {}",
                      frame.error().message);
    return;
  }
  if (const auto* answer = std::get_if<wire::HeartbeatAnswered>(&frame->message)) learn(*answer);
  feed(FrameReceived{.session = frame->header.session,
                     .sequence = frame->header.sequence,
                     .message = std::move(frame->message)});
}

// The coordinator has other keys now: kept, so that the next connection finds it.
void WorkerHost::learn(const wire::HeartbeatAnswered& answer) {
  if (answer.control_port == 0 || !join_ || settings_.learned.empty()) return;
  JoinInfo next = *join_;
  next.endpoint = with_port(next.endpoint, answer.control_port);
  next.server_key = answer.server_key;
  if (next == *join_) return;
  Learned learned{.join = next, .before = {}, .at = wall_now()};
  if (next.server_key != join_->server_key) learned.before = join_;
  if (!keep(learned)) return;
  TUTTI_LOG_INFO("worker", "the coordinator has new keys, on port {}", answer.control_port);
  join_ = next;
}

bool WorkerHost::keep(const Learned& learned) {
  const Result<> kept = keep_learned(settings_.learned, learned, settings_.join);
  if (!kept) {
    TUTTI_LOG_WARNING("worker", "the coordinator's new key cannot be kept: {}",
                      kept.error().message);
  }
  return kept.ok();
}

void WorkerHost::perform(const SendToCoordinator& effect) {
  // Of a turn only the last acknowledgement says anything.
  if (std::holds_alternative<wire::OrdersAcked>(effect.message)) {
    if (std::exchange(acknowledgement_, effect)) return;
    host_.arm(Duration{0}, [this] { send(*std::exchange(acknowledgement_, std::nullopt)); });
    return;
  }
  // While programs stand in line, nobody waits for a report: those of a few leave together.
  if (effect.sequence && (state_.has_line() || !outbox_.empty())) {
    outbox_.push_back(effect);
    if (gather_ == 0) gather_ = host_.arm(kGather, [this] { send_gathered(); });
    if (!state_.has_line() || outbox_.size() >= kGatheredMax) send_gathered();
    return;
  }
  send(effect);
}

void WorkerHost::send_gathered() {
  host_.cancel(gather_);
  gather_ = 0;
  for (const SendToCoordinator& effect : std::exchange(outbox_, {})) send(effect);
}

void WorkerHost::send(const SendToCoordinator& effect) {
  if (!endpoint_) return;
  wire::FromWorker message = effect.message;
  if (auto* hello = std::get_if<wire::Hello>(&message)) hello->join_token = join_->join_token;
  wire::FrameHeader header;
  header.session = effect.session;
  header.sequence = effect.sequence;
  const auto frame = wire::encode_frame(message, header);
  if (!frame) {
    TUTTI_LOG_ERROR("worker", "{} cannot be sent: {}", wire::message_name(message),
                    frame.error().message);
    return;
  }
  // What is refused is sent again: reports by number, spools by their deadline, Hello by its own.
  if (const auto sent = endpoint_->send(*frame); !sent) {
    TUTTI_LOG_DEBUG("worker", "{} was not sent: {}", wire::message_name(message),
                    sent.error().message);
  }
}

void WorkerHost::perform(const ConnectLiveness& effect) {
  liveness_ = std::make_unique<transport::LivenessConnection>(
      host_, join_->host, effect.port, effect.token,
      [this, session = effect.session](const Error& reason) {
        if (reason.code == ErrorCode::not_found) {
          feed(LivenessRefused{.session = session, .reason = reason.message});
        } else {
          feed(LinkLost{.session = session});
        }
      });
}

// Processes: what is said to them. How they begin and end: worker_processes.cc.
// -----------------------------------------------------------------------------------------

void WorkerHost::on_rank_frame(ProcessId process, const std::string& bytes) {
  auto frame = wire::decode_frame<wire::FromRank>(bytes, rank_frames_);
  if (!frame) {
    TUTTI_LOG_WARNING("worker", "a frame of process {} was dropped: {}", to_string(process),
                      frame.error().message);
    return;
  }
  feed(RankSpoke{.process = process, .message = std::move(frame->message)});
}

void WorkerHost::perform(const SendToRank& effect) {
  const auto at = processes_.find(effect.process);
  const auto starting = starting_.find(effect.process);
  if (at == processes_.end() && starting == starting_.end()) return;
  auto frame = wire::encode_frame(effect.message);
  if (!frame) {
    TUTTI_LOG_ERROR("worker", "{} cannot be sent: {}", wire::message_name(effect.message),
                    frame.error().message);
    return;
  }
  if (starting != starting_.end()) {
    starting->second.frames.push_back(*std::move(frame));
    return;
  }
  const auto sent = at->second->send(*std::move(frame));
  if (!sent && sent.error().code == ErrorCode::exhausted) {
    feed(RankLinkLost{.process = effect.process, .reason = sent.error().message});
  }
}

void WorkerHost::perform(const ReleaseProcess& effect) {
  released_ = true;
  addresses_.erase(effect.process);
  spools_.remove(effect.process);
}

// Spools
// --------------------------------------------------------------------------------------------

void WorkerHost::open_spool(const SpoolOwner& owner) {
  if (const auto opened = spools_.open(owner); !opened) {
    TUTTI_LOG_WARNING("worker", "output of process {} is lost: {}", to_string(owner.process),
                      opened.error().message);
  }
}

void WorkerHost::append(ProcessId process, wire::Stream stream, std::string_view bytes) {
  Spool* spool = spools_.find(process);
  if (spool == nullptr) return;
  if (monotonic_now() < disk_slow_until_) std::this_thread::sleep_for(disk_delay_);
  const std::uint64_t size = (spool->*member_of(stream)).append(bytes);
  feed(SpoolGrew{.process = process, .stream = stream, .size = size});
}

void WorkerHost::finish_spool(ProcessId process) {
  for (const wire::Stream stream : {wire::Stream::log, wire::Stream::steps}) {
    Spool* spool = spools_.find(process);
    if (spool == nullptr) return;
    const std::uint64_t size = (spool->*member_of(stream)).finish();
    feed(SpoolGrew{.process = process, .stream = stream, .size = size});
  }
}

void WorkerHost::perform(const AppendSpool& effect) {
  append(effect.process, effect.stream, effect.bytes);
}

void WorkerHost::perform(const SyncSteps& effect) {
  if (const Result<> synced = spools_.sync_steps(effect.job); !synced)
    TUTTI_LOG_WARNING("worker", "{}", synced.error().message);
}

void WorkerHost::perform(const ReadSpool& effect) {
  feed(SpoolRead{.process = effect.process,
                 .stream = effect.stream,
                 .offset = effect.offset,
                 .bytes = spools_.read(effect.process, member_of(effect.stream), effect.offset,
                                       effect.bytes_max)});
}

void WorkerHost::perform(const TruncateSpool& effect) {
  spools_.drop_before(effect.process, member_of(effect.stream), effect.offset);
}

// A new binary
// -------------------------------------------------------------------------------------

std::optional<Handover> WorkerHost::handover() const {
  if (!starting_.empty()) return std::nullopt;
  Handover out;
  out.incarnation = settings_.worker.hello.incarnation;
  out.state = state_.save();
  out.devices = settings_.devices;
  for (const auto& [id, process] : processes_) {
    const auto handles = process->handles();
    if (!handles) return std::nullopt;
    out.processes.push_back({.process = id,
                             .pid = process->pid(),
                             .pidfd = handles->pidfd,
                             .output = handles->output,
                             .socket = handles->socket,
                             .received = handles->received,
                             .cores = cores_.of(id)});
  }
  if (!spools_.all_stored()) return std::nullopt;
  for (const auto& [id, address] : addresses_) {
    out.addresses.push_back(
        {.process = id, .socket = address.socket.get(), .address = address.address});
  }
  return out;
}

void WorkerHost::hand_over(Successor successor) {
  const auto told = host_.tell([this, successor = std::move(successor)] {
    try_hand_over(successor, monotonic_now() + kHandoverWithin);
  });
  if (!told) TUTTI_LOG_WARNING("worker", "too busy to take the request to restart");
}

// Those that come from now on are the next binary's. A handler that has run already may not have
// been heard here yet: a moment is left for that.
bool WorkerHost::signals_wait() {
  if (!std::exchange(signals_held_, true)) {
    hold_signals();
    held_long_enough_ = monotonic_now() + kHandoverRetry;
  }
  return monotonic_now() >= held_long_enough_;
}

void WorkerHost::keep_on(const Successor& successor, const Error& reason) {
  if (std::exchange(signals_held_, false)) release_signals();
  TUTTI_LOG_ERROR("worker", "not restarted, it goes on as it is: {}", reason.message);
  successor.refused(reason);
  feed(RestartRefused{.reason = reason.message});
}

void WorkerHost::try_hand_over(const Successor& successor, Instant until) {
  if (state_.leaving()) {
    return keep_on(successor, {ErrorCode::unavailable, "it is about to end"});
  }
  if (const auto ready = handover(); ready && signals_wait())
    return keep_on(successor, successor.exec(*ready));
  if (monotonic_now() >= until) {
    return keep_on(successor,
                   {ErrorCode::unavailable, "a start, a frame or a full disk is in the way"});
  }
  host_.arm(kHandoverRetry, [this, successor, until] { try_hand_over(successor, until); });
}

void WorkerHost::restore(Handover handover) {
  for (const SavedSpool& spool : handover.state.spools) {
    if (spool.ended) continue;  // adopt_spools finds it
    open_spool({.job = spool.job,
                .generation = spool.generation,
                .process = spool.process,
                .rank = spool.rank});
  }
  state_.restore(handover.state);
  for (const HandedAddress& handed : handover.addresses) {
    addresses_[handed.process] = {.socket = FileDescriptor(handed.socket),
                                  .address = handed.address};
  }
  for (HandedProcess& handed : handover.processes) {
    Launched process;
    process.pid = static_cast<pid_t>(handed.pid);
    process.pidfd.reset(handed.pidfd);
    process.output.reset(handed.output);
    process.socket.reset(handed.socket);
    cores_.adopt(handed.process, std::move(handed.cores));
    groups_[handed.process] = limiter_.find(handed.process);
    processes_[handed.process] = std::make_unique<RankProcess>(
        host_, std::move(process), handlers_of(handed.process), std::move(handed.received));
  }
}

// The end
// -------------------------------------------------------------------------------------------

void WorkerHost::perform(const KillSelf&) { ::kill(::getpid(), SIGKILL); }

void WorkerHost::perform(const SlowDisk& effect) {
  disk_delay_ = effect.delay;
  disk_slow_until_ = monotonic_now() + effect.lasts;
}

void WorkerHost::perform(const Note& effect) { TUTTI_LOG_INFO("worker", "{}", effect.text); }

void WorkerHost::perform(const Quit& effect) {
  quit_ = effect;
  limiter_.close();
  runtime_.stop();
}

}  // namespace tutti::worker
