// What a worker and the ranks that it started tell each other, over the socket pair that the rank
// was born with.
//
// Most of these are the coordinator's orders and the ranks' reports, passed on by the worker
// unchanged: a rank is steered by (job, generation, process). A *process* is one start of one rank
// program; a *generation* is one forming of a job's group. A process that survives a loss joins the
// next generation with its state in memory.
//
//   StartRank ->            the process begins
//          <- RankReady     it listens, and says which state it holds
//   FormGroup ->            addresses of all, the step to begin at, who copies from whom
//          <- GroupFormed   it stands at the base step with everybody connected
//          <- StepReported  ... one a training step
//   AbortGeneration ->      leave the group at once, keep the state
//   Regroup(g+1) ->         listen anew  <- RankReady(g+1) ...
//          <- RankFinished  nothing left to do; it waits for StopRank
//
// Ownership: plain values. Units: as named. A field that is missing on the wire has the default
// given here.
#pragma once

#include <variant>

#include "protocol/wire/rank_orders.h"
#include "protocol/wire/rank_reports.h"

namespace tutti::wire {

using ToRank = std::variant<StartRank, Regroup, FormGroup, AbortGeneration, StopRank,
                            CommitCheckpoint, SetFlags>;
using FromRank =
    std::variant<RankReady, GroupFormed, GenerationBroken, FirstStepDone, CheckpointPart,
                 CheckpointCommitted, RankFinished, StepReported, RankProgress>;

}  // namespace tutti::wire
