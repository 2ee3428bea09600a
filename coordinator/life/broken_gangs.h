// Gangs that lost ranks: they outrank newcomers, and what they had is kept for them for a while.
//
// A train or serve job keeps its other ranks and its state, and waits for places of those it lost
// (cluster/recovery.h). Programs of a `run` job cannot regroup: all are ended, and the job is
// queued again. If that was no failure of its user's, its seats are held from the loss on: while
// its other programs end, while it waits before its next try, and in the queue, where it goes
// before all others. The old seats where they are, others in place of those that are not.
//
// Limits: for on_loss.wait, counted from when it may be placed again: after the wait before the
// next try, and once its programs on lost workers are surely gone, if that is certain to come. Then
// on_loss.then: the job fails, or has its old place in the queue. See the decision record.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

// Gangs to begin anew that one pass keeps seats for; those beyond have their place in the queue.
inline constexpr std::size_t kGangsHeldMax = 1'000;

// Gives seats to the gangs that lost ranks, as many as there are, and keeps them.
void place_broken(Desk& desk);

// A program's gang is to begin anew: its seats are held from now on, unless that was for its user's
// failure. Again where its coordinator begins anew.
void hold_seats(Desk& desk, JobId job);
bool holds_seats(const Desk& desk, const JobRecord& job);
// on_loss.wait is over, and the job goes on waiting.
void end_hold(Desk& desk, JobId job);
// As far as the ledger says; 0: nothing was.
std::int64_t held_until_unix_ms(const JobRecord& job);

// What is held for the job, by node.
using HeldSeats = std::map<std::string, scheduler::Amount>;
// Lets go of it, and says what it was.
HeldSeats lift_seats(Desk& desk, JobId job);
void keep_seats(Desk& desk, JobId job, const HeldSeats& seats);

// Programs of the job that a lost worker may still run, which nobody but time fences.
bool is_fenced(const Desk& desk, const JobRecord& job);
// The same, and says so.
bool is_fenced_off(Desk& desk, JobId job);

}  // namespace tutti::coordinator
