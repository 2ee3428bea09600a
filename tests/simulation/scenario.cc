#include "tests/simulation/scenario.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <variant>

namespace tutti::simulation {

namespace {

spec::JobSpec spec_of(const SimJob& job) {
  spec::JobSpec spec;
  spec.name = job.name;
  spec.kind = job.kind == "run" ? spec::JobKind::run : spec::JobKind::train;
  spec.resources.ranks_min = job.ranks;
  spec.resources.ranks_max = job.ranks;
  spec.train.steps = job.load.steps;
  spec.retries.user = job.retries_user;
  // The simulated faults are many; the budget is not what is tested here.
  spec.retries.infrastructure = 1'000;
  return spec;
}

}  // namespace

Scenario::Scenario(ScenarioOptions options)
    : options_(std::move(options)),
      world_(options_.seed),
      ranks_{.world = world_},
      checkers_(world_) {
  checkers_.innocent(options_.innocent);
  coordinator::ClusterSettings settings;
  settings.state_folder = "/state";
  settings.join_token = "join";
  settings.faults = true;
  settings.liveness_port = 1;
  settings.hang_min = 3s;
  settings.hang_max = 10s;
  coordinator_ = std::make_unique<SimCoordinator>(
      world_, settings,
      SimCoordinator::Doors{
          .send =
              [this](const coordinator::SendToWorker& frame) {
                if (const auto* start = std::get_if<wire::StartRank>(&frame.message)) {
                  checkers_.order_sent(*start, start->name);
                }
                if (SimWorker* worker = worker_of(frame.peer)) {
                  worker->receive(frame.peer, frame.session, frame.sequence, frame.message);
                }
              },
          .answer =
              [this](const coordinator::Answer& answer) {
                const auto request = requests_.find(answer.request.value);
                if (request == requests_.end()) return;
                const std::string key = request->second;
                requests_.erase(request);
                if (const auto* accepted = std::get_if<coordinator::JobAccepted>(&answer.body)) {
                  accepted_[key] = accepted->job;
                  checkers_.accepted(key, accepted->job);
                } else if (std::holds_alternative<Error>(answer.body)) {
                  checkers_.rejected(key);
                }
              },
          .liveness_ended =
              [this](SessionId session) {
                for (const auto& worker : workers_) worker->liveness_ended(session);
              },
          .decided =
              [this](const coordinator::Decision& decision) {
                trace(decision);
                checkers_.decided(*coordinator_, decision);
              }});
  coordinator_->sabotage(options_.sabotage);
}

// With TUTTI_SIM_TRACE set, a run tells what a user would be told.
void Scenario::trace(const coordinator::Decision& decision) const {
  static const bool kWanted = std::getenv("TUTTI_SIM_TRACE") != nullptr;
  if (!kWanted) return;
  for (const coordinator::Event& event : decision.events) {
    std::fprintf(stderr, "%8lld ms  job %llu  %2d  %s\n",
                 static_cast<long long>(to_ms(world_.now().since_start)),
                 static_cast<unsigned long long>(event.job.value), static_cast<int>(event.kind),
                 event.message.c_str());
  }
}

SimWorker* Scenario::worker_of(const std::string& peer) {
  const std::string name = peer.substr(0, peer.find('/'));
  for (const auto& worker : workers_) {
    if (worker->name() == name) return worker.get();
  }
  return nullptr;
}

void Scenario::make_workers() {
  for (std::uint32_t i = 0; i < options_.workers; ++i) {
    CoordinatorDoor door{
        .receive =
            [this](const std::string& peer, SessionId session, Sequence sequence,
                   const wire::FromWorker& message) {
              if (coordinator_->state() == nullptr) return false;
              coordinator_->receive(peer, session, sequence, message);
              return true;
            },
        .connect = [this](SessionId session, const std::string& token,
                          const std::string&) { return coordinator_->connect(session, token); },
        .disconnected = [this](SessionId session) { coordinator_->disconnected(session); }};
    workers_.push_back(
        std::make_unique<SimWorker>(ranks_, std::move(door),
                                    WorkerOptions{.name = "node-" + std::to_string(i),
                                                  .slots = options_.slots,
                                                  .network = options_.network}));
    workers_.back()->start();
  }
}

// Asks again until there is an answer, as the CLI does.
void Scenario::submit(const SimJob& job) {
  if (accepted_.contains(job.name)) return;
  const coordinator::RequestId request{next_request_++};
  requests_[request.value] = job.name;
  checkers_.submitted(job.name);
  coordinator_->on(coordinator::SubmitJob{.request = request,
                                          .key = job.name,
                                          .owner = "tester",
                                          .yaml = job.name,
                                          .spec = spec_of(job)});
  world_.after(1s, [this, job] { submit(job); });
}

std::optional<std::string> Scenario::run() {
  world_.before_event = [this](std::uint64_t event) {
    for (const Strike& strike : options_.strikes) {
      if (event == strike.event) hit(strike);
    }
  };
  checkers_.restarted(*coordinator_);
  coordinator_->start();
  make_workers();
  for (const SimJob& job : options_.jobs) {
    ranks_.workloads[job.name] = job.load;
    world_.after(job.at, [this, job] { submit(job); });
  }
  if (options_.faults.until > 0ms) cause_faults();
  const Instant end = Instant{} + options_.faults.until + options_.bound;
  const coordinator::ClusterState* life = coordinator_->state();
  while (world_.now() < end && world_.step()) {
    if (coordinator_->state() != life) {
      life = coordinator_->state();
      if (life == nullptr) continue;
      checkers_.restarted(*coordinator_);
      for (const auto& worker : workers_) worker->coordinator_up();
    }
    checkers_.machines(workers_);
    if (world_.now() > Instant{} + options_.faults.until && all_ended()) break;
  }
  check_end();
  return world_.violation();
}

bool Scenario::all_ended() const {
  if (coordinator_->state() == nullptr || accepted_.size() != options_.jobs.size()) return false;
  for (const auto& [name, id] : accepted_) {
    const coordinator::JobRecord* job = coordinator_->state()->find_job(id);
    if (job == nullptr || !coordinator::is_terminal(job->state)) return false;
  }
  return true;
}

void Scenario::check_end() {
  if (world_.violation()) return;
  if (!all_ended()) {
    std::string who;
    for (const SimJob& job : options_.jobs) {
      const coordinator::JobRecord* record = this->job(job.name);
      if (record != nullptr && coordinator::is_terminal(record->state)) continue;
      who += " " + job.name;
      if (record != nullptr) {
        who += " (state " + std::to_string(static_cast<int>(record->state)) + ", generation " +
               to_string(record->generation) + ")";
      }
    }
    world_.violate("I17", "not ended within the bound:" + who);
    return;
  }
  if (!options_.innocent) return;
  for (const SimJob& job : options_.jobs) {
    const coordinator::JobRecord& record = *this->job(job.name);
    if (record.state != coordinator::JobState::done) {
      world_.violate("I8", job.name + " did not end done: " + record.outcome.message);
    }
  }
}

const coordinator::JobRecord* Scenario::job(const std::string& name) const {
  const auto at = accepted_.find(name);
  if (at == accepted_.end() || coordinator_->state() == nullptr) return nullptr;
  return coordinator_->state()->find_job(at->second);
}

std::uint64_t Scenario::recoveries() const {
  std::uint64_t count = 0;
  for (const SimJob& job : options_.jobs) {
    if (const auto* record = this->job(job.name)) count += record->restarts;
  }
  return count;
}

// Faults
// ----------------------------------------------------------------------------------------------

void Scenario::hit(const Strike& strike) {
  SimWorker& worker = *workers_[strike.event % workers_.size()];
  switch (strike.victim) {
    case Victim::none: return;
    case Victim::coordinator_before_sync:
      return coordinator_->crash_at(1, CrashPoint::before_sync, strike.away);
    case Victim::coordinator_after_sync:
      return coordinator_->crash_at(1, CrashPoint::after_sync, strike.away);
    case Victim::worker: return worker.crash(strike.away);
    case Victim::rank: return worker.kill_rank(0);
    case Victim::link:
      worker.cut(true);
      return world_.after(strike.away, [&worker] { worker.cut(false); });
  }
}

void Scenario::cause_faults() {
  const Duration pause = world_.some(options_.faults.every / 4, options_.faults.every * 2);
  world_.after(pause, [this] {
    if (world_.now() >= Instant{} + options_.faults.until) {
      for (const auto& worker : workers_) worker->calm();
      coordinator_->fill_disk(false);
      return;
    }
    one_fault();
    cause_faults();
  });
}

void Scenario::one_fault() {
  const FaultRates& rates = options_.faults;
  Rng& rng = world_.rng();
  SimWorker* worker = workers_[rng.below(workers_.size())].get();
  const std::uint64_t choice = rng.next();
  const Duration away = world_.some(10ms, 3s);
  switch (rng.below(8)) {
    case 0:
      if (rates.coordinator) {
        coordinator_->crash_at(1 + choice % 10,
                               choice % 2 == 0 ? CrashPoint::before_sync : CrashPoint::after_sync,
                               away);
      }
      return;
    case 1:
      if (rates.workers) worker->crash(away);
      return;
    case 2:
      if (!rates.cuts) return;
      worker->cut(true);
      // Beyond the lease now and then.
      world_.after(away * (choice % 4 == 0 ? 4 : 1), [worker] { worker->cut(false); });
      return;
    case 3:
      if (rates.hangs && choice % 2 == 0) worker->stop_rank(choice);
      return;
    case 4:
      if (!rates.disk) return;
      coordinator_->fill_disk(true);
      world_.after(away, [this] { coordinator_->fill_disk(false); });
      return;
    default:
      if (rates.ranks) worker->kill_rank(choice);
  }
}

}  // namespace tutti::simulation
