// What a kind of job does in a rank: opened once, then one group after the other. A table of kinds.
//
// Threads: interrupt(), raise_flags(), progress(), collective() and, once set up, commit() from any
// thread; everything else on the computing thread, one call at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "jobs/rank/rank_messages.h"
#include "jobs/training/progress.h"
#include "kernels/tensor/open_device.h"
#include "protocol/base/result.h"

namespace tutti::rank {

// Tells the state machine what happened; on the computing thread.
using EventSink = std::function<void(Event)>;

class Work {
 public:
  virtual ~Work() = default;

  // Opens what the job is made of. Errors: the user's and the system's, one line.
  virtual Result<> set_up(const wire::StartRank& order) = 0;

  // Leaves the old group for good and listens for the next; the address. Forgets flags and
  // interruptions.
  virtual Result<std::string> listen(const BeginListening& order) = 0;
  virtual wire::HeldState held() const = 0;

  // Joins the group and works in it; events to `sink`, the last of them GroupLeft or Finished.
  virtual void run_group(const BeginGroup& order, const EventSink& sink) = 0;

  // The folder of the committed checkpoint.
  virtual Result<std::string> commit(const wire::CommitCheckpoint& order) = 0;

  // run_group leaves its group as soon as it can, keeping its state.
  virtual void interrupt(const std::string& reason) = 0;
  virtual void raise_flags(const RaiseFlags& flags) = 0;
  // The process is to end: run_group finishes what others wait for, takes nothing more on, and
  // leaves. False: there is nothing of the kind.
  virtual bool wind_down() { return false; }

  virtual const training::Progress& progress() const = 0;
  // Number of the collective that it is in or did last, within the generation.
  virtual std::uint64_t collective() { return 0; }
};

struct WorkKind {
  std::string_view kind;  // as in StartRank
  std::unique_ptr<Work> (*make)();
};

std::span<const WorkKind> work_kinds();

// Threads never change a result, so an order for more than a pool takes is no error.
int threads_of(const wire::StartRank& order);

// The device that this rank computes on: $TUTTI_DEVICE, as its worker has it, else cpu. Of several
// GPUs a rank has the one with its slot's number.
std::string device_of_rank(const wire::StartRank& order);

// That device, opened and said; null: the CPU.
Result<std::unique_ptr<kernels::Device>> open_rank_device(
    const wire::StartRank& order, kernels::Precision precision = kernels::Precision::fp32);

// A job's bits are those of one numerics profile; `own`: this rank's. Errors: stale, as what this
// machine has loaded is not what its worker told.
Result<> check_profile(const wire::StartRank& order, std::string_view own);

// Whose failure an error is that ends the job.
wire::FailureClass failure_of(ErrorCode code);

// Whose failure it is that a group that stood has broken. Ranks that are at different collectives,
// or say different lengths, are Tutti's own; else nobody in the group knows (none).
wire::FailureClass failure_of_group(ErrorCode code);

// The end of a rank whose device has failed: whatever error showed it, the rank cannot go on, and
// its place is for another process. Nothing: the device, if there is one, still works.
std::optional<Finished> end_of_device(kernels::Device* device, std::uint64_t step);

// The end of a rank by an error of its job. Memory that it needs and that is not there is the
// user's to change, as no retry helps.
Finished end_of_job(const Error& error, std::uint64_t step);

}  // namespace tutti::rank
