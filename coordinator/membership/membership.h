// Workers: admission, sessions, leases, and what a Hello says about processes.
//
// - A Hello with a new incarnation: its predecessor's processes are gone, as a starting worker ends
//   leftovers first.
// - A Hello with the same incarnation: a new session; what it runs is compared with what it should
//   run.
// - Silence for three beats: suspect, it gets no new work.
// - Silence for a lease, or the end of the liveness connection without a Hello: lost.
//
// A lost worker's processes lose their place in their jobs but hold their slots until the worker is
// back. Then those of a training job that nobody began another generation of take their place
// again, with their state; the others are ended, fenced by their number meanwhile.
#pragma once

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

void on_hello(Desk& desk, const WorkerFrame& frame, const wire::Hello& hello);
void on_heartbeat(Desk& desk, WorkerLink& link, const wire::Heartbeat& heartbeat);
void on_orders_acked(Desk& desk, WorkerLink& link, const wire::OrdersAcked& acked);
void on_disconnected(Desk& desk, const WorkerDisconnected& input);
// Lost at once. A worker that hears of it ends, and its ranks with it; one that shows a good join
// token the next time is let in again.
void on_expelled(Desk& desk, const ExpelWorker& input);

// After a start: every known worker has one lease to say Hello.
void expect_workers(Desk& desk);
void check_leases(Desk& desk);
// When its silence makes it a suspect, lost, or forgotten, whichever is next.
std::optional<Instant> silence_due(const Desk& desk, const std::string& worker,
                                   const WorkerLink& link);

// Silent for so long that it gets no new work.
bool is_suspect(const Desk& desk, const WorkerLink& link);

}  // namespace tutti::coordinator
