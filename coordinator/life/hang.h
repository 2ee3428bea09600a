// Ranks that stand still, and ranks that are slow.
//
// A training rank that hangs stops all the others in the next exchange. Every rank reports its
// phase, step and the number of the collective that it is in or did last, and beats once a second
// whatever it does; so the culprit has a name: who has not entered the collective that the others
// wait in, or, where all are in the same one, whose process stands still. `hang.action` says what
// follows: the rank is ended and the job recovers (restart), the job fails (fail), or an event
// tells of it (tell).
//
// A server's rank hangs where its process does not beat, or where requests are open and it makes no
// pass for longer than any takes.
//
// A rank's straggler score is the time that it computes a shard of a step, over the median of the
// ranks: 1 is ordinary.
#pragma once

#include <string>
#include <vector>

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

// What the other ranks wait for.
struct Standstill {
  ProcessId culprit;
  std::string message;  // one line, which names rank, collective, step and times
  Duration stood{0};    // the culprit, where it is
};

// The generation runs: from now on a rank that stands still is found.
void watch_for_hang(Desk& desk, JobId job);

// Takes a progress report.
void note_progress(Desk& desk, const wire::RankProgress& progress);

// Whom the ranks of a running job wait for at this moment, whether it has lasted or not; nobody if
// all are done.
Standstill find_standstill(const Desk& desk, const JobRecord& job);

// At JobSoft::hang_due: acts on a standstill that lasts, and tells of stragglers.
void check_hang(Desk& desk, JobId job);

// By rank of the gang; 0 where nothing is known yet.
std::vector<double> straggler_scores(const Desk& desk, const JobRecord& job);

}  // namespace tutti::coordinator
