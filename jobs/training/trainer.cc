#include "jobs/training/trainer.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/collective/collectives.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/float_mode.h"
#include "kernels/tensor/near_memory.h"
#include "kernels/tensor/rounding.h"

namespace tutti::training {
namespace {

// Added to the norm before dividing by it, as PyTorch does.
constexpr double kClipEpsilon = 1e-6;

// On the CPU nothing of it can go wrong but by our mistake; a device may lack an op or memory, and
// it may fail.
Error updated_in_part(Error error) {
  const bool of_device = error.code == ErrorCode::unsupported ||
                         error.code == ErrorCode::exhausted || error.code == ErrorCode::unavailable;
  if (!of_device) error.code = ErrorCode::internal;
  return error;
}

// Before the trainer's memory is made: its pages lie where this thread runs.
kernels::ThreadPool* bound(kernels::ThreadPool& pool) {
  kernels::bind_caller(pool);
  return &pool;
}

// What this rank's own device or ops refuse comes again in every group; no group says these
// (communicator.h).
bool refused_here(const Error& error) {
  return error.code == ErrorCode::invalid_argument || error.code == ErrorCode::unsupported ||
         error.code == ErrorCode::internal || error.code == ErrorCode::exhausted;
}

}  // namespace

Trainer::Trainer(const TrainingJob& job, int threads, Progress& progress, kernels::Device* device,
                 std::optional<kernels::Rounding> rounding)
    : job_(job),
      pool_(threads),
      host_{bound(pool_)},
      ctx_{&pool_, device},
      rounding_(rounding),
      state_(job.decoder, *job.optimizer, device),
      block_hashes_(job.decoder.layout().blocks().size()),
      device_hashes_(static_cast<kernels::Index>(device == nullptr ? 0 : 4 * block_hashes_.size()),
                     device),
      gradients_(job.decoder, job.dataset,
                 {.micro = job.micro(device),
                  .recompute = job.recompute(),
                  .kept = device == nullptr ? models::Kept::wide : job.kept(),
                  .rounds_weights = job.rounds_weights,
                  .in_fp8 = job.spec.train.precision == "fp8",
                  .dropout = job.spec.train.dropout,
                  .seed = job.spec.train.seed},
                 device),
      progress_(progress) {}

Held Trainer::held() const { return {state_.whole, state_.step, pending_ ? pending_->step : 0}; }

Error Trainer::fail_job(Error error) {
  job_failed_ = true;
  return error;
}

Result<StepOutcome> Trainer::step(kernels::Communicator& group, std::uint64_t flags) {
  const kernels::FloatModeScope float_mode;
  TUTTI_ASSERT(state_.whole && !pending_ && reduction_);
  const Instant begun = monotonic_now();
  const std::uint64_t step = state_.step + 1;
  progress_.step.store(step, std::memory_order_relaxed);
  progress_.enter(Phase::forward);
  auto computed = compute_gradients(group);
  if (!computed) return computed.error();
  const auto shards = std::max<std::uint64_t>(1, reduction_->tree().shards_of(group.rank()).size());
  const double took_us = to_seconds(monotonic_now() - begun) * 1e6 / static_cast<double>(shards);
  progress_.compute_us.store(static_cast<std::uint64_t>(took_us), std::memory_order_relaxed);
  progress_.enter(Phase::exchange);
  auto sums = reduce(group, step, flags);
  if (!sums) return sums.error();
  pending_ = Pending{step, generation_, group.size(), begun, *sums, gradients_.result()};
  auto votes = kernels::exchange_votes(group, {.step = step}, votes_);
  if (!votes) return votes.error();
  progress_.enter(Phase::update);
  auto record = commit_pending();
  if (!record) return record.error();
  return StepOutcome{*record, sums->flags};
}

// Where the group moves device memory, the exchange begins in here.
Result<> Trainer::compute_gradients(kernels::Communicator& group) {
  bool broken = false;  // the group is, not the job
  const auto of_group = [&broken](Result<> result) {
    broken = !result && !refused_here(result.error());
    return result;
  };
  const std::function<Result<>()> look = [&] { return of_group(group.look()); };
  const std::function<Result<>()> wait = [&] { return of_group(group.wait_for_device()); };
  models::RangeReady ready;
  if (group.size() > 1 && group.moves_device_memory()) {
    ready = [&](std::size_t index) {
      return of_group(reduction_->range_ready(ctx_, group, gradients_, index));
    };
  }
  reduction_->start_step();
  // Forward and backward only: sums of shards and the update are fp32.
  const kernels::RoundingScope rounding(rounding_);
  auto computed = gradients_.compute({.ctx = ctx_,
                                      .weights = state_.working_weights(),
                                      .tree = reduction_->tree(),
                                      .rank = group.rank(),
                                      .data_step = state_.step,
                                      .loss_scale = state_.loss_scale.value,
                                      .look = look,
                                      .wait = wait,
                                      .ready = ready});
  if (computed || broken) return computed;
  return fail_job(Error(computed.error()).with_context("step " + std::to_string(state_.step + 1)));
}

Result<StepSums> Trainer::reduce(kernels::Communicator& group, std::uint64_t step,
                                 std::uint64_t flags) {
  auto sums = reduction_->reduce(
      {.ctx = ctx_, .group = group, .gradients = gradients_, .step = step, .flags = flags});
  if (!sums && refused_here(sums.error())) return fail_job(sums.error());
  if (!sums) return sums;
  const bool scaled = scales_losses(job_.spec.train);
  if (sums->bad_parameter && !(scaled && state_.loss_scale.value > 1.0F)) {
    const auto& parameter = job_.decoder.layout().parameters()[*sums->bad_parameter];
    return fail_job({ErrorCode::invalid_argument,
                     "step " + std::to_string(step) + ": the gradient of " + parameter.name +
                         " is not finite" + (scaled ? ", also with a loss scale of 1" : "")});
  }
  return sums;
}

// In place and without communication; every rank comes to the same bits.
Result<StepRecord> Trainer::commit_pending() {
  TUTTI_ASSERT(pending_ && state_.whole && pending_->step == state_.step + 1);
  const StepSums& sums = pending_->sums;
  const auto targets = static_cast<double>(std::max<std::uint64_t>(1, sums.targets));
  StepRecord record;
  record.step = pending_->step;
  record.loss = sums.loss / targets;
  record.grad_norm =
      std::sqrt(sums.squares) / targets / static_cast<double>(state_.loss_scale.value);
  record.rate = optimizers::rate_at(job_.spec.train, *job_.schedule, record.step);
  record.tokens = sums.targets;
  record.generation = pending_->generation;
  record.ranks = pending_->ranks;
  record.loss_scale = scales_losses(job_.spec.train) ? state_.loss_scale.value : 0.0F;
  record.skipped = sums.bad_parameter.has_value();
  if (record.skipped) {
    state_.loss_scale = after_skipped_step(state_.loss_scale);
  } else {
    auto updated = update_weights(record);
    // Also on a device: the weights may be half of this step and half of the last one.
    if (!updated) return fail_job(updated_in_part(updated.error()));
    state_.loss_scale = after_good_step(state_.loss_scale, job_.spec.train);
  }
  state_.step = record.step;
  agreed_flags_ = sums.flags;
  record.weights = state_.weights_hash;
  record.profile = numerics_profile();
  record.seconds = to_seconds(monotonic_now() - pending_->begun);
  pending_.reset();
  return record;
}

// Of an error the state is whole no more.
Result<> Trainer::update_weights(const StepRecord& record) {
  const auto targets = static_cast<double>(std::max<std::uint64_t>(1, record.tokens));
  const double clip = job_.spec.train.clip;
  const double share = clip > 0 ? std::min(1.0, clip / (record.grad_norm + kClipEpsilon)) : 1.0;
  const LossScale& scale = state_.loss_scale;
  state_.whole = false;
  const std::span<kernels::Hash128> hashes =
      ctx_.device == nullptr ? std::span(block_hashes_)
                             : std::span(reinterpret_cast<kernels::Hash128*>(device_hashes_.data()),
                                         block_hashes_.size());
  auto updated = job_.optimizer->update(
      ctx_, job_.spec.train.optimizer,
      {.layout = job_.decoder.layout(),
       .weights = state_.working_weights(),
       .gradients = pending_->gradients,
       .states = state_.working_optimizer(),
       .block_hashes = hashes,
       .step = record.step - scale.skipped,
       .rate = record.rate,
       .rate_squares = rate_squares_.up_to(job_.spec.train, *job_.schedule, record.step),
       .factor = static_cast<float>(share / targets / static_cast<double>(scale.value))});
  if (updated && ctx_.device != nullptr) {
    updated = ctx_.device->download(block_hashes_.data(), hashes.data(), hashes.size_bytes());
  }
  if (!updated) return updated;
  state_.stepped();
  state_.weights_hash = kernels::combine_hashes(block_hashes_);
  state_.whole = true;
  return {};
}

std::string Trainer::numerics_profile() const {
  if (ctx_.device == nullptr) return std::string(profile_on_cpu(rounding_));
  const std::string choices = ctx_.device->choices();
  // Where products cannot continue a chain, the micro-batch decides on the bits, too.
  return fmt::format("{}{}{}-m{}", ctx_.device->profile(), choices.empty() ? "" : "-", choices,
                     job_.micro(ctx_.device));
}

std::optional<checkpoint::ScaleEntry> Trainer::scale_entry() const {
  if (!scales_losses(job_.spec.train)) return std::nullopt;
  const LossScale& scale = state_.loss_scale;
  return checkpoint::ScaleEntry{scale.value, scale.good_steps, scale.skipped};
}

checkpoint::CheckpointState Trainer::checkpoint_state() const {
  TUTTI_ASSERT(!state_.host_is_old());
  std::vector<checkpoint::NamedArena> arenas;
  std::vector<std::string> names;
  kernels::FloatBuffer model;
  if (job_.optimizer->model != nullptr) {
    model = kernels::FloatBuffer(static_cast<kernels::Index>(state_.weights().size()));
    const auto made = job_.optimizer->model(
        host_, job_.spec.train.optimizer,
        {.weights = state_.weights(), .states = state_.optimizer(), .model = model.span()});
    TUTTI_ASSERT(made.ok());
    arenas.push_back({std::string(checkpoint::kWeightsBeside), state_.weights(), nullptr});
  }
  for (std::size_t i = 0; i < job_.optimizer->states.size(); ++i) {
    names.emplace_back(job_.optimizer->states[i]);
    arenas.push_back({names.back(), state_.optimizer()[i], job_.optimizer->packed});
  }
  return {.decoder = job_.decoder,
          .weights = model.size() > 0 ? model.span() : state_.weights(),
          .optimizer = std::move(arenas),
          .entry = {.step = state_.step,
                    .generation = generation_,
                    .optimizer = std::string(job_.optimizer->name),
                    .states = std::move(names),
                    .weights = kernels::to_string(state_.weights_hash),
                    .profile = numerics_profile(),
                    .choices = ctx_.device != nullptr ? ctx_.device->choice_table() : "",
                    .loss_scale = scale_entry(),
                    .spec = job_.spec_text},
          .tokenizer = job_.tokenizer,
          .model = std::move(model)};
}

}  // namespace tutti::training
