#include "coordinator/membership/drain.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace tutti::coordinator {

namespace {

void refuse(Desk& desk, RequestId request, std::string message) {
  desk.decision.immediate.push_back(
      Answer{.request = request, .body = Error{ErrorCode::not_found, std::move(message)}});
}

void drain(Desk& desk, const std::string& worker, DrainCause cause, std::string reason,
           Duration within) {
  desk.record(NodeDraining{.worker = worker,
                           .drain = {.cause = cause,
                                     .reason = std::move(reason),
                                     .since_unix_ms = desk.wall.unix_ms,
                                     .due_unix_ms = desk.wall.unix_ms + to_ms(within)}});
  const Drain& drain = desk.durable.worker(worker)->drain;
  desk.note({.job = {},
             .kind = cause == DrainCause::quarantine ? EventKind::quarantined : EventKind::draining,
             .message = fmt::format("worker {}: {}", worker, drain.reason),
             .worker = worker});
  desk.capacity_changed();
}

}  // namespace

void on_drain(Desk& desk, const DrainNode& input) {
  if (desk.durable.worker(input.node) == nullptr) {
    return refuse(desk, input.request, fmt::format("there is no node {}", input.node));
  }
  const Duration within = input.deadline_ms == 0
                              ? desk.settings.drain
                              : Duration(std::chrono::milliseconds(input.deadline_ms));
  desk.effect(Answer{.request = input.request, .body = Done{}});
  drain(desk, input.node, DrainCause::asked, input.reason.empty() ? "drained" : input.reason,
        within);
}

void on_undrain(Desk& desk, const UndrainNode& input) {
  const WorkerRecord* worker = desk.durable.worker(input.node);
  if (worker == nullptr) {
    return refuse(desk, input.request, fmt::format("there is no node {}", input.node));
  }
  desk.effect(Answer{.request = input.request, .body = Done{}});
  if (!worker->draining() && worker->blames.empty()) return;
  desk.record(NodeUndrained{.worker = input.node});
  desk.note({.job = {},
             .kind = EventKind::undrained,
             .message = fmt::format("worker {} takes work again", input.node),
             .worker = input.node});
  desk.capacity_changed();
}

void on_leaving(Desk& desk, const WorkerLink& link, const wire::WorkerLeaving& report) {
  const auto at = desk.worker_of_peer.find(link.peer);
  if (at == desk.worker_of_peer.end()) return;
  drain(desk, at->second, DrainCause::leaving,
        report.reason.empty() ? "it was told to stop" : report.reason,
        std::chrono::milliseconds(report.deadline_ms));
}

}  // namespace tutti::coordinator
