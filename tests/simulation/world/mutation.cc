#include "tests/simulation/world/mutation.h"

#include <algorithm>

namespace tutti::simulation {

namespace {

using enum Mutation;

const MutationRow kMutations[] = {
    {speak_before_sync, "speak-before-sync", "I1 I2 I5 I11 I14", "chaos",
     "effects leave, and the sync comes some time later"},
    {forget_journal, "forget-journal", "I1 I7 I11", "chaos", "a restart reads the snapshot only"},
    {lose_key, "lose-key", "I2 I11", "clients", "the journal does not hold the keys of submits"},
    {drop_key, "drop-key", "I2", "clients", "the coordinator is not told the keys of submits"},
    {replay_twice, "replay-twice", "I11", "chaos", "a restart applies some facts twice"},
    {refuse_and_keep, "refuse-and-keep", "I1", "calm", "a client is refused and its job runs"},
    {obey_old_generation, "obey-old-generation", "I3", "chaos",
     "a rank forms a group of an older generation"},
    {outlive_silence, "outlive-silence", "I3 I6", "cut-programs",
     "a cut-off worker does not end its programs"},
    {form_incomplete, "form-incomplete", "I4", "calm", "a group begins without its last rank"},
    {miscount_free, "miscount-free", "I5", "calm", "a node shows one more free slot"},
    {report_exit_early, "report-exit-early", "I6 I3", "clients",
     "a process is said to be gone while it runs"},
    {revive_ended, "revive-ended", "I7 I11", "chaos", "a restart forgets that jobs have ended"},
    {blame_user, "blame-user", "I8", "chaos", "a SIGKILL from elsewhere is charged to the user"},
    {kill_on_silence, "kill-on-silence", "I10", "chaos",
     "a worker ends its ranks when the coordinator is silent"},
    {skip_sample, "skip-sample", "I12", "calm", "a shard is left out of one step"},
    {claim_part, "claim-part", "I14", "calm", "a rank says that a part is written, and it is not"},
    {lose_steps, "lose-steps", "I12", "powerless",
     "a checkpoint counts before the records of its steps are synced"},
    {copy_unsynced, "copy-unsynced", "I12", "unheard",
     "a state is copied before the records of its steps are synced"},
    {load_other_state, "load-other-state", "I13", "chaos", "a newcomer's copy is not the peer's"},
    {lose_events, "lose-events", "I15", "calm", "some events are not journalled"},
    {ack_unstored, "ack-unstored", "I15", "calm", "logs are acknowledged and not stored"},
    {drop_answer, "drop-answer", "I18", "calm", "some requests are never answered"},
    {answer_twice, "answer-twice", "I18", "calm", "requests are answered twice"},
    {lose_orders, "lose-orders", "I17 I9", "calm", "no FormGroup ever leaves"},
    {swallow_finish, "swallow-finish", "I17", "pair", "no RankFinished ever arrives"},
    {hide_slots, "hide-slots", "I9", "chaos", "workers say that they have no slots"},
    {forget_drain, "forget-drain", "I16", "drains", "a drain is answered and forgotten"},
    {lose_at_once, "lose-at-once", "array", "tasks", "arrays are submitted without their limit"},
    {lose_dependencies, "lose-dependencies", "dependency", "tasks",
     "jobs are submitted without what they wait for"},
    {lose_priority, "lose-priority", "place", "sharing", "jobs are submitted without a priority"},
    {lose_quotas, "lose-quotas", "quota", "sharing", "the coordinator is not told of quotas"},
    {keep_quotas, "keep-quotas", "quota", "rations", "new quotas are answered and not applied"},
    {lose_labels, "lose-labels", "fit", "picky", "jobs are submitted without their labels"},
    {lose_device, "lose-device", "fit", "picky", "jobs are submitted for any kind of device"},
    {lose_memory, "lose-memory", "I5", "picky", "jobs are submitted without their memory"},
    {lose_cores, "lose-cores", "I5", "picky", "jobs are submitted without their cores"},
    {hide_refusal, "hide-refusal", "I8", "refusing",
     "a program that could not be started is said to have ended by itself"},
    {lose_budget, "lose-budget", "I8", "failing",
     "jobs are submitted with more retries than they may have"},
    {lose_device_memory, "lose-device-memory", "fit", "picky",
     "jobs are submitted without their device's memory"},
    {claim_profile, "claim-profile", "fit", "picky", "workers with GPUs say they are portable"},
    {lose_delay, "lose-delay", "begin", "picky", "jobs are submitted to start at once"},
    {more_ranks, "more-ranks", "I4", "sharing", "jobs may grow to twice what was asked for"},
    {lose_wait, "lose-wait", "held", "gangs", "jobs are submitted without their on_loss.wait"},
    {outlive_limit, "outlive-limit", "backfill", "fitting",
     "programs that were put before the head go on after their limit"},
    {one_owner, "one-owner", "turn", "aging", "all jobs are submitted as one user's"},
    {old_clock, "old-clock", "turn", "aging", "the coordinator's clock does not go on by days"},
    {raise_priority, "raise-priority", "I9 place", "sharing",
     "every other job is submitted with a higher priority", "is preempted and no job"},
    {pass_heartbeats, "pass-heartbeats", "I10", "cut-programs",
     "heartbeats of a worker that is cut off arrive", "and is not lost"},
    {claim_slots, "claim-slots", "I19 I4 I5 I6", "crowd", "workers say that they have more slots",
     "more processes than slots"},
    {many_owners, "many-owners", "I19", "crowd", "each job is submitted as another user's",
     "the use of more users"},
    {promise_late, "promise-late", "backfill", "fitting",
     "the head of the queue is told a start an hour later", "is told to start"},
    {hide_holders, "hide-holders", "backfill", "fitting",
     "the head of the queue is told one alone of those who must end",
     "waits though all have ended"},
    {keep_history, "keep-history", "I19", "crowd", "ended jobs are kept without a bound"},
};

}  // namespace

std::span<const MutationRow> mutations() { return kMutations; }

const MutationRow* find_mutation(std::string_view name) {
  const auto* at = std::find_if(std::begin(kMutations), std::end(kMutations),
                                [&](const MutationRow& row) { return row.name == name; });
  return at == std::end(kMutations) ? nullptr : at;
}

}  // namespace tutti::simulation
