#include "coordinator/cluster/cluster_state.h"

#include <algorithm>
#include <utility>

#include "coordinator/cluster/checkpoints.h"
#include "coordinator/cluster/desk.h"
#include "coordinator/cluster/job_life.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/orders.h"
#include "coordinator/cluster/parts.h"
#include "coordinator/cluster/recovery.h"
#include "coordinator/cluster/scheduler.h"
#include "protocol/base/assert.h"

namespace tutti::coordinator {

namespace {

// An input that is followed by more consequences than this has met a loop in the rules.
constexpr int kRoundsMax = 100'000;

void on_message(Desk& desk, WorkerLink& link, const wire::Heartbeat& message) {
  on_heartbeat(desk, link, message);
}
void on_message(Desk& desk, WorkerLink& link, const wire::OrdersAcked& message) {
  on_orders_acked(desk, link, message);
}
void on_message(Desk&, WorkerLink&, const wire::Hello&) {}  // handled before a session is needed
void on_message(Desk&, WorkerLink&, const wire::SpoolData&) {}  // the host stores it
void on_message(Desk& desk, WorkerLink&, const wire::RankExited& message) {
  on_exit(desk, message);
}
template <class Report>
void on_message(Desk& desk, WorkerLink&, const Report& message) {
  on_report(desk, message);
}

void on_input(Desk& desk, const WorkerFrame& frame) {
  if (const auto* hello = std::get_if<wire::Hello>(&frame.message)) {
    return on_hello(desk, frame, *hello);
  }
  const auto worker = desk.worker_of_peer.find(frame.peer);
  WorkerLink* link = worker == desk.worker_of_peer.end() ? nullptr : &desk.links[worker->second];
  if (link == nullptr || !link->open || link->session != frame.session) {
    ++desk.counters.stale_frames;
    return;
  }
  if (is_suspect(desk, *link)) desk.capacity_changed();
  link->heard = desk.now;
  if (frame.sequence) {
    link->reports_owed = true;
    if (link->reports.admit(frame.sequence) != wire::ReceiveGate::Verdict::take) return;
  }
  std::visit([&](const auto& message) { on_message(desk, *link, message); }, frame.message);
}

void on_input(Desk& desk, const SubmitJob& input) { on_submit(desk, input); }
void on_input(Desk& desk, const CancelJob& input) { on_cancel(desk, input); }
void on_input(Desk& desk, const InjectFault& input) { on_fault(desk, input); }
void on_input(Desk& desk, const WorkerDisconnected& input) { on_disconnected(desk, input); }
void on_input(Desk& desk, const StepHashMismatch& input) { on_hash_mismatch(desk, input); }
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

void on_input(Desk& desk, const LedgerRecovered&) {
  desk.ledger_failure.clear();
  desk.capacity_changed();
}

void on_input(Desk& desk, const Tick&) {
  check_leases(desk);
  std::vector<JobId> all;
  for (const auto& [id, soft] : desk.jobs) all.push_back(id);
  for (const JobId id : all) {
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
    if (desk.schedule_due) schedule(desk);
  }
  for (const JobId id : changed) {
    const std::set<ProcessId> processes = desk.durable.processes_of(id);
    for (const ProcessId process : processes) {
      derive_orders(desk, *desk.durable.process(process));
    }
    desk.effect(JobChanged{.job = id});
  }
  send_due(desk);
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

Snapshot ClusterState::snapshot() const { return parts_->desk.durable.snapshot(); }

Decision ClusterState::begin(Instant now, WallTime wall, std::uint64_t last_event_seq) {
  Desk& desk = parts_->desk;
  desk.now = now;
  desk.wall = wall;
  desk.last_event = last_event_seq;
  expect_workers(desk);
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
  if (std::exchange(desk.schedule_next, false)) desk.schedule_due = true;
  std::visit([&](const auto& input) { on_input(desk, input); }, envelope.input);
  return finish(desk);
}

std::optional<Instant> ClusterState::next_due() const {
  const Desk& desk = parts_->desk;
  if (desk.schedule_next) return desk.now;
  std::optional<Instant> due;
  const auto consider = [&due](const std::optional<Instant>& at) {
    if (at && (!due || *at < *due)) due = at;
  };
  for (const auto& [name, link] : desk.links) {
    consider(lease_due(desk, name, link));
    if (link.open) consider(link.orders.next_due());
  }
  for (const auto& [id, soft] : desk.jobs) {
    for (const auto* at :
         {&soft.settle_until, &soft.regroup_due, &soft.start_due, &soft.formed_due, &soft.wait_due,
          &soft.checkpoint_due, &soft.time_due, &soft.queued_due, &soft.commit_due}) {
      consider(*at);
    }
  }
  return due;
}

}  // namespace tutti::coordinator
