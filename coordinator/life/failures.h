// Who is charged for a failure, whether the job may try again, and when.
//
// Three budgets that do not hide one another (I8): the user's failures (retries.user),
// infrastructure's (retries.infrastructure), and Tutti's own (three in a row at one step). Leaving
// for others (preemption, drain) is counted apart and charged to none. A rule of `retries.on` that
// matches a failure's exit code or the end of its log decides the class in the worker's place.
//
// A job that queues again after repeated failures waits a while, twice as long each time, with
// chance in it so that many do not come back together.
#pragma once

#include <cstdint>
#include <string>

#include "coordinator/cluster/desk.h"
#include "coordinator/cluster/recovery.h"

namespace tutti::coordinator {

// Tutti's own failures at one step, in a row, that end a job (DESIGN jobs).
inline constexpr std::uint32_t kOwnFailuresMax = 3;

// The first matching rule, else the worker's judgement; where it has none, the exit speaks for
// itself.
Loss judge(const JobRecord& job, const wire::RankExited& exit);
// "exited with code 1".
std::string describe_exit(const wire::RankExited& exit);

// How long a job that has failed `failures` times in a row waits before its next try; `share` is
// drawn from [0, 1). The first time not at all.
std::uint64_t backoff_ms(const JobTerms& terms, std::uint32_t failures, double share);
// The same for a job whose survivors wait with their state for a lost rank to be replaced: a second
// loss while the first is made good is nothing unusual, and costs no time either.
std::uint64_t recovery_backoff_ms(const JobTerms& terms, std::uint32_t failures, double share);

// Charges the first cause of an interruption. Whether the job may go on; else it has been failed.
bool charge(Desk& desk, JobId job, const Loss& loss);
// Charges a failure of the user's, whatever else was charged: the job fails, or queues again.
void lose_to_user(Desk& desk, JobId job, const Loss& loss);
// To the queue, after a failure that was charged: at once, or after a wait.
void queue_again(Desk& desk, JobId job, const Loss& loss);
void fail(Desk& desk, JobId job, std::int32_t exit_code, const Loss& loss);

// How long a queued job still waits before its next try.
Duration backoff_left(const Desk& desk, const JobRecord& job);

}  // namespace tutti::coordinator
