// What each process must be told now, derived from what is wanted (durable) and what it was told
// (soft).
//
// The one place where ranks are ordered about. It makes no difference whether the process is new,
// a survivor, or found alive by a restarted coordinator; a new session begins with what Hello says.
#pragma once

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

// Whether the process belongs to its job's gang, or to the one that a change of size prepares; or
// serves until its successor does.
bool is_wanted(const JobRecord* job, const ProcessRecord& process);

// Orders for one process, if its worker has a session. Nothing if it has been told already.
void derive_orders(Desk& desk, const ProcessRecord& process);

// Effects for everything that is due on every link: new and unacknowledged orders, owed
// acknowledgements.
void send_due(Desk& desk);

// A frame that is not an order.
SendToWorker frame_to(const WorkerLink& link, wire::ToWorker message);

}  // namespace tutti::coordinator
