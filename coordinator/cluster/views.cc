// What readers see of the coordinator's state.
#include <algorithm>

#include "coordinator/cluster/cluster_state.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/parts.h"
#include "coordinator/cluster/scheduler.h"

namespace tutti::coordinator {

namespace {

JobSummary summarize(const Desk& desk, const JobRecord& job) {
  const auto soft = desk.jobs.find(job.job);
  JobSummary out{.job = job.job,
                 .name = job.terms.name,
                 .kind = job.terms.kind,
                 .owner = job.owner,
                 .state = job.state,
                 .generation = job.generation,
                 .ranks = static_cast<std::uint32_t>(job.members.size()),
                 .restarts = job.restarts,
                 .step = soft == desk.jobs.end() ? job.step : soft->second.newest_step,
                 .steps = job.terms.steps,
                 .exit_code = std::nullopt,
                 .submitted_unix_ms = job.submitted_unix_ms,
                 .started_unix_ms = job.started_unix_ms,
                 .ended_unix_ms = job.ended_unix_ms};
  if (is_terminal(job.state)) out.exit_code = job.outcome.exit_code;
  return out;
}

std::string phase_of(const ProcessRecord& process, const ProcessSoft* soft) {
  if (process.lost) return "lost";
  if (process.ordered_to_stop || (soft != nullptr && soft->stop_told)) return "stopping";
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
          .collective = soft == nullptr ? 0 : soft->progress.collective};
}

std::string state_of(const Desk& desk, const WorkerRecord& worker) {
  if (worker.lost) return "lost";
  const auto at = desk.links.find(worker.worker);
  if (at == desk.links.end() || !at->second.open) return "expected";
  return at->second.disconnected || is_suspect(desk, at->second) ? "suspect" : "ready";
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

std::vector<JobSummary> ClusterState::jobs() const {
  std::vector<JobSummary> out;
  for (const auto& [id, job] : parts_->desk.durable.jobs()) {
    out.push_back(summarize(parts_->desk, job));
  }
  return out;
}

std::optional<JobDetail> ClusterState::job(JobId id) const {
  const Desk& desk = parts_->desk;
  const JobRecord* job = desk.durable.job(id);
  if (job == nullptr) return std::nullopt;
  JobDetail out{.summary = summarize(desk, *job),
                .spec = job->spec,
                .folder = job->folder,
                .checkpoints = job->checkpoints,
                .recoveries = job->recoveries,
                .outcome = job->outcome,
                .waiting = {},
                .processes = {}};
  const auto soft = desk.jobs.find(id);
  if (soft != desk.jobs.end()) out.waiting = soft->second.waiting;
  for (const ProcessId process : desk.durable.processes_of(id)) {
    out.processes.push_back(view_of(desk, *desk.durable.process(process)));
  }
  return out;
}

std::vector<NodeView> ClusterState::nodes() const {
  const Desk& desk = parts_->desk;
  std::vector<NodeView> out;
  for (const auto& [name, worker] : desk.durable.workers()) {
    NodeView node{.name = name,
                  .host = worker.host,
                  .state = state_of(desk, worker),
                  .slots = worker.slots,
                  .free_slots = free_slots(desk, name),
                  .cores = worker.cores,
                  .memory_bytes = worker.memory_bytes,
                  .cpu = worker.cpu,
                  .version = worker.version,
                  .processes = {}};
    for (const auto& [id, process] : desk.durable.processes()) {
      if (process.worker == name) node.processes.push_back(view_of(desk, process));
    }
    out.push_back(std::move(node));
  }
  return out;
}

const ClusterCounters& ClusterState::counters() const { return parts_->desk.counters; }

}  // namespace tutti::coordinator
