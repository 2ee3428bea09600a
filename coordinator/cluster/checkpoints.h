// A checkpoint's two phases: parts from all ranks, then one rank renames the folder into place
// (I14).
//
//   CheckpointPart from every rank -> CommitCheckpoint to one living rank, another one if it is
//   lost or silent -> CheckpointCommitted
//
// That a commit is ordered is journalled first, and none that was ordered is pruned before a newer
// one is known: which of them are there, only their ranks could say, and those may be lost.
//
// One is open at a time. Its parts belong to one generation and die with it; once whole it does not
// need that generation any more and waits for a rank that can commit it. Failure is an event, never
// the job's end.
#pragma once

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

void on_report(Desk& desk, const wire::CheckpointPart& report);
void on_report(Desk& desk, const wire::CheckpointCommitted& report);

// Orders the commit of a whole checkpoint, if nobody is at it.
void advance_commit(Desk& desk, JobId job);
void check_checkpoint_deadlines(Desk& desk, JobId job);

}  // namespace tutti::coordinator
