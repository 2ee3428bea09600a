// Room for the head of the queue: what is kept for it, what is taken from others for it, and what
// is left over for jobs that may grow.
//
// Reservation: the head will start on named seats, some free now, some once named jobs have ended.
// On each node as much is held as the seats need beyond what those jobs still hold there; so what
// they free is never given to anybody younger, and all else of the node is. If all of them have a
// limit, the start is known, and who ends before it may use what is held.
//
// Preemption: a head takes from running jobs of lower priority that allow it, if free room and
// theirs together fit it on real nodes; first the lowest priority, then the least work lost. What
// is not needed in the end is not taken. No cycles: a job only takes from strictly lower priority,
// and priorities never change, so that nobody can be taken from by those it took from; see the
// decision record.
#pragma once

#include <string>

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

// A head that will start by itself this soon takes from nobody.
inline constexpr Duration kPreemptPatience = std::chrono::seconds(30);
// Running jobs that are looked at for one decision.
inline constexpr std::size_t kVictimsLookedAt = 1'000;

// Makes the reservation of the job whose turn it is, unless it has one that still holds.
void reserve(Desk& desk, JobId head);
void drop_reservation(Desk& desk);
// Whether the reservation can still come true as it was made.
bool is_reservation_sound(const Desk& desk);

// Says when the head starts, once the end of all that it waits for is known.
void date_reservation(Desk& desk);

// Holds on the node what it has to keep now.
void hold_room(Desk& desk, const std::string& worker);

// Asks running jobs of lower priority to leave for the head, if that makes room for it.
void preempt_for(Desk& desk, JobId head);

// Gives room that nobody waits for to running jobs that may grow.
void grow_jobs(Desk& desk);

}  // namespace tutti::coordinator
