// Losing ranks and going on: who is to blame, what it costs, and from which step the next
// generation starts.
//
// A loss in a train or serve job aborts its generation on every survivor, in one message each;
// survivors keep their state. The scheduler then fills the empty ranks (all or none), the new
// generation gathers, and order_group decides the base step. A loss in a `run` job restarts the
// whole gang: programs cannot regroup. Further losses at any point of this just leave more ranks
// empty.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

struct Loss {
  wire::FailureClass failure = wire::FailureClass::infrastructure;
  std::string message;  // one line
  // Of the process, where its end is the cause.
  std::optional<std::int32_t> code = std::nullopt;
  std::optional<std::int32_t> signal = std::nullopt;
  bool refused = false;  // its program could not be executed
};

// The process is gone. Says so once, frees its slot, and judges.
void on_exit(Desk& desk, const wire::RankExited& exit);
void on_report(Desk& desk, const wire::GenerationBroken& report);

// A rank of the current generation cannot go on; the process was taken from the gang already.
void lose_rank(Desk& desk, JobId job, const ProcessRecord& process, const Loss& loss);
// A member that cannot go on is taken from the gang and stopped.
void give_up_rank(Desk& desk, JobId job, ProcessId member, const Loss& loss);
// The job lost ranks with a worker (those processes are taken from the gang already).
void lose_node(Desk& desk, JobId job, const std::string& worker, const std::string& reason);

// Ends the generation if it is alive. The job is recovering, or still being placed for the first
// time.
void abort_generation(Desk& desk, JobId job, const std::string& cause);
// The same for one whose ranks have all left after a common step: nobody is charged.
void end_generation(Desk& desk, JobId job, const std::string& cause);

// The survivors are about to regroup. An interruption that nobody has been charged with (a group
// that broke without a death) is infrastructure's. Whether the job may go on.
bool charge_interruption(Desk& desk, JobId job);

// All ranks are ready: base step, checkpoint and copies.
void order_group(Desk& desk, JobId job);

// A job that lost ranks goes on with those that are left, if they are enough (`of_node: shrink`, or
// `then: shrink` once the wait is over); whether it did.
bool shrink_to_survivors(Desk& desk, JobId job);

// "step 8 was done 55 ms after the loss was seen (...)".
std::string describe_recovery(const Recovery& recovery, std::uint64_t step);

// The step that the formed ranks stand at: the base step, or an older one where the checkpoints
// that they were led to did not verify. They agree among themselves.
std::uint64_t formed_step(Desk& desk, const JobRecord& job);
// Says so, where it is an older one.
void note_fallback(Desk& desk, JobId job);

// Deadlines of regrouping, forming and standing still.
void check_recovery_deadlines(Desk& desk, JobId job);

}  // namespace tutti::coordinator
