#include "tests/simulation/scenario/scenario.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "protocol/base/assert.h"

namespace tutti::simulation {

namespace {

// After the last job has ended, logs still arrive and processes still end.
constexpr Duration kRest = 40s;
// For a job to come into the state that a fault waits for.
constexpr Duration kMomentWait = 4s;

coordinator::ClusterSettings settings_of(const ScenarioOptions& options) {
  coordinator::ClusterSettings settings;
  settings.job_folders = "/state/jobs";
  settings.join_token = "join";
  settings.faults = true;
  settings.liveness_port = 1;
  settings.hang_min = 3s;
  settings.hang_max = 10s;
  settings.grow_after = 500ms;
  settings.steady = 6s;
  settings.ended_jobs_max =
      options.mutation == Mutation::keep_history ? 1'000'000 : options.ended_jobs_max;
  settings.quotas = *coordinator::scheduler::parse_quotas(options.quotas);
  return settings;
}

// Labels of two zones; GPUs of two makes, each with a numerics profile of its own. Of the larger
// make a node has one in its last slot, beside smaller ones.
WorkerOptions machine(const ScenarioOptions& options, std::uint32_t number) {
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
  const bool odd = number % 2 != 0;
  const bool gpu = number + options.gpus >= options.workers;
  WorkerOptions out{.name = "node-" + std::to_string(number), .slots = options.slots};
  out.labels = {odd ? "zone=b" : "zone=a", gpu ? "device=gpu" : "device=cpu"};
  out.refuses_programs = number < options.refusing;
  if (!gpu) return out;
  out.profile = odd ? "sm_80-fp32-simulated" : "sm_90-fp32-simulated";
  out.devices.assign(options.slots, 16 * kGiB);
  if (!odd) out.devices.back() = 80 * kGiB;
  return out;
}

}  // namespace

Scenario::Scenario(ScenarioOptions options)
    : options_(std::move(options)),
      world_(options_.seed),
      network_(world_, options_.network),
      ranks_{.world = world_} {
  world_.mutate(options_.mutation);
  make_coordinator();
  clients_ = std::make_unique<Clients>(world_, ranks_, *coordinator_);
  static const coordinator::Durable kNothing;
  checkers_ = std::make_unique<Checkers>(
      Observed{world_, ranks_, *coordinator_, workers_, *clients_, options_, kNothing});
}

void Scenario::make_coordinator() {
  SimCoordinator::Doors doors{
      .send =
          [this](const coordinator::SendToWorker& frame) {
            checkers_->sent(frame);
            if (world_.breaks(Mutation::lose_orders) &&
                std::holds_alternative<wire::FormGroup>(frame.message)) {
              return;
            }
            if (SimWorker* worker = worker_of(frame.peer)) {
              worker->receive(frame.peer, frame.session, frame.sequence, frame.message);
            }
          },
      .answer = [this](const coordinator::Answer& answer) { clients_->answered(answer); },
      .liveness_ended =
          [this](SessionId session) {
            for (const auto& worker : workers_) worker->liveness_ended(session);
          },
      .started = [this] { checkers_->restarted(); },
      .decided =
          [this](const coordinator::Decision& decision) {
            for (const coordinator::Event& event : decision.events) {
              world_.trace("event: job " + to_string(event.job) + " " + event.message);
            }
            checkers_->decided(decision);
            seize_moment();
          },
      .crashes = [this] { note_crash(); }};
  coordinator_ = std::make_unique<SimCoordinator>(world_, settings_of(options_), std::move(doors));
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
        std::make_unique<SimWorker>(ranks_, network_, std::move(door), machine(options_, i)));
    workers_.back()->start();
  }
}

void Scenario::plan() {
  Plan plan{.options = options_, .rng = Rng(options_.seed * 2 + 1)};
  for (const std::string& name : options_.workloads) {
    const WorkloadRow* workload = find_workload(name);
    TUTTI_ASSERT(workload != nullptr);
    workload->plan(plan);
  }
  clients_->begin(plan);
}

