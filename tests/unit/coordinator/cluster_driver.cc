#include "tests/unit/coordinator/cluster_driver.h"

#include <fmt/core.h>
#include <catch2/catch.hpp>

#include <algorithm>
#include <memory>

#include "protocol/base/assert.h"

namespace tutti::coordinator::test {

spec::JobSpec run_spec(std::uint32_t ranks) {
  spec::JobSpec spec;
  spec.name = "program";
  spec.kind = spec::JobKind::run;
  spec.resources.ranks_min = spec.resources.ranks_max = ranks;
  return spec;
}

spec::JobSpec train_spec(std::uint32_t ranks, std::uint64_t steps) {
  spec::JobSpec spec = run_spec(ranks);
  spec.name = "model";
  spec.kind = spec::JobKind::train;
  spec.train.steps = steps;
  return spec;
}

spec::JobSpec serve_spec() {
  spec::JobSpec spec = run_spec(1);
  spec.name = "server";
  spec.kind = spec::JobKind::serve;
  return spec;
}

wire::HeldState holds(std::uint64_t step, std::uint64_t pending) {
  return {.whole = true, .step = step, .pending = pending};
}

ClusterSettings Driver::default_settings() {
  ClusterSettings settings;
  settings.job_folders = "/state/jobs";
  settings.join_token = "join";
  settings.faults = true;
  return settings;
}

Driver::Driver(ClusterSettings settings)
    : settings_(std::move(settings)), state_(std::make_unique<ClusterState>(settings_)) {
  Decision decision = state_->begin(now_, WallTime{unix_ms_}, 0);
  take_effects(decision);
}

void Driver::restart() {
  state_ = std::make_unique<ClusterState>(settings_);
  for (const Fact& fact : facts_) state_->replay(fact);
  Decision decision =
      state_->begin(now_, WallTime{unix_ms_}, events_.empty() ? 0 : events_.back().seq);
  take_effects(decision);
}

Decision Driver::on(Input input) {
  Envelope envelope{.now = now_,
                    .wall = WallTime{unix_ms_},
                    .random = fmt::format("{:032x}", ++draws_),
                    .input = std::move(input),
                    .durable_through = durable_through};
  Decision decision = state_->on(envelope);
  take_effects(decision);
  return decision;
}

void Driver::take_effects(Decision& decision) {
  facts_.insert(facts_.end(), decision.facts.begin(), decision.facts.end());
  events_.insert(events_.end(), decision.events.begin(), decision.events.end());
  std::vector<std::pair<std::string, Sequence>> to_acknowledge;
  for (const auto* effects : {&decision.immediate, &decision.effects}) {
    for (const Effect& effect : *effects) {
      if (const auto* answer = std::get_if<Answer>(&effect)) {
        answers_.emplace(answer->request.value, answer->body);
      }
      if (std::holds_alternative<OpenServing>(effect) ||
          std::holds_alternative<CloseServing>(effect)) {
        gateway_.push_back(effect);
      }
      const auto* frame = std::get_if<SendToWorker>(&effect);
      if (frame == nullptr) continue;
      const std::string worker = frame->peer.substr(0, frame->peer.find('/'));
      if (const auto* welcome = std::get_if<wire::Welcome>(&frame->message)) {
        peers_[worker].session = welcome->session;
        peers_[worker].reports = {};
      }
      if (const auto* start = std::get_if<wire::StartRank>(&frame->message)) {
        placed_[start->process] = worker;
      }
      if (!frame->sequence) continue;
      orders_.push_back(frame->message);
      to_acknowledge.emplace_back(worker, frame->sequence);
    }
  }
  for (const auto& [worker, sequence] : to_acknowledge) {
    const Peer& peer = peers_[worker];
    on(WorkerFrame{.peer = peer.peer,
                   .session = peer.session,
                   .sequence = {},
                   .message = wire::OrdersAcked{.through = sequence}});
  }
}

void Driver::pass(Duration duration) {
  const Instant end = now_ + duration;
  while (true) {
    const std::optional<Instant> due = state_->next_due();
    if (!due || *due > end) break;
    const Duration by = std::max(Duration{}, *due - now_);
    now_ = now_ + by;
    unix_ms_ += to_ms(by);
    on(Tick{});
  }
  unix_ms_ += to_ms(end - now_);
  now_ = end;
}

void Driver::live(Duration duration, const std::vector<std::string>& workers) {
  for (Duration passed{}; passed < duration; passed += 1s) {
    for (const std::string& worker : workers) beat(worker);
    pass(1s);
  }
  for (const std::string& worker : workers) beat(worker);
}

void Driver::drain(const std::string& node, std::uint64_t deadline_ms) {
  on(DrainNode{
      .request = next_request(), .node = node, .reason = "a new disk", .deadline_ms = deadline_ms});
  pass(0s);
}

void Driver::stand_still(Duration duration) {
  static_cast<void>(state_->next_due());
  now_ = now_ + duration;
  unix_ms_ += to_ms(duration);
  on(Tick{});
}

void Driver::hello(Peer& peer) {
  ++peer.hello.greeting;
  peer.peer =
      fmt::format("{}/{}/{}", peer.hello.worker, peer.hello.incarnation, peer.hello.greeting);
  on(WorkerFrame{.peer = peer.peer, .session = {}, .sequence = {}, .message = peer.hello});
  pass(0s);
}

void Driver::join(const std::string& worker, std::uint32_t slots) {
  Peer& peer = peers_[worker];
  peer.hello.worker = worker;
  peer.hello.incarnation = fmt::format("i{}", ++draws_);
  peer.hello.slots = slots;
  peer.hello.cores = slots * 2;
  peer.hello.join_token = "join";
  peer.hello.greeting = 0;
  peer.hello.processes.clear();
  peer.hello.exits.clear();
  hello(peer);
}

void Driver::join_cpus(const std::string& worker, std::uint32_t slots,
                       const std::vector<std::string>& profiles) {
  peers_[worker].hello.profiles = profiles;
  join(worker, slots);
}

void Driver::join_gpus(const std::string& worker, std::uint32_t gpus, const std::string& profile,
                       std::uint64_t memory_bytes) {
  join_gpus(worker, std::vector<std::uint64_t>(gpus, memory_bytes), profile);
}

void Driver::join_gpus(const std::string& worker, const std::vector<std::uint64_t>& memory_bytes,
                       const std::string& profile) {
  wire::Hello& hello = peers_[worker].hello;
  hello.profiles = {profile};
  hello.devices.clear();
  for (const std::uint64_t bytes : memory_bytes) {
    hello.devices.push_back({.uuid = fmt::format("{}-{}", worker, hello.devices.size()),
                             .name = "H100",
                             .memory_bytes = bytes});
  }
  join(worker, static_cast<std::uint32_t>(memory_bytes.size()));
}

void Driver::rejoin(const std::string& worker, std::vector<wire::ProcessState> processes,
                    std::vector<wire::RankExited> exits) {
  Peer& peer = peers_[worker];
  peer.hello.processes = std::move(processes);
  peer.hello.exits = std::move(exits);
  hello(peer);
}

void Driver::disconnect(const std::string& worker) {
  on(WorkerDisconnected{.session = peers_[worker].session});
}

void Driver::say(const std::string& worker, wire::FromWorker report) {
  Peer& peer = peers_[worker];
  peer.reports = Sequence{peer.reports.value + 1};
  on(WorkerFrame{.peer = peer.peer,
                 .session = peer.session,
                 .sequence = peer.reports,
                 .message = std::move(report)});
}

void Driver::say_unknown(const std::string& worker) {
  Peer& peer = peers_[worker];
  peer.reports = Sequence{peer.reports.value + 1};
  on(UnknownReport{.peer = peer.peer, .session = peer.session, .sequence = peer.reports});
}

void Driver::beat(const std::string& worker, std::vector<wire::RankProgress> progress,
                  std::vector<wire::DeviceReading> readings) {
  const Peer& peer = peers_[worker];
  on(WorkerFrame{.peer = peer.peer,
                 .session = peer.session,
                 .sequence = {},
                 .message = wire::Heartbeat{.progress = std::move(progress),
                                            .readings = std::move(readings)}});
}

wire::ProcessState Driver::state_of(const wire::StartRank& start, wire::ProcessPhase phase) const {
  wire::ProcessState out;
  out.job = start.job;
  out.generation = start.generation;
  out.process = start.process;
  out.rank = start.rank;
  out.size = start.size;
  out.slot = start.slot;
  out.phase = phase;
  out.address = "address";
  return out;
}

JobId Driver::submit(const spec::JobSpec& spec, const std::string& key, const std::string& yaml) {
  const RequestId request = next_request();
  on(SubmitJob{.request = request, .key = key, .owner = "user", .yaml = yaml, .spec = spec});
  pass(0s);
  const auto body = answer(request);
  TUTTI_ASSERT(body && std::holds_alternative<JobAccepted>(*body));
  return std::get<JobAccepted>(*body).job;
}

Error Driver::submit_refused(const spec::JobSpec& spec, const std::string& key,
                             const std::string& yaml) {
  const RequestId request = next_request();
  on(SubmitJob{.request = request, .key = key, .owner = "user", .yaml = yaml, .spec = spec});
  const auto body = answer(request);
  TUTTI_ASSERT(body && std::holds_alternative<Error>(*body));
  return std::get<Error>(*body);
}

void Driver::ready(const wire::StartRank& start, wire::HeldState held) {
  ready(start, start.generation, held);
}

void Driver::ready(const wire::StartRank& start, Generation generation, wire::HeldState held) {
  say(placed_[start.process], wire::RankReady{.job = start.job,
                                              .generation = generation,
                                              .process = start.process,
                                              .rank = start.rank,
                                              .address = "at-" + to_string(start.process),
                                              .held = held});
}

void Driver::formed(const wire::StartRank& start, const wire::FormGroup& group) {
  wire::GroupFormed report;
  report.job = start.job;
  report.generation = group.generation;
  report.process = start.process;
  report.rank = start.rank;
  report.step = group.base_step;
  if (start.kind == "serve") {
    report.serve_endpoint = "tcp://127.0.0.1:5";
    report.serve_key = "key";
  }
  say(placed_[start.process], report);
}

void Driver::finished(const wire::StartRank& start, Generation generation, std::uint64_t step) {
  say(placed_[start.process], wire::RankFinished{.job = start.job,
                                                 .generation = generation,
                                                 .process = start.process,
                                                 .rank = start.rank,
                                                 .step = step,
                                                 .failure = wire::FailureClass::none,
                                                 .message = {}});
}

void Driver::broken(const wire::StartRank& start, Generation generation, std::int32_t suspect,
                    const std::string& reason, wire::HeldState held) {
  say(placed_[start.process], wire::GenerationBroken{.job = start.job,
                                                     .generation = generation,
                                                     .process = start.process,
                                                     .rank = start.rank,
                                                     .suspect = suspect,
                                                     .reason = reason,
                                                     .held = held});
}

void Driver::write_part(const wire::StartRank& start, Generation generation, std::uint64_t step,
                        std::vector<wire::CheckpointFile> files, const std::string& error) {
  say(placed_[start.process], wire::CheckpointPart{.job = start.job,
                                                   .generation = generation,
                                                   .process = start.process,
                                                   .rank = start.rank,
                                                   .step = step,
                                                   .files = std::move(files),
                                                   .error = error});
}

wire::CommitCheckpoint Driver::write_parts(const std::vector<wire::StartRank>& starts,
                                           Generation generation, std::uint64_t step) {
  for (const auto& start : starts) write_part(start, generation, step);
  const auto commits = take<wire::CommitCheckpoint>();
  REQUIRE(commits.size() == 1);
  return commits.front();
}

wire::CommitCheckpoint Driver::save(const std::vector<wire::StartRank>& starts,
                                    Generation generation, std::uint64_t step) {
  wire::CommitCheckpoint commit = write_parts(starts, generation, step);
  say(placed_[commit.process], wire::CheckpointCommitted{.job = commit.job,
                                                         .generation = commit.generation,
                                                         .process = commit.process,
                                                         .step = step,
                                                         .folder = "step-" + std::to_string(step),
                                                         .error = {}});
  return commit;
}

void Driver::exited(const wire::StartRank& start, std::int32_t code, std::int32_t signal,
                    wire::FailureClass failure) {
  say(placed_[start.process],
      wire::RankExited{.job = start.job,
                       .generation = start.generation,
                       .process = start.process,
                       .code = code,
                       .signal = signal,
                       .ordered = false,
                       .failure = failure,
                       .error = failure == wire::FailureClass::none ? "" : "it broke",
                       .seen_unix_ms = unix_ms_});
  pass(0s);
}

std::vector<wire::StartRank> Driver::run_up() {
  const std::vector<wire::StartRank> starts = take<wire::StartRank>();
  for (const wire::StartRank& start : starts) ready(start);
  const std::vector<wire::FormGroup> groups = take<wire::FormGroup>();
  TUTTI_ASSERT(groups.size() == starts.size());
  for (std::size_t i = 0; i < starts.size(); ++i) formed(starts[i], groups[i]);
  return starts;
}

bool Driver::happened(JobId id, EventKind kind) const {
  return std::any_of(events_.begin(), events_.end(),
                     [&](const Event& event) { return event.job == id && event.kind == kind; });
}

std::optional<AnswerBody> Driver::answer(RequestId request) const {
  const auto at = answers_.find(request.value);
  return at == answers_.end() ? std::nullopt : std::optional(at->second);
}

}  // namespace tutti::coordinator::test
