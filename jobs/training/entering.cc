// How a rank comes to the base step of a generation.
#include "jobs/training/trainer.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <type_traits>
#include <utility>

#include "jobs/checkpoint/checkpoint_reader.h"
#include "kernels/collective/collectives.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/float_mode.h"
#include "protocol/base/log.h"
#include "protocol/base/sha256.h"

namespace tutti::training {
namespace {

// What ranks show each other once they stand at the base step.
struct Standing {
  std::uint64_t step = 0;
  kernels::Hash128 weights;
  kernels::Hash128 optimizer;  // of senders and receivers of a copy, else zero
  std::uint64_t flags = 0;
  std::uint64_t save_is_missing = 0;
  kernels::Hash128 profile;
};
static_assert(sizeof(Standing) == 72);

// Some hundred lines of a hundred characters are usual.
constexpr std::uint64_t kChoiceBytesMax = 1 << 20;

kernels::Hash128 hash_of(std::string_view text) {
  const std::string digits = sha256_hex(text);
  const auto half = [&](std::size_t from) {
    return std::stoull(digits.substr(from, 16), nullptr, 16);
  };
  return {half(0), half(16)};
}

// What ranks agree on beside the profile; nothing where losses are not scaled.
std::string scale_text(const LossScale& scale) {
  if (scale == LossScale{}) return "";
  return fmt::format(", losses scaled by {} ({} good steps, {} skipped)", scale.value,
                     scale.good_steps, scale.skipped);
}

bool receives(const EnterPlan& plan, std::uint32_t rank) {
  return std::any_of(plan.copies.begin(), plan.copies.end(),
                     [&](const Copy& copy) { return copy.to == rank; });
}
bool sends(const EnterPlan& plan, std::uint32_t rank) {
  return std::any_of(plan.copies.begin(), plan.copies.end(),
                     [&](const Copy& copy) { return copy.from == rank; });
}

}  // namespace

Result<Entered> Trainer::enter(kernels::Communicator& group, const EnterPlan& plan) {
  const kernels::FloatModeScope float_mode;
  generation_ = plan.generation;
  job_failed_ = false;
  Entered entered;
  const bool holds = (state_.whole && state_.step == plan.base_step) ||
                     (pending_ && pending_->step == plan.base_step);
  const bool newcomer = !holds && receives(plan, group.rank());
  if (newcomer) {
    pending_.reset();
    state_.whole = false;
  } else {
    auto reached = reach_base(plan, entered);
    if (!reached) return reached.error();
  }
  if (auto shared = share_choices(group); !shared) return shared.error();
  compare_profile();
  if (sends(plan, group.rank())) {
    if (auto current = state_.bring_to_host(); !current) return current.error();
  }
  auto copied = copy_states(group, plan);
  if (!copied) return copied.error();
  entered.copied_bytes += *copied;
  entered.step = state_.step;
  auto agreed = agree(group, plan, entered);
  if (!agreed) return agreed.error();
  auto tree = kernels::ShardTree::create(std::max(1U, job_.spec.parallel.shards),
                                         job_.spec.train.batch, group.size());
  if (!tree) return fail_job(tree.error());
  if (auto current = state_.bring_to_device(); !current) return current.error();
  reduction_.emplace(job_.decoder.layout(), *tree, group.rank(), ctx_.device);
  entered.finished = std::exchange(finished_, std::nullopt);
  progress_.step.store(state_.step, std::memory_order_relaxed);
  return entered;
}

// Without a peer's help.
Result<> Trainer::reach_base(const EnterPlan& plan, Entered& entered) {
  if (state_.whole && state_.step == plan.base_step) {
    pending_.reset();
    return {};
  }
  if (pending_ && pending_->step == plan.base_step) {
    auto record = commit_pending();
    if (!record) return record.error();
    finished_ = *record;
    return {};
  }
  pending_.reset();
  progress_.enter(Phase::loading);
  if (!plan.checkpoint.empty()) {
    auto bytes = load_newest(plan);
    if (!bytes) return bytes.error();
    entered.copied_bytes = *bytes;
    return {};
  }
  if (plan.base_step != 0) {
    return Error{ErrorCode::not_found,
                 fmt::format("no checkpoint is named for step {}", plan.base_step)};
  }
  return initialise();
}

// One table of algorithms for the group, before its first product: that of a rank that has computed
// with one, else one that a checkpoint carried, else what rank 0's machine chooses.
Result<> Trainer::share_choices(kernels::Communicator& group) {
  if (ctx_.device == nullptr) return {};
  std::vector<std::uint64_t> claims(group.size());
  claims[group.rank()] = rehearsed_ ? 2 : (choices_loaded_ ? 1 : 0);
  std::vector<std::span<std::byte>> blocks;
  for (std::uint64_t& claim : claims) {
    blocks.push_back(std::as_writable_bytes(std::span(&claim, 1)));
  }
  auto shared = kernels::all_gather(group, blocks);
  if (!shared) return shared;
  const auto root = static_cast<std::uint32_t>(std::ranges::max_element(claims) - claims.begin());
  if (root == group.rank()) {
    if (auto rehearsed = rehearse(); !rehearsed) return rehearsed;
  }
  const std::string own = ctx_.device->choice_table();
  std::uint64_t bytes = own.size();
  shared = kernels::broadcast(group, root, std::as_writable_bytes(std::span(&bytes, 1)));
  if (!shared) return shared;
  if (bytes > kChoiceBytesMax) {
    return Error{ErrorCode::corrupt, fmt::format("a table of algorithms of {} bytes", bytes)};
  }
  std::string table = root == group.rank() ? own : std::string(bytes, ' ');
  shared = kernels::broadcast(group, root, std::as_writable_bytes(std::span(table)));
  if (!shared) return shared;
  if (table != own) {
    if (auto adopted = adopt_choices(table); !adopted) return adopted;
  }
  return rehearse();
}

Result<> Trainer::adopt_choices(const std::string& table) {
  rehearsed_ = false;
  auto adopted = ctx_.device->adopt_choices(table);
  if (!adopted) return fail_job(adopted.error());
  return {};
}

// Once it is known what this run computes with.
void Trainer::compare_profile() {
  if (!loaded_profile_) return;
  const auto [folder, profile] = *std::exchange(loaded_profile_, std::nullopt);
  if (profile == numerics_profile()) return;
  TUTTI_LOG_WARNING("training",
                    "{} was made in numerics profile {}; steps from here on have the bits of {}",
                    folder, profile, numerics_profile());
}

// Before anyone is told the profile.
Result<> Trainer::rehearse() {
  if (ctx_.device == nullptr || rehearsed_) return {};
  const auto gradients = gradients_.rehearse(ctx_, state_.working_weights());
  if (!gradients) return fail_job(gradients.error());
  if (job_.optimizer->rehearse != nullptr) {
    auto done = job_.optimizer->rehearse(ctx_, job_.decoder.layout(), *gradients);
    if (!done) return fail_job(done.error());
  }
  rehearsed_ = true;
  TUTTI_LOG_INFO("training", "numerics profile {}", numerics_profile());
  return {};
}

// The checkpoint of the plan; or, where it does not verify, the newest one before it that does; or
// the beginning.
Result<std::uint64_t> Trainer::load_newest(const EnterPlan& plan) {
  const std::string& resume = job_.spec.train.resume;
  std::string folder = plan.checkpoint;
  std::uint64_t step_max = plan.base_step;
  for (;;) {
    auto loaded = load(folder);
    if (loaded) return loaded;
    if (loaded.error().code == ErrorCode::invalid_argument || folder == resume) {
      return fail_job(loaded.error());
    }
    TUTTI_LOG_WARNING("training", "checkpoint not used: {}", loaded.error().message);
    const auto found =
        step_max == 0 ? std::nullopt : checkpoint::newest_valid(plan.root, step_max - 1);
    if (!found && resume.empty()) break;
    folder = found ? found->folder.string() : resume;
    step_max = found ? found->step : 0;
  }
  auto initialised = initialise();
  if (!initialised) return initialised.error();
  return std::uint64_t{0};
}

Result<std::uint64_t> Trainer::load(const std::string& folder) {
  state_.whole = false;
  state_.host_written();
  std::vector<std::string> names(job_.optimizer->states.begin(), job_.optimizer->states.end());
  auto loaded = checkpoint::load(folder, {.decoder = job_.decoder,
                                          .weights = state_.weights(),
                                          .optimizer = std::string(job_.optimizer->name),
                                          .states = std::move(names),
                                          .state_values = state_.optimizer(),
                                          .packed = job_.optimizer->packed,
                                          .weights_beside = job_.optimizer->model != nullptr});
  if (!loaded) return loaded.error();
  auto hashed = hash_weights();
  if (!hashed) return hashed.error();
  if (kernels::to_string(state_.weights_hash) != loaded->entry.weights) {
    return Error{ErrorCode::corrupt, folder + ": its weights do not have the hash that it states"};
  }
  loaded_profile_.emplace(folder, loaded->entry.profile);
  // Algorithms of another kind of device or library are none for this one.
  if (ctx_.device != nullptr && !loaded->entry.choices.empty() &&
      loaded->entry.profile.starts_with(ctx_.device->profile())) {
    if (auto adopted = adopt_choices(loaded->entry.choices); !adopted) return adopted.error();
    choices_loaded_ = true;
  }
  state_.step = loaded->entry.step;
  // A checkpoint of another precision has none.
  state_.loss_scale = first_scale(job_.spec.train);
  if (const auto& scale = loaded->entry.loss_scale; scale && scales_losses(job_.spec.train)) {
    state_.loss_scale = {scale->value, scale->good_steps, scale->skipped_steps};
  }
  state_.whole = true;
  return loaded->bytes;
}

Result<> Trainer::initialise() {
  state_.whole = false;
  state_.host_written();
  const std::string& path = job_.spec.model.path;
  if (path.empty()) {
    job_.decoder.initialise(host_, job_.spec.train.seed, state_.weights());
  } else {
    auto loaded = models::load_weights(job_.decoder, path, state_.weights());
    if (!loaded) return fail_job(loaded.error());
  }
  optimizers::begin_states(*job_.optimizer, state_.weights(), state_.optimizer());
  state_.step = 0;
  state_.loss_scale = first_scale(job_.spec.train);
  state_.whole = true;
  return hash_weights();
}

// One exchange in which every rank takes part, so that numbers of groups agree. The bytes received.
Result<std::uint64_t> Trainer::copy_states(kernels::Communicator& group, const EnterPlan& plan) {
  if (plan.copies.empty()) return std::uint64_t{0};
  progress_.enter(Phase::copying);
  const std::uint32_t rank = group.rank();
  std::vector<std::span<float>> arenas = {state_.weights()};
  arenas.insert(arenas.end(), state_.optimizer().begin(), state_.optimizer().end());
  std::uint64_t step = state_.step;
  LossScale loss_scale = state_.loss_scale;
  static_assert(std::is_trivially_copyable_v<LossScale>);
  std::vector<kernels::Transfer> transfers;
  const auto move = [&](kernels::Transfer::Direction direction, std::uint32_t peer) {
    transfers.push_back({direction, peer, std::as_writable_bytes(std::span(&step, 1))});
    if (scales_losses(job_.spec.train)) {
      transfers.push_back({direction, peer, std::as_writable_bytes(std::span(&loss_scale, 1))});
    }
    for (const std::span<float> arena : arenas) {
      transfers.push_back({direction, peer, std::as_writable_bytes(arena)});
    }
  };
  std::uint64_t received = 0;
  for (const Copy& copy : plan.copies) {
    if (copy.from == rank) move(kernels::Transfer::Direction::send, copy.to);
    if (copy.to != rank) continue;
    move(kernels::Transfer::Direction::receive, copy.from);
    state_.whole = false;
    pending_.reset();
    state_.host_written();
    received = state_.bytes();
  }
  auto exchanged = group.exchange(transfers);
  if (!exchanged) return exchanged.error();
  if (received == 0) return received;
  state_.step = step;
  state_.loss_scale = loss_scale;
  state_.whole = true;
  auto hashed = hash_weights();
  if (!hashed) return hashed.error();
  return received;
}

// No committed checkpoint holds the state. That of step 0 is made again from the spec.
bool Trainer::save_is_missing(const EnterPlan& plan) const {
  if (state_.step == 0) return false;
  const auto folder = std::filesystem::path(plan.root) / checkpoint::step_folder_name(state_.step);
  return !checkpoint::verify(folder, checkpoint::Depth::sizes);
}

// All ranks stand at one step with equal weights, those of a copy also with equal optimizer states;
// and whether that state is to be saved, as rank 0 sees the folder, and left, as any rank says.
Result<> Trainer::agree(kernels::Communicator& group, const EnterPlan& plan, Entered& entered) {
  auto hashed = hash_optimizer(plan, group.rank());
  if (!hashed) return hashed;
  std::vector<Standing> standings(group.size());
  standings[group.rank()] = {state_.step,
                             state_.weights_hash,
                             optimizer_hash_,
                             agreed_flags_ | plan.flags,
                             group.rank() == 0 && save_is_missing(plan) ? 1ULL : 0ULL,
                             hash_of(numerics_profile() + scale_text(state_.loss_scale))};
  std::vector<std::span<std::byte>> blocks;
  for (Standing& standing : standings)
    blocks.push_back(std::as_writable_bytes(std::span(&standing, 1)));
  auto gathered = kernels::all_gather(group, blocks);
  if (!gathered) return gathered.error();
  kernels::Hash128 optimizer;
  for (std::uint32_t peer = 0; peer < group.size(); ++peer) {
    const Standing& other = standings[peer];
    entered.flags |= other.flags;
    if (other.step != state_.step) {
      return Error{ErrorCode::corrupt,
                   fmt::format("rank {} stands at step {}, this rank at step {}", peer, other.step,
                               state_.step)};
    }
    if (other.profile != standings[0].profile) {
      return fail_job(
          {ErrorCode::stale,
           fmt::format("rank {} and rank 0 compute in different numerics profiles, this "
                       "rank in {}: they have met other products, or cannot run rank 0's "
                       "algorithms",
                       peer, numerics_profile() + scale_text(state_.loss_scale))});
    }
    if (other.weights != state_.weights_hash) {
      return fail_job(
          {ErrorCode::internal, fmt::format("at step {} rank {} has weights {}, this rank {}",
                                            state_.step, peer, kernels::to_string(other.weights),
                                            kernels::to_string(state_.weights_hash))});
    }
    if (other.optimizer == kernels::Hash128{}) continue;
    if (optimizer == kernels::Hash128{}) optimizer = other.optimizer;
    if (other.optimizer == optimizer) continue;
    return fail_job(
        {ErrorCode::internal,
         fmt::format("at step {} rank {} has optimizer states {}, another rank {}", state_.step,
                     peer, kernels::to_string(other.optimizer), kernels::to_string(optimizer))});
  }
  const bool wanted = job_.saves_after(state_.step) || (entered.flags & kFlagSave) != 0;
  entered.save_is_due = wanted && standings[0].save_is_missing != 0;
  agreed_flags_ = entered.flags;
  return {};
}

// A copy is checked whole: a wrong optimizer state would show in the weights of the next step only.
Result<> Trainer::hash_optimizer(const EnterPlan& plan, std::uint32_t rank) {
  optimizer_hash_ = {};
  const bool copies = std::any_of(plan.copies.begin(), plan.copies.end(), [&](const Copy& copy) {
    return copy.from == rank || copy.to == rank;
  });
  if (!copies) return {};
  std::vector<kernels::Hash128> hashes;
  std::vector<kernels::Hash128> blocks;
  for (const std::span<float> arena : state_.optimizer()) {
    blocks.resize(
        static_cast<std::size_t>(kernels::grid_blocks(static_cast<kernels::Index>(arena.size()))));
    auto hashed = kernels::hash_blocks(host_, arena, blocks);
    if (!hashed) return hashed;
    hashes.push_back(kernels::combine_hashes(blocks));
  }
  optimizer_hash_ = kernels::combine_hashes(hashes);
  return {};
}

Result<> Trainer::hash_weights() {
  std::size_t block = 0;
  for (const models::Parameter& parameter : job_.decoder.layout().parameters()) {
    const auto blocks = static_cast<std::size_t>(
        kernels::grid_blocks(static_cast<kernels::Index>(parameter.elements)));
    auto hashed =
        kernels::hash_blocks(host_, state_.weights().subspan(parameter.offset, parameter.elements),
                             std::span(block_hashes_).subspan(block, blocks));
    if (!hashed) return hashed;
    block += blocks;
  }
  state_.weights_hash = kernels::combine_hashes(block_hashes_);
  return {};
}

}  // namespace tutti::training
