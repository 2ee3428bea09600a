// Which gang gets which slots: first fit over the workers by name, all ranks of a generation or
// none.
//
// Order: jobs that lost ranks and hold others, then the queue; each by priority, then by age. A
// queued job that could start once finite jobs end reserves its turn: nobody younger passes it
// (I9). One that cannot (the cluster is too small, or serve jobs hold what it needs) is passed, and
// an event says what it waits for.
//
// The size of a gang is decided when it is placed: the largest in [ranks_min, ranks_max] that the
// cluster's slots allow, busy ones included, and stays until the job is queued again. The bits of a
// result do not depend on it (DESIGN numerics), so a requeued job may come back smaller.
#pragma once

#include <vector>

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

// Places all that can be placed now. The jobs that got a generation are touched.
void schedule(Desk& desk);

// Journals the job's next generation, and by when its ranks must be ready.
void start_generation(Desk& desk, JobId job, std::vector<Placement> gang);

// Slots of the worker that nothing holds; processes of lost generations hold theirs until they are
// gone.
std::uint32_t free_slots(const Desk& desk, const std::string& worker);

}  // namespace tutti::coordinator