std::optional<std::string> Scenario::run() {
  world_.before_event = [this](std::uint64_t event) {
    for (const Strike& strike : options_.strikes) {
      if (event == strike.event) hit(strike);
    }
  };
  coordinator_->start();
  make_workers();
  plan();
  if (options_.until > 0ms) cause_faults();
  const Instant calm = Instant{} + options_.until;
  const Instant end = calm + options_.bound;
  std::optional<Instant> rested;
  while (world_.now() < end && world_.step()) {
    notice_coordinator();
    checkers_->looked();
    const bool ended = world_.now() > calm && all_ended();
    if (!ended) last_working_event_ = world_.events();
    if (ended && all_reachable()) {
      if (!rested) rested = world_.now() + kRest;
      if (world_.now() >= *rested) break;
    } else {
      rested.reset();
    }
  }
  if (!world_.violation()) checkers_->ended();
  coverage_.runs = 1;
  coverage_.events = world_.events();
  coverage_.simulated = world_.now().since_start;
  coverage_.reached = world_.reached();
  for (const auto& [path, times] : world_.reached()) coverage_.reached_by[path] = 1;
  return world_.violation();
}

// What workers kept for a coordinator that was away reaches the next one first.
void Scenario::notice_coordinator() {
  if (coordinator_->state() == nullptr || coordinator_->life() == life_seen_) return;
  life_seen_ = coordinator_->life();
  for (const auto& worker : workers_) worker->coordinator_up();
}

// What a worker has to say that is cut off comes once it is back.
bool Scenario::all_reachable() const {
  return std::none_of(workers_.begin(), workers_.end(),
                      [](const auto& worker) { return worker->unreachable_since().has_value(); });
}

bool Scenario::all_ended() const {
  if (coordinator_->state() == nullptr || !clients_->content()) return false;
  for (const auto& [id, job] : checkers_->shadow().jobs()) {
    if (!coordinator::is_terminal(job.state)) return false;
  }
  return true;
}

const coordinator::JobRecord* Scenario::job(const std::string& name) const {
  const auto at = clients_->accepted().find(name);
  return at == clients_->accepted().end() ? nullptr : checkers_->shadow().job(at->second);
}

const coordinator::JobRecord* Scenario::first_job() const {
  const auto& jobs = checkers_->shadow().jobs();
  return jobs.empty() ? nullptr : &jobs.begin()->second;
}

std::uint64_t Scenario::recoveries() const {
  std::uint64_t count = 0;
  for (const auto& [id, job] : checkers_->shadow().jobs()) count += job.restarts;
  return count;
}

// Faults
// ----------------------------------------------------------------------------------------------

