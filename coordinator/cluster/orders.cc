#include "coordinator/cluster/orders.h"

#include <algorithm>
#include <limits>
#include <variant>
#include <vector>

#include "coordinator/cluster/release.h"

#include "coordinator/scheduler/arrays.h"

namespace tutti::coordinator {

namespace {

constexpr Duration kCulpritGrace = std::chrono::milliseconds(500);
constexpr Duration kKillSlack = std::chrono::milliseconds(500);

// Its successor takes what is asked from now on, and it finishes what is open: as long as its node
// has time for it.
bool is_replaced_server(const JobRecord* job, const ProcessRecord& process) {
  return job != nullptr && job->terms.kind == "serve" && job->state == JobState::running &&
         process.generation < job->generation;
}

// A program that is asked to leave may use its notice; the rest of the deadline is for the kill. A
// rank has saved by now, or had its time to, and only exits.
Duration grace_for(const Desk& desk, const JobRecord* job, const ProcessRecord& process) {
  // Who was taken out of its gang is broken or hung, and others wait for its slot.
  if (process.ordered_to_stop) return kCulpritGrace;
  if (is_replaced_server(job, process)) {
    const WorkerRecord* worker = desk.durable.worker(process.worker);
    const std::int64_t due = worker == nullptr ? 0 : worker->drain.due_unix_ms;
    if (due == 0) return desk.settings.notice;
    const Duration left = std::chrono::milliseconds(due - desk.wall.unix_ms) - kKillSlack;
    return std::clamp(left, kCulpritGrace, std::max(kCulpritGrace, desk.settings.notice));
  }
  if (job == nullptr || job->release.to == ReleaseTo::none) return desk.settings.stop_grace;
  Duration left = notice_left(desk, job->release) - kKillSlack;
  if (job->terms.kind != "run") left = std::min(left, desk.settings.stop_grace);
  return std::max(kCulpritGrace, left);
}

void order_stop(Desk& desk, WorkerLink& link, const JobRecord* job, const ProcessRecord& process) {
  ProcessSoft& soft = desk.processes[process.process];
  const std::int64_t due = job == nullptr || job->release.to == ReleaseTo::none
                               ? std::numeric_limits<std::int64_t>::max()
                               : job->release.due_unix_ms;
  // Told again where it has to be gone sooner than it was told first.
  if (!soft.seen || (soft.stop_told && due >= soft.stop_due_unix_ms)) return;
  std::string reason = "its place in the job is gone";
  if (job != nullptr && job->state == JobState::stopping) {
    reason = job->outcome.message.empty() ? "the job is done" : job->outcome.message;
  }
  const Duration grace = grace_for(desk, job, process);
  desk.order(link, wire::StopRank{.job = process.job,
                                  .process = process.process,
                                  .grace_ms = static_cast<std::uint32_t>(to_ms(grace)),
                                  .reason = std::move(reason)});
  soft.stop_told = true;
  soft.stop_due_unix_ms = due;
}

std::uint32_t threads_of(const Desk& desk, const JobRecord& job, const ProcessRecord& process) {
  if (job.terms.threads != 0) return job.terms.threads;
  const WorkerRecord* worker = desk.durable.worker(process.worker);
  if (worker == nullptr || worker->slots == 0) return 1;
  return std::max(1U, worker->cores / worker->slots);
}

// The GPU that is leased with the process's slot.
std::string device_of(const Desk& desk, const ProcessRecord& process) {
  const WorkerRecord* worker = desk.durable.worker(process.worker);
  if (worker == nullptr || process.slot >= worker->devices.size()) return {};
  return worker->devices[process.slot].uuid;
}

// `generation` and `size` are those of the group that it will be in.
void order_start(Desk& desk, WorkerLink& link, const JobRecord& job, const ProcessRecord& process) {
  const bool newcomer = process.generation > job.generation;
  const auto size = newcomer ? static_cast<std::uint32_t>(job.release.next.size()) : job.size;
  desk.order(link, wire::StartRank{
                       .job = job.job,
                       .generation = newcomer ? process.generation : job.generation,
                       .process = process.process,
                       .rank = process.rank,
                       .size = size,
                       .slot = process.slot,
                       .threads = threads_of(desk, job, process),
                       .name = job.terms.name,
                       .kind = job.terms.kind,
                       .spec = job.array ? spec_of_task(job.spec, job.index) : job.spec,
                       .folder = job.folder,
                       .start_ms_max = static_cast<std::uint32_t>(to_ms(desk.settings.start_max)),
                       .at_once = job.terms.kind == "run" && size == 1,
                       .queue = process.lined_up,
                       .owner = job.owner,
                       .restarts = job.restarts,
                       .array_index = job.array ? static_cast<std::int32_t>(job.index) : -1,
                       .cores = job.terms.cores,
                       .memory_bytes = job.terms.memory_bytes,
                       .stop_after_ms = job.terms.stop_after_ms,
                       .device = device_of(desk, process),
                       .profile = job.terms.profile});
}

Generation generation_of(const wire::ToWorker& message) {
  return std::visit(
      [](const auto& each) {
        if constexpr (requires { each.generation; }) {
          return each.generation;
        } else {
          return Generation{};
        }
      },
      message);
}

// Nothing until a step is sure to follow: flags ride on the exchange of one.
void order_flags(Desk& desk, WorkerLink& link, const JobRecord& job, const ProcessRecord& process) {
  ProcessSoft& soft = desk.processes[process.process];
  if (soft.flags_told >= job.generation || !wants_flags(desk, job)) return;
  desk.order(link, wire::SetFlags{.job = job.job,
                                  .generation = job.generation,
                                  .process = process.process,
                                  .save = job.release.save,
                                  .stop = true});
  soft.flags_told = job.generation;
}

}  // namespace

bool is_wanted(const JobRecord* job, const ProcessRecord& process) {
  if (job == nullptr || process.lost || process.ordered_to_stop) return false;
  if (is_terminal(job->state) || job->state == JobState::stopping) return false;
  if (is_member(*job, process.process)) return true;
  if (process.generation > job->generation) {
    const std::vector<ProcessId>& next = job->release.next;
    return std::find(next.begin(), next.end(), process.process) != next.end();
  }
  return job->terms.kind == "serve" && job->generation_alive && !job->formed;
}

void derive_orders(Desk& desk, const ProcessRecord& process) {
  WorkerLink* link = desk.link_of(process);
  if (link == nullptr) return;
  ProcessSoft& soft = desk.processes[process.process];
  const JobRecord* job = desk.durable.job(process.job);
  if (!is_wanted(job, process)) return order_stop(desk, *link, job, process);
  const Generation generation = job->generation;
  if (!is_member(*job, process.process)) {  // a newcomer, or one that serves a while longer
    if (soft.seen || process.generation <= generation) return;
    order_start(desk, *link, *job, process);
    soft.seen = true;
    soft.told = process.generation;
    return;
  }
  if (!job->generation_alive) {
    if (!soft.seen || soft.aborted_told >= generation) return;
    soft.aborted_told = generation;
    desk.order(*link, wire::AbortGeneration{.job = job->job,
                                            .generation = generation,
                                            .process = process.process,
                                            .reason = job->recoveries.empty()
                                                          ? "a rank was lost"
                                                          : job->recoveries.back().cause});
    return;
  }
  if (!soft.seen) {
    order_start(desk, *link, *job, process);
    soft.seen = true;
    soft.told = generation;
  } else if (soft.told < generation) {
    desk.order(*link, wire::Regroup{.job = job->job,
                                    .generation = generation,
                                    .process = process.process,
                                    .rank = process.rank,
                                    .size = job->size});
    soft.told = generation;
  }
  if (job->formation.addresses.empty()) return;
  if (soft.formed_told >= generation) return order_flags(desk, *link, *job, process);
  desk.order(*link, wire::FormGroup{.job = job->job,
                                    .generation = generation,
                                    .process = process.process,
                                    .addresses = job->formation.addresses,
                                    .secret = job->formation.secret,
                                    .base_step = job->formation.base_step,
                                    .checkpoint = job->formation.checkpoint,
                                    .copies = job->formation.copies});
  soft.formed_told = generation;
  order_flags(desk, *link, *job, process);
}

SendToWorker frame_to(const WorkerLink& link, wire::ToWorker message) {
  SendToWorker out{.peer = link.peer,
                   .session = link.session,
                   .generation = generation_of(message),
                   .sequence = {},
                   .message = {}};
  out.message = std::move(message);
  return out;
}

void send_due(Desk& desk) {
  for (const std::string& name : desk.stirred_links) {
    const auto at = desk.links.find(name);
    if (at == desk.links.end() || !at->second.open) continue;
    WorkerLink& link = at->second;
    if (link.reports_owed) {
      link.reports_owed = false;
      desk.effect(frame_to(link, wire::ReportsAcked{.through = link.reports.taken()}));
    }
    for (wire::Numbered<wire::ToWorker>& entry : link.orders.due(desk.now)) {
      SendToWorker frame = frame_to(link, std::move(entry.message));
      frame.sequence = entry.sequence;
      desk.effect(std::move(frame));
    }
  }
}

}  // namespace tutti::coordinator
