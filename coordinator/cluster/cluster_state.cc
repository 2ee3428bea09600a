#include "coordinator/cluster/cluster_state.h"

#include <algorithm>
#include <utility>

#include "coordinator/cluster/checkpoints.h"
#include "coordinator/cluster/desk.h"
#include "coordinator/cluster/job_life.h"
#include "coordinator/cluster/orders.h"
#include "coordinator/cluster/recovery.h"
#include "coordinator/life/admission.h"
#include "coordinator/life/failures.h"
#include "coordinator/life/hang.h"
#include "coordinator/life/line.h"
#include "coordinator/membership/drain.h"
#include "coordinator/membership/membership.h"
#include "coordinator/membership/quarantine.h"
#include "coordinator/scheduler/arrays.h"
#include "coordinator/scheduler/explain.h"
#include "coordinator/scheduler/index.h"
#include "coordinator/scheduler/schedule.h"
#include "protocol/base/assert.h"

namespace tutti::coordinator {

struct ClusterState::Parts {
  explicit Parts(ClusterSettings settings) : desk(std::move(settings)) {}

  Desk desk;
};

namespace {

// An input that is followed by more consequences than this has met a loop in the rules.
constexpr int kRoundsMax = 100'000;
// A Tick that is later than this was held up by more than a busy machine.
constexpr Duration kLateMax = std::chrono::seconds(1);
// Shorter ones are ordinary: a large forward pass.
constexpr Duration kStandstillShown = std::chrono::seconds(5);

void on_message(Desk& desk, WorkerLink& link, const wire::Heartbeat& message) {
  on_heartbeat(desk, link, message);
}
void on_message(Desk& desk, WorkerLink& link, const wire::OrdersAcked& message) {
  on_orders_acked(desk, link, message);
}
void on_message(Desk&, WorkerLink&, const wire::Hello&) {}  // handled before a session is needed
void on_message(Desk&, WorkerLink&, const wire::SpoolData&) {}  // the host stores it
void on_message(Desk& desk, WorkerLink& link, const wire::WorkerLeaving& message) {
  on_leaving(desk, link, message);
}
void on_message(Desk& desk, WorkerLink&, const wire::RankExited& message) {
  on_exit(desk, message);
}
template <class Report>
void on_message(Desk& desk, WorkerLink&, const Report& message) {
  on_report(desk, message);
}

// Nothing if the frame is of a session that is over, or of nobody.
WorkerLink* link_in_session(Desk& desk, const std::string& peer, SessionId session) {
  const auto worker = desk.worker_of_peer.find(peer);
  WorkerLink* link = worker == desk.worker_of_peer.end() ? nullptr : &desk.links[worker->second];
  if (link == nullptr || !link->open || link->session != session) {
    ++desk.counters.stale_frames;
    return nullptr;
  }
  if (is_suspect(desk, *link)) {
    desk.stir_link(link->worker);
    desk.capacity_changed();
  }
  link->heard = desk.now;
  return link;
}

// Whether it is to be acted on: a report is, once.
bool takes(Desk& desk, WorkerLink& link, Sequence sequence) {
  if (!sequence) return true;
  link.reports_owed = true;
  desk.stirred_links.insert(link.worker);
  return link.reports.admit(sequence) == wire::ReceiveGate::Verdict::take;
}

// The worker has repeated all that it had not been acknowledged before its Hello.
void all_was_said(Desk& desk, const std::string& name) {
  for (const auto& [id, process] : desk.durable.processes()) {
    if (process.worker == name) desk.touch(process.job);
  }
}

void on_input(Desk& desk, const WorkerFrame& frame) {
  if (const auto* hello = std::get_if<wire::Hello>(&frame.message)) {
    return on_hello(desk, frame, *hello);
  }
  WorkerLink* link = link_in_session(desk, frame.peer, frame.session);
  if (link == nullptr || !takes(desk, *link, frame.sequence)) return;
  const bool all_said = frame.sequence && frame.sequence.value == link->reports_announced;
  const std::string name = all_said ? link->worker : std::string();
  std::visit([&](const auto& message) { on_message(desk, *link, message); }, frame.message);
  if (all_said) all_was_said(desk, name);
}

void on_input(Desk& desk, const UnknownReport& input) {
  WorkerLink* link = link_in_session(desk, input.peer, input.session);
  if (link == nullptr || !takes(desk, *link, input.sequence)) return;
  if (input.sequence.value == link->reports_announced) all_was_said(desk, link->worker);
}

void on_input(Desk& desk, const SubmitJob& input) { on_submit(desk, input); }
void on_input(Desk& desk, const CancelJob& input) { on_cancel(desk, input); }
void on_input(Desk& desk, const InjectFault& input) { on_fault(desk, input); }
void on_input(Desk& desk, const WorkerDisconnected& input) { on_disconnected(desk, input); }
void on_input(Desk& desk, const ExpelWorker& input) { on_expelled(desk, input); }
void on_input(Desk& desk, const StepHashMismatch& input) { on_hash_mismatch(desk, input); }
void on_input(Desk& desk, const DrainNode& input) { on_drain(desk, input); }
void on_input(Desk& desk, const UndrainNode& input) { on_undrain(desk, input); }
void on_input(Desk& desk, const LedgerFailed& input) { on_ledger_failed(desk, input); }

void on_input(Desk& desk, const StepsRecorded& input) {
  const auto at = desk.jobs.find(input.job);
  if (at != desk.jobs.end()) {
    at->second.newest_step = std::max(at->second.newest_step, input.step);
  }
}

void on_input(Desk& desk, const SpoolFailed& input) {
  if (desk.durable.job(input.job) == nullptr) return;
  desk.note({.job = input.job,
             .kind = EventKind::gap,
             .message = "logs and step records are not stored now: " + input.message});
}

void on_input(Desk& desk, const SetQuotas& input) {
  desk.board.quotas = input.quotas;
  desk.board.delays_from_unix_ms.reset();
  desk.capacity_changed();
  desk.answer(input.request, Done{});
}

void on_input(Desk& desk, const LedgerRecovered&) {
  desk.ledger_failure.clear();
  desk.capacity_changed();
}

// When the link has to be looked at next.
std::optional<Instant> due_of(const Desk& desk, const std::string& worker) {
  const auto at = desk.links.find(worker);
  if (at == desk.links.end()) return std::nullopt;
  std::optional<Instant> due = silence_due(desk, worker, at->second);
  if (!at->second.open) return due;
  const std::optional<Instant> steady = steady_due(desk, worker, at->second);
  if (steady && (!due || *steady < *due)) due = steady;
  const std::optional<Instant> orders = at->second.orders.next_due();
  if (orders && (!due || *orders < *due)) due = orders;
  return due;
}

std::optional<Instant> due_of(const Desk& desk, JobId id) {
  const auto at = desk.jobs.find(id);
  if (at == desk.jobs.end()) return std::nullopt;
  std::optional<Instant> due;
  for (const auto* each : dues_of(at->second)) {
    if (*each && (!due || **each < *due)) due = *each;
  }
  return due;
}

template <class Key>
std::optional<std::pair<Instant, Key>> first_due(const Desk& desk, DueIndex<Key>& index) {
  return index.first([&](const Key& key) { return due_of(desk, key); });
}

void on_input(Desk& desk, const Tick&) {
  while (const auto link = first_due(desk, desk.link_dues)) {
    if (link->first > desk.now) break;
    desk.stir_link(link->second);
    desk.link_dues.set(link->second, std::nullopt);  // anew at the end of the decision
  }
  check_leases(desk);
  take_back_steady(desk);
  std::vector<JobId> due;
  while (const auto job = first_due(desk, desk.job_dues)) {
    if (job->first > desk.now) break;
    due.push_back(job->second);
    desk.stirred_soft.insert(job->second);
    desk.job_dues.set(job->second, std::nullopt);
  }
  for (const JobId id : due) {
    if (desk.jobs.contains(id)) check_job_deadlines(desk, id);
    if (desk.jobs.contains(id)) check_recovery_deadlines(desk, id);
    if (desk.jobs.contains(id)) check_checkpoint_deadlines(desk, id);
  }
}

// Lets every job that was touched go as far as it can, places what can be placed, and gives the
// orders.
void settle_all(Desk& desk) {
  std::set<JobId> changed;
  for (int round = 0; !desk.touched.empty() || desk.schedule_due; ++round) {
    TUTTI_ASSERT(round < kRoundsMax);
    while (!desk.touched.empty()) {
      const JobId id = *desk.touched.begin();
      desk.touched.erase(desk.touched.begin());
      changed.insert(id);
      advance(desk, id);
    }
    if (!desk.schedule_due) continue;
    advance_drains(desk);
    schedule(desk);
  }
  for (const JobId id : changed) {
    const std::set<ProcessId> processes = desk.durable.processes_of(id);
    for (const ProcessId process : processes) {
      derive_orders(desk, *desk.durable.process(process));
    }
    desk.effect(JobChanged{.job = id});
  }
  send_due(desk);
  for (const std::string& name : desk.stirred_links) desk.link_dues.set(name, due_of(desk, name));
  desk.stirred_links.clear();
  for (const JobId id : desk.stirred_soft) desk.job_dues.set(id, due_of(desk, id));
  desk.stirred_soft.clear();
}

// The coordinator was stopped, or its machine starved, for `late`. What workers and ranks had to
// say in that time waits to be read, so everybody gets that time anew. Users' limits go on.
void forgive(Desk& desk, Duration late) {
  const auto shift = [&](std::optional<Instant>& at) {
    if (at) at = *at + late;
  };
  for (auto& [name, link] : desk.links) {
    if (is_suspect(desk, link)) desk.stir_link(name);
    link.heard = desk.now;
    shift(link.disconnected);
  }
  for (auto& [id, soft] : desk.processes) soft.progress_at = soft.beat_at = desk.now;
  for (auto& [id, soft] : desk.jobs) {
    for (auto* at : {&soft.regroup_due, &soft.start_due, &soft.formed_due, &soft.hang_due,
                     &soft.wait_due, &soft.checkpoint_due, &soft.commit_due}) {
      shift(*at);
    }
  }
}

Decision finish(Desk& desk) {
  settle_all(desk);
  Decision out = std::exchange(desk.decision, {});
  if (!out.facts.empty() || !out.events.empty()) out.number = ++desk.last_decision;
  return out;
}

}  // namespace

ClusterState::ClusterState(ClusterSettings settings)
    : parts_(std::make_unique<Parts>(std::move(settings))) {}

ClusterState::~ClusterState() = default;

void ClusterState::restore(const Snapshot& snapshot) { parts_->desk.durable.restore(snapshot); }

void ClusterState::replay(const Fact& fact) { parts_->desk.durable.apply(fact); }

bool ClusterState::has_lines() const { return !parts_->desk.board.lined_up.empty(); }

Snapshot ClusterState::snapshot() const { return parts_->desk.durable.snapshot(); }

SnapshotChanges ClusterState::changes() const { return parts_->desk.durable.changes(); }

void ClusterState::begin_changes() { parts_->desk.durable.begin_changes(); }

const std::map<std::pair<std::string, JobState>, std::uint64_t>& ClusterState::job_counts() const {
  return parts_->desk.durable.counts();
}

std::int64_t ClusterState::oldest_queued_unix_ms() const {
  return parts_->desk.durable.oldest_queued_unix_ms();
}

Decision ClusterState::begin(Instant now, WallTime wall, std::uint64_t last_event_seq, JobId left) {
  Desk& desk = parts_->desk;
  desk.now = now;
  desk.wall = wall;
  desk.last_event = last_event_seq;
  if (left >= desk.durable.next_job()) {
    desk.record(
        NumbersPassed{.next_job = left.value + 1,
                      .next_process = desk.durable.next_process().value + kProcessesPassed});
  }
  expect_workers(desk);
  stir_all(desk);
  for (const auto& [id, job] : desk.durable.jobs()) {
    if (!is_terminal(job.state)) resume_job(desk, job);
  }
  desk.schedule_next = true;
  return finish(desk);
}

Decision ClusterState::on(const Envelope& envelope) {
  Desk& desk = parts_->desk;
  desk.now = envelope.now;
  desk.wall = envelope.wall;
  desk.random = envelope.random;
  desk.random_used = 0;
  desk.durable_through = envelope.durable_through;
  if (desk.promised && desk.now - *desk.promised > kLateMax) {
    forgive(desk, desk.now - *desk.promised);
  }
  desk.promised.reset();
  if (std::exchange(desk.schedule_next, false)) desk.schedule_due = true;
  if (desk.board.sweep_due && desk.now >= *desk.board.sweep_due) desk.schedule_due = true;
  std::visit([&](const auto& input) { on_input(desk, input); }, envelope.input);
  return finish(desk);
}

std::optional<Instant> ClusterState::next_due() const {
  Desk& desk = parts_->desk;
  if (desk.schedule_next) return desk.now;
  std::optional<Instant> due;
  if (const auto link = first_due(desk, desk.link_dues)) due = link->first;
  if (const auto job = first_due(desk, desk.job_dues)) {
    if (!due || job->first < *due) due = job->first;
  }
  const std::optional<Instant> sweep = desk.board.sweep_due;
  if (sweep && (!due || *sweep < *due)) due = sweep;
  if (due) desk.promised = std::max(*due, desk.now);
  return due;
}

// What readers see --------------------------------------------------------------------------------

namespace {

Budgets budgets_of(const JobRecord& job) {
  return {.user = job.failures_user,
          .user_max = job.terms.retries_user,
          .infrastructure = job.failures_infrastructure,
          .infrastructure_max = job.terms.retries_infrastructure,
          .own = job.failures_own_here,
          .own_max = kOwnFailuresMax,
          .preempted = job.preemptions,
          .preempted_max = job.terms.preemptions_max,
          .drained = job.drains,
          .resized = job.resizes};
}

JobSummary summarize(const Desk& desk, const JobRecord& job) {
  const auto soft = desk.jobs.find(job.job);
  JobSummary out{.job = job.job,
                 .name = job.terms.name,
                 .kind = job.terms.kind,
                 .owner = job.owner,
                 .state = job.state,
                 .generation = job.generation,
                 .ranks = job.size,
                 .restarts = job.restarts,
                 .step = soft == desk.jobs.end() ? job.step : soft->second.newest_step,
                 .steps = job.terms.steps,
                 .exit_code = std::nullopt,
                 .priority = job.terms.priority,
                 .tasks = {.waiting = job.tasks.waiting,
                           .active = job.tasks.active,
                           .done = job.tasks.done,
                           .failed = job.tasks.failed,
                           .cancelled = job.tasks.cancelled},
                 .submitted_unix_ms = job.submitted_unix_ms,
                 .started_unix_ms = job.started_unix_ms,
                 .ended_unix_ms = job.ended_unix_ms,
                 .memory_peak_bytes = job.memory_peak_bytes,
                 .cpu_ms = job.cpu_ms};
  if (is_terminal(job.state)) out.exit_code = job.outcome.exit_code;
  out.budgets = budgets_of(job);
  return out;
}

std::string phase_of(const ProcessRecord& process, const ProcessSoft* soft) {
  if (process.lost) return "lost";
  if (process.ordered_to_stop || (soft != nullptr && soft->stop_told)) return "stopping";
  if (stands_in_line(process)) return "in line";
  if (soft == nullptr || !soft->seen) return process.pid == 0 ? "placed" : "unknown";
  if (soft->progress.process && soft->progress.generation == soft->told)
    return soft->progress.phase;
  if (soft->formed && soft->formed->generation == soft->told) return "formed";
  if (soft->ready && soft->ready->generation == soft->told) return "ready";
  return "starting";
}

ProcessView view_of(const Desk& desk, const ProcessRecord& process) {
  const auto at = desk.processes.find(process.process);
  const ProcessSoft* soft = at == desk.processes.end() ? nullptr : &at->second;
  return {.process = process.process,
          .job = process.job,
          .generation = soft == nullptr || !soft->told ? process.generation : soft->told,
          .rank = process.rank,
          .worker = process.worker,
          .slot = process.slot,
          .pid = process.pid,
          .phase = phase_of(process, soft),
          .step = soft == nullptr ? 0 : soft->progress.step,
          .collective = soft == nullptr ? 0 : soft->progress.collective,
          .limits = soft == nullptr ? std::string() : soft->limits};
}

// Straggler scores by job, of those that were asked for.
using Scores = std::map<JobId, std::vector<double>>;

ProcessView view_in_gang(const Desk& desk, const ProcessRecord& process, Scores& known) {
  ProcessView out = view_of(desk, process);
  const JobRecord* job = desk.durable.job(process.job);
  if (job == nullptr) return out;
  const auto at = std::find(job->members.begin(), job->members.end(), process.process);
  out.member = at != job->members.end();
  if (!out.member) return out;
  auto scores = known.find(job->job);
  if (scores == known.end()) scores = known.emplace(job->job, straggler_scores(desk, *job)).first;
  out.straggler = scores->second[static_cast<std::size_t>(at - job->members.begin())];
  return out;
}

std::string state_of(const Desk& desk, const WorkerRecord& worker) {
  if (worker.lost) return "lost";
  const auto at = desk.links.find(worker.worker);
  if (at == desk.links.end() || !at->second.open) return "expected";
  if (at->second.disconnected || is_suspect(desk, at->second)) return "suspect";
  if (!worker.draining()) return "ready";
  if (worker.drain.cause == DrainCause::quarantine) return "quarantined";
  return worker.drain.empty_unix_ms != 0 ? "drained" : "draining";
}

}  // namespace

bool ClusterState::owns_session(std::string_view peer, SessionId session) const {
  const Desk& desk = parts_->desk;
  const auto worker = desk.worker_of_peer.find(peer);
  if (worker == desk.worker_of_peer.end()) return false;
  const auto link = desk.links.find(worker->second);
  return link != desk.links.end() && link->second.open && link->second.session == session;
}

const JobRecord* ClusterState::find_job(JobId job) const { return parts_->desk.durable.job(job); }

std::vector<TaskView> ClusterState::tasks(JobId array) const {
  const JobRecord* job = find_job(array);
  return job == nullptr ? std::vector<TaskView>{} : task_views(parts_->desk, *job);
}

std::string ClusterState::owner_of(JobId id) const {
  const JobRecord* job = find_job(id);
  if (job == nullptr) job = array_of(parts_->desk, id);
  return job == nullptr ? std::string() : job->owner;
}

bool ClusterState::knows(JobId job) const {
  return find_job(job) != nullptr || array_of(parts_->desk, job) != nullptr;
}

SoftSizes ClusterState::soft_sizes() const {
  const Desk& desk = parts_->desk;
  return {.processes = desk.processes.size(),
          .lined_up = desk.board.lined_up.size(),
          .jobs = desk.jobs.size(),
          .job_dues = desk.job_dues.size(),
          .counted = desk.board.counted.size(),
          .users = desk.board.users.size(),
          .queued = desk.board.queue.size(),
          .interrupted = desk.board.interrupted.size(),
          .growing = desk.board.growing.size(),
          .ends = desk.board.ends.size(),
          .preemptible = desk.board.preemptible.size(),
          .dependents = desk.board.dependents.size(),
          .links = desk.links.size(),
          .peers = desk.worker_of_peer.size(),
          .link_dues = desk.link_dues.size()};
}

std::size_t ClusterState::worker_count() const { return parts_->desk.durable.workers().size(); }

bool ClusterState::knows_worker(const std::string& name) const {
  return parts_->desk.durable.worker(name) != nullptr;
}

JobId ClusterState::next_job() const { return parts_->desk.durable.next_job(); }

std::vector<JobSummary> ClusterState::jobs() const { return jobs(JobFilter{}).jobs; }

JobPage ClusterState::jobs(const JobFilter& filter) const {
  const Desk& desk = parts_->desk;
  const auto& all = desk.durable.jobs();
  const auto wanted = [&](const JobRecord& job) {
    const auto& states = filter.states;
    const bool stops = filter.stopping != nullptr && filter.stopping->contains(job.job);
    const JobState state = stops ? JobState::stopping : job.state;
    return !job.array && (filter.owner.empty() || job.owner == filter.owner) &&
           (filter.name.empty() || job.terms.name == filter.name) &&
           (states.empty() || std::find(states.begin(), states.end(), state) != states.end());
  };
  JobPage page;
  const auto take = [&](auto at, auto end) {
    for (; at != end && !page.more; ++at) {
      if (!wanted(at->second)) continue;
      page.more = page.jobs.size() == filter.limit;
      if (!page.more) page.jobs.push_back(summarize(desk, at->second));
    }
  };
  const auto first = all.upper_bound(filter.after);
  if (filter.newest) {
    take(all.rbegin(), std::make_reverse_iterator(first));
    std::reverse(page.jobs.begin(), page.jobs.end());
  } else {
    take(first, all.end());
  }
  return page;
}

std::optional<JobDetail> ClusterState::job(JobId id) const {
  const Desk& desk = parts_->desk;
  const JobRecord* job = desk.durable.job(id);
  if (job == nullptr) return task_detail(desk, id);
  JobDetail out{.summary = summarize(desk, *job),
                .spec = job->spec,
                .folder = job->folder,
                .checkpoints = job->checkpoints,
                .recoveries = job->recoveries,
                .outcome = job->outcome,
                .waiting = {},
                .processes = {},
                .tasks = {}};
  if (job->array) out.spec = spec_of_task(job->spec, job->index);
  out.tasks = telling_tasks(desk, *job);
  out.waiting = waiting_line(parts_->desk, *job);
  out.release = job->release;
  if (job->terms.kind != "run" && job->formed) {
    const Standstill found = find_standstill(desk, *job);
    if (found.stood >= kStandstillShown) out.standstill = found.message;
  }
  Scores scores;
  for (const ProcessId process : desk.durable.processes_of(id)) {
    out.processes.push_back(view_in_gang(desk, *desk.durable.process(process), scores));
  }
  return out;
}

std::vector<NodeView> ClusterState::nodes(const std::string& after, std::size_t limit) const {
  const Desk& desk = parts_->desk;
  std::vector<NodeView> out;
  Scores scores;
  const auto& workers = desk.durable.workers();
  for (auto at = workers.upper_bound(after); at != workers.end() && out.size() < limit; ++at) {
    const auto& [name, worker] = *at;
    NodeView node{.name = name,
                  .host = worker.host,
                  .state = state_of(desk, worker),
                  .slots = worker.slots,
                  .free_slots = free_slots(desk, name),
                  .cores = worker.cores,
                  .memory_bytes = worker.memory_bytes,
                  .cpu = worker.cpu,
                  .version = worker.version,
                  .labels = worker.labels,
                  .limits = worker.limits,
                  .profiles = worker.profiles,
                  .devices = worker.devices,
                  .device_stack = worker.device_stack,
                  .processes = {}};
    for (const ProcessId id : desk.durable.processes_on(name)) {
      node.processes.push_back(view_in_gang(desk, *desk.durable.process(id), scores));
    }
    const auto link = desk.links.find(name);
    if (link != desk.links.end() && link->second.open) node.readings = link->second.readings;
    node.drain = worker.drain;
    NodeScore score = score_of(worker, desk.wall.unix_ms);
    node.score = std::move(score.message);
    node.score_users = score.users;
    node.score_losses = score.losses;
    node.drain_ends = what_ends(worker);
    out.push_back(std::move(node));
  }
  return out;
}

std::optional<Explanation> ClusterState::explain(JobId id) const {
  Desk& desk = parts_->desk;
  if (desk.durable.job(id) == nullptr && array_of(desk, id) == nullptr) return std::nullopt;
  return coordinator::explain(desk, id);
}

Result<Explanation> ClusterState::plan(const std::string& owner, const spec::JobSpec& spec) const {
  return coordinator::plan(parts_->desk, owner, spec);
}

ClusterCounters ClusterState::counters() const {
  ClusterCounters out = parts_->desk.counters;
  out.keys_kept = parts_->desk.durable.keys_kept();
  out.keys_dropped_early = parts_->desk.durable.keys_dropped_early();
  return out;
}

}  // namespace tutti::coordinator
