// The training of one rank: its state, the joining of a generation, and the step with its commit.
//
//   enter(group, plan)   stand at the base step: hold it, finish what is pending, receive it from
//                        a peer, load it, or initialise
//   step(group, flags)   forward, backward, exchange -> pending -> votes of all -> update in place
//
// The step commit (DESIGN jobs). A rank votes once it holds the reduced gradients, their norm and
// the flags of all: everything that the update needs. With all votes in it updates without another
// word, so that the votes of all mean that every rank can make the step, whatever happens next.
// What is pending is kept until then: after a loss, a rank that got all votes stands at t + 1, and
// every survivor can follow it there alone.
//
// Ownership: keeps references to the job and the progress. Threads: one.
// A step whose gradients are not finite ends the job; in fp16 it changes no weight, is recorded as
// skipped, and the next one has losses of half the scale (loss_scale.h).
//
// Errors: the communicator's leave the state as held() says. job_failed() tells the errors that end
// the job (a gradient that is not finite, data that cannot be read) from those that end the group.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "jobs/checkpoint/checkpoint_writer.h"
#include "jobs/training/progress.h"
#include "jobs/training/step_record.h"
#include "jobs/training/step_reduction.h"
#include "jobs/training/training_job.h"
#include "jobs/training/training_state.h"
#include "kernels/collective/collectives.h"
#include "kernels/tensor/thread_pool.h"
#include "protocol/base/clock.h"

namespace tutti::training {

// Which state a rank could go on from.
struct Held {
  bool whole = false;
  std::uint64_t step = 0;
  std::uint64_t pending = 0;  // step + 1, or 0: none

  bool operator==(const Held&) const = default;
};

struct Copy {
  std::uint32_t from = 0;
  std::uint32_t to = 0;
};

struct EnterPlan {
  std::uint64_t generation = 0;
  std::uint64_t base_step = 0;
  std::string checkpoint = {};  // folder of the state of base_step; empty: none
  // <job folder>/checkpoints, searched for an older one if that does not verify.
  std::string root = {};
  std::vector<Copy> copies = {};  // who sends the state to whom
  std::uint64_t flags = 0;        // raised in this rank already
};

struct Entered {
  std::uint64_t step = 0;
  std::uint64_t copied_bytes = 0;
  // The step that was finished here, without the others: its record, which the rank that got all
  // votes may have taken with it.
  std::optional<StepRecord> finished = {};
  // The state is one that the run saves, and no checkpoint of it was committed: the loss came in
  // between.
  bool save_is_due = false;
  // Of the step that the state stands after, where some rank has not acted on them yet: what had
  // been agreed when the group broke. All ranks get the same.
  std::uint64_t flags = 0;
};

struct StepOutcome {
  StepRecord record;
  std::uint64_t flags = 0;  // of all ranks
};

class Trainer {
 public:
  // `progress` is told where the rank is; it outlives the trainer.
  // With a device, steps are made on it; it outlives the trainer too. `rounding`: of what products
  // and attention read on the CPU (rounding.h); a device has its own.
  Trainer(const TrainingJob& job, int threads, Progress& progress,
          kernels::Device* device = nullptr, std::optional<kernels::Rounding> rounding = {});

  Held held() const;
  const TrainingState& state() const { return state_; }

  Result<Entered> enter(kernels::Communicator& group, const EnterPlan& plan);

  // Errors: those of the group, whether it was aborted, a peer is gone or its library found
  // something, at once: also between micro-batches and while a device computes.
  Result<StepOutcome> step(kernels::Communicator& group, std::uint64_t flags);

  // The flags of the last step were acted on: they do not ask again.
  void flags_honoured() { agreed_flags_ = 0; }

  // Whether the last error is the job's own and not the group's.
  bool job_failed() const { return job_failed_; }

  // What the ranks write of the state as it stands, once it was brought to the host.
  Result<> bring_to_host() { return state_.bring_to_host(); }
  checkpoint::CheckpointState checkpoint_state() const;

 private:
  // All that is needed to make the step without communication.
  struct Pending {
    std::uint64_t step = 0;
    std::uint64_t generation = 0;
    std::uint32_t ranks = 0;
    Instant begun;
    StepSums sums;
    std::span<const float> gradients;
  };

  Result<> reach_base(const EnterPlan& plan, Entered& entered);
  Result<std::uint64_t> load_newest(const EnterPlan& plan);
  Result<std::uint64_t> load(const std::string& folder);
  Result<> initialise();
  Result<std::uint64_t> copy_states(kernels::Communicator& group, const EnterPlan& plan);
  Result<> agree(kernels::Communicator& group, const EnterPlan& plan, Entered& entered);
  Result<> rehearse();
  Result<> share_choices(kernels::Communicator& group);
  Result<> adopt_choices(const std::string& table);
  void compare_profile();
  bool save_is_missing(const EnterPlan& plan) const;
  Result<> hash_optimizer(const EnterPlan& plan, std::uint32_t rank);
  Result<> hash_weights();

  Result<> compute_gradients(kernels::Communicator& group);
  Result<StepSums> reduce(kernels::Communicator& group, std::uint64_t step, std::uint64_t flags);
  Result<StepRecord> commit_pending();
  Result<> update_weights(const StepRecord& record);
  std::optional<checkpoint::ScaleEntry> scale_entry() const;
  // With the algorithms that a device has chosen.
  std::string numerics_profile() const;
  Error fail_job(Error error);

  const TrainingJob& job_;
  kernels::ThreadPool pool_;
  kernels::OpContext host_;  // what is done in host memory, whatever the device
  kernels::OpContext ctx_;
  std::optional<kernels::Rounding> rounding_;
  TrainingState state_;
  optimizers::RateSquares rate_squares_;
  std::vector<kernels::Hash128> block_hashes_;
  kernels::FloatBuffer device_hashes_;  // a hash is four floats' room
  ShardGradients gradients_;
  std::optional<StepReduction> reduction_;  // of the generation
  kernels::VoteRoom votes_;
  bool rehearsed_ = false;
  bool choices_loaded_ = false;  // with the state, from a checkpoint
  // What was loaded last and not compared yet: the checkpoint and its profile.
  std::optional<std::pair<std::string, std::string>> loaded_profile_;
  std::uint64_t generation_ = 0;
  std::optional<Pending> pending_;
  std::optional<StepRecord> finished_;  // alone, and not yet told: kept until a group is entered
  std::uint64_t agreed_flags_ = 0;      // of the step that made the state, not acted on yet
  kernels::Hash128 optimizer_hash_;     // where the state was copied in this generation
  bool job_failed_ = false;
  Progress& progress_;
};

}  // namespace tutti::training