Struck Scenario::struck(SimWorker& worker) {
  Rng& rng = world_.faults();
  const auto away = Duration(
      static_cast<std::int64_t>(to_ms(10ms) + static_cast<std::int64_t>(rng.below(3'000))) *
      1'000'000);
  Struck out{.world = world_,
             .rng = rng,
             .coordinator = *coordinator_,
             .workers = workers_,
             .network = network_,
             .ranks = ranks_,
             .worker = worker,
             .away = away,
             .choice = rng.next(),
             .everyone = {},
             .here = worker.jobs_here()};
  for (const auto& [id, in] : states()) out.everyone.insert(id);
  for (const auto& [id, process] : checkers_->shadow().processes()) {
    if (process.worker == worker.name()) out.here.insert(process.job);
  }
  return out;
}

void Scenario::cause_faults() {
  Rng& rng = world_.faults();
  const auto every = static_cast<std::uint64_t>(options_.every.count());
  const auto pause = Duration(static_cast<std::int64_t>(every / 4 + rng.below(every * 2)));
  world_.after(pause, [this] {
    if (world_.now() >= Instant{} + options_.until) return end_faults();
    if (!options_.when.empty()) return await_moment();
    one_fault({});
    cause_faults();
  });
}

// The next fault strikes when a job comes into one of the states that the scenario names; not at
// all if none does for a while.
void Scenario::await_moment() {
  awaited_ = options_.when[world_.faults().below(options_.when.size())];
  world_.after(kMomentWait, [this, moment = ++moment_] {
    if (moment != moment_ || awaited_.empty()) return;
    awaited_.clear();
    cause_faults();
  });
}

void Scenario::seize_moment() {
  if (awaited_.empty() || world_.now() >= Instant{} + options_.until) return;
  for (const auto& [id, job] : checkers_->shadow().jobs()) {
    const auto states = states_of(job);
    if (std::find(states.begin(), states.end(), awaited_) == states.end()) continue;
    awaited_.clear();
    return world_.after(Duration(static_cast<std::int64_t>(world_.faults().below(2'000'000))),
                        [this, id = id] {
                          one_fault(id);
                          cause_faults();
                        });
  }
}

// One that holds a process of the job, or any.
SimWorker& Scenario::worker_with(JobId job) {
  std::vector<SimWorker*> found;
  for (const auto& [id, process] : checkers_->shadow().processes()) {
    if (process.job == job) found.push_back(worker_of(process.worker));
  }
  std::erase(found, nullptr);
  if (found.empty()) return *workers_[world_.faults().below(workers_.size())];
  return *found[world_.faults().below(found.size())];
}

void Scenario::end_faults() {
  world_.trace("faults are over");
  Struck at = struck(*workers_.front());
  calm(at);
  // What the faults put into quarantine only its operator takes out, once drains are over, too.
  for (const Duration after : {Duration(60s), Duration(100s)}) {
    world_.after(after, [this] {
      for (const auto& worker : workers_) clients_->undrain(worker->name());
    });
  }
}

// Of a job: on one of its nodes.
void Scenario::one_fault(JobId of) {
  Rng& rng = world_.faults();
  if (options_.faults.empty()) return;
  const FaultRow* fault = find_fault(options_.faults[rng.below(options_.faults.size())]);
  TUTTI_ASSERT(fault != nullptr);
  SimWorker& worker = worker_with(of);
  world_.trace("fault: " + std::string(fault->name));
  Struck at = struck(worker);
  const States before = states();
  crash_struck_ = crash_struck_ || fault->strike == crash_coordinator;
  if (const Touched touched = fault->strike(at)) note_coverage(fault->name, *touched, before);
}

Scenario::States Scenario::states() const {
  States out;
  for (const auto& [id, job] : checkers_->shadow().jobs()) {
    if (!coordinator::is_terminal(job.state)) out[id] = states_of(job);
  }
  return out;
}

// In the states that they were in when it struck.
void Scenario::note_coverage(std::string_view fault, const std::set<JobId>& touched,
                             const States& before) {
  const std::string name(fault);
  ++coverage_.faults[name];
  for (const JobId id : touched) {
    const auto at = before.find(id);
    if (at == before.end()) continue;
    for (const std::string_view state : at->second) ++coverage_.states[{name, std::string(state)}];
  }
}

// A crash comes some decisions after it was chosen.
void Scenario::note_crash() {
  if (!std::exchange(crash_struck_, false)) return;
  const States now = states();
  std::set<JobId> jobs;
  for (const auto& [id, in] : now) jobs.insert(id);
  note_coverage("crash-coordinator", jobs, now);
}

void Scenario::hit(const Strike& strike) {
  SimWorker& worker = *workers_[strike.number % workers_.size()];
  switch (strike.victim) {
    case Victim::coordinator_before_sync:
      return coordinator_->crash_at(1, CrashPoint::before_sync, strike.away);
    case Victim::coordinator_after_sync:
      return coordinator_->crash_at(1, CrashPoint::after_sync, strike.away);
    case Victim::worker: return worker.crash(strike.away);
    case Victim::binary: return static_cast<void>(worker.replace());
    case Victim::rank: return static_cast<void>(worker.kill_rank(0));
    case Victim::link:
      worker.cut(SimWorker::Cut::both);
      return world_.after(strike.away, [&worker] { worker.heal(); });
  }
}

}  // namespace tutti::simulation
