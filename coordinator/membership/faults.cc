// Faults that are injected on request, on a cluster started with --faults.
#include <fmt/core.h>

#include "coordinator/cluster/job_life.h"

namespace tutti::coordinator {

namespace {

void break_worker(Desk& desk, const InjectFault& input) {
  const auto at = desk.links.find(input.worker);
  if (at == desk.links.end() || !at->second.open) {
    return desk.refuse(input.request, ErrorCode::not_found,
                       fmt::format("no worker named {} is connected", input.worker));
  }
  wire::BreakWorker order{.lasts_ms = input.lasts_ms, .delay_ms = input.delay_ms};
  if (input.action == FaultAction::cut) order.fault = wire::WorkerFault::cut;
  if (input.action == FaultAction::slow_disk) order.fault = wire::WorkerFault::slow_disk;
  if (input.action == FaultAction::heal) order = {.fault = wire::WorkerFault::cut};
  desk.order(at->second, order);
  if (input.action == FaultAction::heal) {
    desk.order(at->second, wire::BreakWorker{.fault = wire::WorkerFault::slow_disk});
  }
  desk.answer(input.request, Done{});
}

}  // namespace

void on_fault(Desk& desk, const InjectFault& input) {
  if (!desk.settings.faults) {
    return desk.refuse(input.request, ErrorCode::permission_denied,
                       "faults need a cluster started with --faults");
  }
  if (input.action >= FaultAction::kill_worker) return break_worker(desk, input);
  const JobRecord* job = desk.durable.job(input.job);
  const ProcessRecord* process = job == nullptr || input.rank >= job->members.size()
                                     ? nullptr
                                     : desk.durable.process(job->members[input.rank]);
  WorkerLink* link = process == nullptr ? nullptr : desk.link_of(*process);
  if (link == nullptr) {
    return desk.refuse(input.request, ErrorCode::not_found,
                       fmt::format("job {} has no living rank {}", input.job.value, input.rank));
  }
  if (!desk.ledger_failure.empty()) {
    return desk.refuse(input.request, ErrorCode::unavailable, desk.full_disk());
  }
  constexpr std::int32_t kSignals[] = {9, 19, 18};  // by FaultAction
  desk.order(*link, wire::SignalRank{.job = input.job,
                                     .process = process->process,
                                     .signal = kSignals[static_cast<std::size_t>(input.action)]});
  desk.answer(input.request, Done{});
}

}  // namespace tutti::coordinator
