#include "coordinator/membership/membership.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "coordinator/cluster/orders.h"
#include "coordinator/cluster/recovery.h"
#include "coordinator/life/hang.h"
#include "coordinator/membership/quarantine.h"
#include "protocol/base/counted.h"
#include "protocol/base/secret.h"

namespace tutti::coordinator {

namespace {

constexpr std::size_t kNameBytesMax = 100;
constexpr int kSuspectBeats = 3;
// Above so many workers each beats as much less often as there are more of them, until this part of
// a lease: suspected well before it is lost.
constexpr std::size_t kFastBeats = 2'000;
constexpr int kBeatsInLease = 4;
// Devices of a worker, and reasons and links of one, that are kept: more than a machine has.
constexpr std::size_t kReadingsMax = 64;
// Of what a worker says for people.
constexpr std::size_t kReasonBytesMax = 512;
// Lost workers without processes beyond this many are not listed any more.
constexpr std::size_t kLostWorkersMax = 1'000;

void close_link(Desk& desk, WorkerLink& link) {
  if (!link.open) return;
  link.open = false;
  desk.worker_of_peer.erase(link.peer);
  desk.effect(UnwatchSession{.session = link.session});
  link.orders.clear();
  link.reports.restart();
  link.reports_owed = false;
  link.disconnected.reset();
}

// Whose doing a loss is: what was asked for is not held against the node.
enum class Doing { its_own, asked_for };

void lose_worker(Desk& desk, const std::string& name, const std::string& reason,
                 Doing doing = Doing::its_own) {
  desk.links[name].worker = name;
  desk.links[name].steady_since.reset();
  close_link(desk, desk.links[name]);
  desk.stir_link(name);
  std::set<JobId> jobs;
  for (const ProcessId id : desk.durable.processes_on(name)) {
    const ProcessRecord& process = *desk.durable.process(id);
    if (!process.lost && desk.durable.job(process.job) != nullptr) {
      const auto& members = desk.job(process.job).members;
      if (std::find(members.begin(), members.end(), id) != members.end()) jobs.insert(process.job);
      desk.touch(process.job);
    }
  }
  desk.record(WorkerLost{.worker = name, .reason = reason, .unix_ms = desk.wall.unix_ms});
  desk.note({.job = {},
             .kind = EventKind::worker_lost,
             .message = fmt::format("worker {}: {}", name, reason),
             .worker = name});
  ++desk.counters.workers_lost;
  for (const JobId id : jobs) {
    const JobState state = desk.job(id).state;
    if (state != JobState::stopping && !is_terminal(state)) lose_node(desk, id, name, reason);
  }
  desk.capacity_changed();
  if (doing == Doing::its_own && !desk.durable.worker(name)->drain.leaving) {
    blame_for_loss(desk, name, reason);
  }
}

// Empty: admitted.
wire::Refused refusal(const Desk& desk, const wire::Hello& hello) {
  if (!equal_secrets(hello.join_token, desk.settings.join_token)) {
    return {.code = "permission_denied", .message = "the join token is wrong"};
  }
  if (hello.worker.empty() || hello.worker.size() > kNameBytesMax || hello.incarnation.empty()) {
    return {.code = "unsupported", .message = "a worker needs a name and an incarnation"};
  }
  const auto at = desk.links.find(hello.worker);
  if (at == desk.links.end()) {
    if (desk.links.size() < kWorkersMax) return {};
    return {.code = "unavailable", .message = "the cluster has as many workers as it can hold"};
  }
  const WorkerRecord* known = desk.durable.worker(hello.worker);
  const bool other = known != nullptr && !known->lost && known->incarnation != hello.incarnation;
  const WorkerLink& link = at->second;
  if (hello.incarnation == link.expelled_incarnation) {
    return {.code = "permission_denied", .message = "its key was revoked"};
  }
  if (other && link.open && !link.disconnected && !is_suspect(desk, link)) {
    return {.code = "unavailable",
            .message = fmt::format("a worker named {} is connected already", hello.worker)};
  }
  return {};
}

WorkerRecord record_of(const wire::Hello& hello) {
  return {.worker = hello.worker,
          .incarnation = hello.incarnation,
          .host = hello.host,
          .version = hello.version,
          .cpu = hello.cpu,
          .slots = hello.slots,
          .cores = hello.cores,
          .memory_bytes = hello.memory_bytes,
          .profiles = hello.profiles,
          .runs_programs = hello.runs_programs,
          .faults = hello.faults,
          .lost = false,
          .drain = {},
          .blames = {},
          .labels = hello.labels,
          .limits = hello.limits,
          .devices = hello.devices,
          .device_stack = hello.device_stack,
          .exchange = hello.exchange};
}

void join(Desk& desk, const wire::Hello& hello) {
  const WorkerRecord* known = desk.durable.worker(hello.worker);
  const bool back = known != nullptr && known->incarnation != hello.incarnation;
  if (back && !known->lost) lose_worker(desk, hello.worker, "it was started anew");
  WorkerRecord wanted = record_of(hello);
  if (known != nullptr) {
    // What is held against it stays; but who said that it leaves, and is back, takes work again.
    if (!back || known->drain.cause != DrainCause::leaving) wanted.drain = known->drain;
    if (back) wanted.drain.leaving = false;
    wanted.blames = known->blames;
  }
  if (known != nullptr && *known == wanted) return;
  const bool news = known == nullptr || known->lost;
  desk.record(WorkerJoined{.worker = wanted});
  if (!news) return;
  desk.note({.job = {},
             .kind = EventKind::worker_joined,
             .message = fmt::format("worker {} on {} with {}", hello.worker, hello.host,
                                    counted(hello.slots, "slot")),
             .worker = hello.worker});
}

Duration heartbeat_of(const Desk& desk) {
  const Duration asked = desk.settings.heartbeat;
  const std::size_t workers = desk.durable.workers().size();
  if (workers <= kFastBeats) return asked;
  const double crowd = static_cast<double>(workers) / static_cast<double>(kFastBeats);
  const auto slower = std::chrono::duration_cast<Duration>(asked * crowd);
  return std::max(asked, std::min<Duration>(slower, desk.settings.lease / kBeatsInLease));
}

void open_link(Desk& desk, const WorkerFrame& frame, const wire::Hello& hello) {
  WorkerLink& link = desk.links[hello.worker];
  close_link(desk, link);
  link.worker = hello.worker;
  link.open = true;
  desk.stir_link(hello.worker);
  link.peer = frame.peer;
  link.session = desk.fresh_session();
  link.greeting = hello.greeting;
  link.reports_announced = hello.reports;
  link.heard = desk.now;
  link.heartbeat = heartbeat_of(desk);
  link.forget_due.reset();
  if (!link.steady_since) link.steady_since = desk.now;
  link.strangers.clear();
  link.readings.clear();
  desk.worker_of_peer[frame.peer] = hello.worker;
  const std::string token = desk.fresh_secret();
  desk.effect(WatchSession{.session = link.session, .token = token});
  SendToWorker welcome = frame_to(
      link, wire::Welcome{.session = link.session,
                          .heartbeat_ms = static_cast<std::uint32_t>(to_ms(link.heartbeat)),
                          .lease_ms = static_cast<std::uint32_t>(to_ms(desk.settings.lease)),
                          .liveness_port = desk.settings.liveness_port,
                          .liveness_token = token,
                          .greeting = hello.greeting,
                          .knows_silence = true});
  desk.effect(std::move(welcome));
}

// What the worker says of a process that it should have; soft state begins anew from it.
void adopt(Desk& desk, const wire::ProcessState& state) {
  using Phase = wire::ProcessPhase;
  ProcessSoft& soft = desk.processes[state.process];
  soft.seen = true;
  soft.told = state.generation;
  soft.progress = state.progress;
  soft.progress_at = desk.now;
  soft.beat_at = desk.now;
  soft.stop_told = state.phase == Phase::stopping;
  soft.limits = state.limits;
  soft.held = state.held;
  const Phase phase = state.phase;
  if (phase == Phase::starting || phase == Phase::stopping) return;
  soft.ready = wire::RankReady{.job = state.job,
                               .generation = state.generation,
                               .process = state.process,
                               .rank = state.rank,
                               .address = state.address,
                               .held = state.held};
  if (phase == Phase::ready) return;
  soft.formed_told = state.generation;
  soft.formed = state.formed;
  soft.formed->generation = state.generation;
  if (phase == Phase::finished) {
    soft.finished = wire::RankFinished{.job = state.job,
                                       .generation = state.generation,
                                       .process = state.process,
                                       .rank = state.rank,
                                       .step = state.progress.step,
                                       .failure = wire::FailureClass::none,
                                       .message = {}};
  }
}

void end_unseen(Desk& desk, const ProcessRecord& process, const std::string& why) {
  on_exit(desk, {.job = process.job,
                 .generation = process.generation,
                 .process = process.process,
                 .code = 0,
                 .signal = 0,
                 .ordered = false,
                 .failure = wire::FailureClass::infrastructure,
                 .error = why,
                 .seen_unix_ms = desk.wall.unix_ms});
}

// A worker that could not be reached has not failed: its ranks have gone on, or wait. They hold
// what no checkpoint has, as long as nobody began another generation of their job in their place.
bool may_return(const Desk& desk, const ProcessRecord& process, const wire::ProcessState& state) {
  const JobRecord* job = desk.durable.job(process.job);
  if (job == nullptr || !process.lost || process.ordered_to_stop) return false;
  // Of a server nothing would be kept but the time that it takes to load.
  if (job->terms.kind != "train" || state.phase == wire::ProcessPhase::stopping) return false;
  const bool waits = job->state == JobState::placed || job->state == JobState::starting ||
                     job->state == JobState::recovering;
  return waits && !job->generation_alive && job->generation == state.generation &&
         process.rank < job->members.size() && !job->members[process.rank];
}

void take_back(Desk& desk, const ProcessRecord& process) {
  desk.record(ProcessReturned{.process = process.process});
  const JobRecord& job = desk.job(process.job);
  desk.note({.job = process.job,
             .kind = EventKind::rank_returned,
             .message = describe(job, process) + " is back with its state",
             .generation = job.generation,
             .rank = static_cast<std::int32_t>(process.rank),
             .worker = process.worker});
}

// Compares what runs with what should run. What should run and does not was never begun: an exit
// that the coordinator knows is journalled, and one that it does not know is in the Hello.
void reconcile(Desk& desk, const wire::Hello& hello) {
  for (const wire::RankExited& exit : hello.exits) on_exit(desk, exit);
  std::vector<ProcessRecord> own;
  for (const ProcessId id : desk.durable.processes_on(hello.worker)) {
    own.push_back(*desk.durable.process(id));
  }
  for (const ProcessRecord& process : own) {
    desk.processes[process.process] = {};
    desk.touch(process.job);
    const auto state = std::find_if(
        hello.processes.begin(), hello.processes.end(),
        [&](const wire::ProcessState& each) { return each.process == process.process; });
    if (process.incarnation != hello.incarnation) {
      end_unseen(desk, process, "its worker was started anew");
    } else if (state != hello.processes.end()) {
      adopt(desk, *state);
      if (may_return(desk, process, *state)) take_back(desk, process);
    } else if (!is_wanted(desk.durable.job(process.job), process)) {
      end_unseen(desk, process, "its worker does not have it");
    }
  }
  WorkerLink& link = desk.links[hello.worker];
  for (const wire::ProcessState& state : hello.processes) {
    const ProcessRecord* known = desk.durable.process(state.process);
    if (known != nullptr) {
      if (state.phase == wire::ProcessPhase::broken) {
        on_report(desk, wire::GenerationBroken{.job = state.job,
                                               .generation = state.generation,
                                               .process = state.process,
                                               .rank = state.rank,
                                               .suspect = -1,
                                               .reason = "its group broke",
                                               .held = state.held});
      }
      continue;
    }
    link.strangers[state.process] = state.slot;
    desk.order(link, wire::StopRank{.job = state.job,
                                    .process = state.process,
                                    .grace_ms = 0,
                                    .reason = "nobody knows this process"});
  }
}

}  // namespace

void on_hello(Desk& desk, const WorkerFrame& frame, const wire::Hello& hello) {
  const wire::Refused refused = refusal(desk, hello);
  if (!refused.code.empty()) {
    ++desk.counters.refused_hellos;
    desk.decision.immediate.push_back(SendToWorker{
        .peer = frame.peer, .session = {}, .generation = {}, .sequence = {}, .message = refused});
    return;
  }
  const auto at = desk.links.find(hello.worker);
  const WorkerRecord* known = desk.durable.worker(hello.worker);
  const bool same = known != nullptr && known->incarnation == hello.incarnation;
  // Also when its session is over: what an overtaken Hello says of processes is not true any more.
  if (at != desk.links.end() && same && hello.greeting != 0 &&
      hello.greeting <= at->second.greeting) {
    ++desk.counters.stale_frames;
    return;
  }
  join(desk, hello);
  open_link(desk, frame, hello);
  reconcile(desk, hello);
  desk.capacity_changed();
}

void on_heartbeat(Desk& desk, WorkerLink& link, const wire::Heartbeat& heartbeat) {
  for (const wire::RankProgress& progress : heartbeat.progress) note_progress(desk, progress);
  if (!heartbeat.readings.empty()) {
    link.readings = heartbeat.readings;
    link.readings.resize(std::min(link.readings.size(), kReadingsMax));
    for (wire::DeviceReading& reading : link.readings) {
      reading.throttle_reasons.resize(std::min(reading.throttle_reasons.size(), kReadingsMax));
      reading.links.resize(std::min(reading.links.size(), kReadingsMax));
    }
    // How its devices are joined is looked at where seats are chosen.
    desk.board.stirred_workers.insert(link.worker);
  }
  if (!heartbeat.restart_refused.empty()) {
    desk.note({.kind = EventKind::restart_refused,
               .message = "was not restarted, it goes on as it is: " +
                          heartbeat.restart_refused.substr(0, kReasonBytesMax),
               .worker = link.worker});
  }
  desk.decision.immediate.push_back(frame_to(link, wire::HeartbeatAnswered{}));
}

void on_orders_acked(Desk& desk, WorkerLink& link, const wire::OrdersAcked& acked) {
  link.orders.acknowledge(acked.through, desk.now);
}

void on_disconnected(Desk& desk, const WorkerDisconnected& input) {
  for (auto& [name, link] : desk.links) {
    if (link.open && link.session == input.session && !link.disconnected) {
      link.disconnected = desk.now;
      desk.stir_link(name);
    }
  }
}

void on_expelled(Desk& desk, const ExpelWorker& input) {
  const auto at = desk.links.find(input.worker);
  if (at == desk.links.end() || !at->second.open) return;
  desk.decision.immediate.push_back(frame_to(
      at->second, wire::Refused{.code = "permission_denied", .message = "its key was revoked"}));
  if (const WorkerRecord* known = desk.durable.worker(input.worker)) {
    at->second.expelled_incarnation = known->incarnation;
  }
  lose_worker(desk, input.worker, "its key was revoked", Doing::asked_for);
}

void expect_workers(Desk& desk) {
  for (const auto& [name, worker] : desk.durable.workers()) {
    WorkerLink& link = desk.links[name];
    link.worker = name;
    link.heard = desk.now;
    desk.stir_link(name);
  }
}

namespace {

Instant suspect_at(const Desk& desk, const WorkerLink& link) {
  return link.heard + kSuspectBeats * std::max(link.heartbeat, desk.settings.heartbeat);
}

Instant lost_at(const Desk& desk, const WorkerLink& link) {
  const Instant lease = link.heard + desk.settings.lease;
  if (!link.disconnected) return lease;
  return std::min(lease, *link.disconnected + desk.settings.disconnect_grace);
}

Instant forget_at(const Desk& desk, const WorkerLink& link) {
  return link.forget_due.value_or(link.heard + desk.settings.forget);
}

}  // namespace

bool is_suspect(const Desk& desk, const WorkerLink& link) {
  return !link.open || desk.now >= suspect_at(desk, link);
}

std::optional<Instant> silence_due(const Desk& desk, const std::string& worker,
                                   const WorkerLink& link) {
  const WorkerRecord* record = desk.durable.worker(worker);
  if (record == nullptr) return std::nullopt;
  if (record->lost) return forget_at(desk, link);
  const Instant lost = lost_at(desk, link);
  return is_suspect(desk, link) ? lost : std::min(lost, suspect_at(desk, link));
}

namespace {

constexpr Duration kForgetAgain = std::chrono::minutes(10);

bool runs_for_ever(const Desk& desk, const std::string& worker) {
  const auto& processes = desk.durable.processes_on(worker);
  return std::any_of(processes.begin(), processes.end(), [&](ProcessId process) {
    const JobRecord* job = desk.durable.job(desk.durable.process(process)->job);
    return job != nullptr && !is_terminal(job->state) && job->terms.kind == "run" &&
           job->terms.stop_after_ms == 0;
  });
}

// A worker that has been lost for so long will not say any more what became of its processes: their
// slots are gone with it.
void forget_worker(Desk& desk, const std::string& name) {
  const std::set<ProcessId> processes = desk.durable.processes_on(name);
  for (const ProcessId process : processes) {
    desk.touch(desk.durable.process(process)->job);
    desk.record(ProcessEnded{.process = process,
                             .code = 0,
                             .signal = 0,
                             .error = "its worker was lost and did not come back"});
    desk.processes.erase(process);
  }
  desk.record(WorkerForgotten{.worker = name});
  desk.note({.job = {},
             .kind = EventKind::worker_forgotten,
             .message = fmt::format("worker {} was lost and did not come back", name),
             .worker = name});
  desk.links.erase(name);
  desk.capacity_changed();
}

}  // namespace

void check_leases(Desk& desk) {
  std::vector<std::pair<std::string, std::string>> lost;
  std::vector<std::string> away;
  // The due ones have been stirred.
  for (const std::string& name : desk.stirred_links) {
    const auto at = desk.links.find(name);
    if (at == desk.links.end()) continue;
    const WorkerLink& link = at->second;
    const WorkerRecord* worker = desk.durable.worker(name);
    if (worker == nullptr) continue;
    if (worker->lost) {
      if (desk.now < forget_at(desk, link)) continue;
      // Programs that go on for ever without a word from here may do so still: beside them nobody
      // begins (DESIGN jobs). Who cancels the job says that they are not waited for.
      if (runs_for_ever(desk, name)) {
        at->second.forget_due = desk.now + kForgetAgain;
        desk.stir_link(name);
      } else {
        away.push_back(name);
      }
      continue;
    }
    if (desk.now < lost_at(desk, link)) {
      // Only a suspect: what is placed from here on goes elsewhere.
      const scheduler::NodeState* node = desk.board.capacity.node(name);
      if (is_suspect(desk, link) && node != nullptr && node->usable) desk.capacity_changed();
      continue;
    }
    const bool silent = desk.now >= link.heard + desk.settings.lease;
    lost.emplace_back(name, silent ? fmt::format("silent for {} s", to_seconds(desk.settings.lease))
                                   : std::string("its connection ended"));
  }
  for (const std::string& name : away) forget_worker(desk, name);
  for (const auto& [name, reason] : lost) lose_worker(desk, name, reason);
  if (lost.empty()) return;
  std::vector<std::string> gone;
  for (const auto& [name, worker] : desk.durable.workers()) {
    if (worker.lost) gone.push_back(name);
  }
  if (gone.size() <= kLostWorkersMax) return;
  std::set<std::string> busy;
  for (const auto& [id, process] : desk.durable.processes()) busy.insert(process.worker);
  std::erase_if(gone, [&](const std::string& name) { return busy.contains(name); });
  for (const std::string& name : gone) {
    desk.record(WorkerForgotten{.worker = name});
    desk.links.erase(name);
    desk.stir_link(name);
  }
}

}  // namespace tutti::coordinator
