#include "jobs/training/memory_estimate.h"

#include <algorithm>

#include "jobs/models/parts/fp8_weights.h"
#include "jobs/models/training_pass.h"
#include "jobs/optimizers/optimizer.h"
#include "jobs/training/step_reduction.h"
#include "jobs/training/training_job.h"
#include "kernels/ops/attention.h"

namespace tutti::training {

namespace {

// Tokens of one call of the pass: enough for products to run near their peak (from some 512 rows
// on), few enough that activations stay small, and that a rank which is told to leave its group
// gets to hear it soon: between two calls. A call of kMicroOperations takes a core half a second.
constexpr std::uint64_t kMicroRowsMin = 512;
constexpr std::uint64_t kMicroRowsMax = 2048;
constexpr std::uint64_t kMicroOperations = 40'000'000'000;
// Multiplications and additions a parameter and token, forward and backward.
constexpr std::uint64_t kOperationsPerWeight = 6;

// A device's products reach their rate from some thousands of rows on; and what it reads for each
// call, the weights above all, is shared by so many (kernels/lab/gpu.md). Activations of a call
// take a fifth of the smallest card with 80 GB at most: a constant, as the micro-batch decides on
// bits there, which are to be a job's and not a card's (decision 0101).
constexpr std::uint64_t kDeviceRowsMax = 8192;
constexpr std::uint64_t kDeviceActivationsMax = std::uint64_t{16} << 30;

// As the loss of a device cuts its rows (kernels/cuda/loss.cu).
constexpr std::uint64_t kLogitsHeld = std::uint64_t{1} << 26;
constexpr std::uint64_t kLossRowsMin = 256;
constexpr std::uint64_t kLossRowsMax = 8192;

// Sums that stand at once while subtrees are added depth first (shard_gradients.h).
std::uint64_t gradient_buffers(const kernels::ShardTree& tree, std::uint64_t rank) {
  std::uint64_t most = 1;
  std::uint64_t held = 0;
  for (const kernels::TreeNode& node : tree.subtrees_of(rank)) {
    most = std::max(most, held + node.level + 1);
    ++held;
  }
  return most;
}

std::uint64_t samples_of(const kernels::ShardTree& tree, std::uint64_t rank) {
  const kernels::IndexRange shards = tree.shards_of(rank);
  std::uint64_t samples = 0;
  for (std::uint64_t shard = shards.begin; shard < shards.end; ++shard) {
    samples += tree.samples_of(shard).size();
  }
  return samples;
}

enum class Weights { rounded, wide };  // as products find them, where rows are kept rounded

// Logits of a chunk of rows; and where inputs are rounded, their gradient beside the operands of a
// product, or the largest two of another product, or those of attention with what it sums beside
// them. Where rows are kept rounded, what is left is the stream's gradient with what attention
// gave, or one of them with a weight.
std::uint64_t scratch_bytes(const spec::JobSpec& spec, const models::DecoderDescription& d,
                            std::uint64_t rows, Weights weights) {
  const std::uint64_t vocabulary = d.vocabulary_rows();
  const std::uint64_t chunk =
      std::min(rows, std::clamp(kLogitsHeld / d.vocabulary, kLossRowsMin, kLossRowsMax));
  const std::uint64_t logits = chunk * vocabulary * sizeof(float);
  const bool attention_too = is_in_bf16(spec);
  if (!attention_too && spec.train.precision != "fp16") return logits;
  const std::uint64_t width = std::max<std::uint64_t>(d.width, d.query_width());
  const models::Kept kept = kept_of(spec, d);
  const bool wide = kept == models::Kept::wide;
  const bool weights_too = wide || weights == Weights::wide;
  const std::uint64_t in_loss =
      chunk * (vocabulary + (wide ? d.width : 0)) + (weights_too ? vocabulary * d.width : 0);
  const std::uint64_t outputs = std::max(d.feed_forward, d.query_width());
  const std::uint64_t weight = weights_too ? outputs * d.width : 0;
  const std::uint64_t in_layer = wide ? rows * (d.feed_forward + width) + weight
                                      : rows * width + std::max(rows * width, weight);
  // The gradient of what it gave, and its sums with that; queries, keys and values.
  std::uint64_t in_attention = attention_too ? rows * (d.query_width() + 2 * d.heads) : 0;
  if (attention_too && kept != models::Kept::attention) {
    in_attention += rows * (d.query_width() + 2 * d.kv_width());
  }
  const std::uint64_t rounded = std::max({in_loss, in_layer, in_attention}) * sizeof(std::uint16_t);
  if (spec.train.precision != "fp8") return logits + rounded;
  // Codes of rows and of a weight, with their scales.
  const std::uint64_t widest = std::max<std::uint64_t>(d.width, outputs);
  const std::uint64_t codes =
      rows * widest + (weights == Weights::wide ? outputs * d.width + widest * sizeof(float) : 0);
  return logits + std::max(rounded, codes + rows * sizeof(float));
}

}  // namespace

std::uint64_t MemoryEstimate::bytes() const {
  std::uint64_t sum = 0;
  for (const MemoryPart& part : parts) sum += part.bytes;
  return sum;
}

std::uint32_t micro_samples(const spec::JobSpec& spec, const models::Decoder& decoder,
                            bool on_device) {
  const std::uint32_t shards = std::max(1U, spec.parallel.shards);
  const std::uint32_t in_shard = std::max(1U, (spec.train.batch + shards - 1) / shards);
  if (spec.train.micro != 0) return std::min(spec.train.micro, in_shard);
  if (on_device) {
    const std::uint32_t sequence = std::max(1U, spec.data.sequence);
    // Of rows that are kept wide: how they are kept changes no bit, and the micro-batch does.
    const auto activations = [&](std::uint32_t samples) {
      return models::TrainingPass::workspace_bytes(
          decoder.description(), {.rows_max = samples * sequence, .samples_max = samples},
          recompute_of(spec));
    };
    auto samples = static_cast<std::uint32_t>(
        std::clamp<std::uint64_t>(kDeviceRowsMax / sequence, 1, in_shard));
    while (samples > 1 && activations(samples) > kDeviceActivationsMax) --samples;
    return samples;
  }
  const std::uint64_t a_row = kOperationsPerWeight * decoder.layout().parameter_count();
  const std::uint64_t rows = std::clamp(kMicroOperations / a_row, kMicroRowsMin, kMicroRowsMax);
  const std::uint64_t samples = std::max<std::uint64_t>(1, rows / spec.data.sequence);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(samples, in_shard));
}

bool is_in_bf16(const spec::JobSpec& spec) {
  return spec.train.precision == "bf16" || spec.train.precision == "fp8";
}

std::uint32_t input_bytes(const spec::JobSpec& spec) {
  return is_in_bf16(spec) || spec.train.precision == "fp16" ? 2 : 4;
}

models::Recompute recompute_of(const spec::JobSpec& spec) {
  return models::recompute_of(spec.train.recompute).value_or(models::Recompute::none);
}

models::Kept kept_of(const spec::JobSpec& spec, const models::DecoderDescription& description) {
  if (input_bytes(spec) != 2 || !models::can_be_rounded(description)) return models::Kept::wide;
  const bool attention_too =
      is_in_bf16(spec) && description.head_dim <= kernels::kRoundedHeadWidthMax;
  return attention_too ? models::Kept::attention : models::Kept::products;
}

MemoryEstimate estimate_memory(const spec::JobSpec& spec, const models::Decoder& decoder,
                               const optimizers::Optimizer& optimizer, std::uint32_t ranks) {
  const models::ParameterLayout& layout = decoder.layout();
  const models::DecoderDescription& description = decoder.description();
  const std::uint32_t shards = std::max(1U, spec.parallel.shards);
  MemoryEstimate estimate{.parts = {}, .ranks = std::clamp(ranks, 1U, shards)};
  const auto tree =
      kernels::ShardTree::create(shards, std::max(1U, spec.train.batch), estimate.ranks);
  std::uint64_t buffers = 1;
  std::uint64_t room = 0;
  std::uint64_t samples = 0;
  for (std::uint32_t rank = 0; tree && rank < estimate.ranks; ++rank) {
    samples = std::max(samples, samples_of(*tree, rank));
    buffers = std::max(buffers, gradient_buffers(*tree, rank));
    room = std::max(room, exchange_room(layout, *tree, rank));
  }
  const std::uint32_t micro = micro_samples(spec, decoder, /*on_device=*/true);
  const models::PassLimits limits{.rows_max = micro * spec.data.sequence, .samples_max = micro};
  constexpr std::uint64_t kFloat = sizeof(float);
  const models::Kept kept = kept_of(spec, description);
  const std::uint64_t rounded =
      kept == models::Kept::wide ? 0 : models::RoundedWeights::bytes(layout);
  const std::uint64_t scratch = scratch_bytes(spec, description, limits.rows_max, Weights::rounded);
  const std::uint64_t codes =
      spec.train.precision == "fp8" ? models::Fp8Weights::bytes(decoder) : 0;
  estimate.spare =
      rounded + codes + scratch - scratch_bytes(spec, description, limits.rows_max, Weights::wide);
  estimate.parts = {
      {"weights", layout.elements() * kFloat},
      {"rounded weights", rounded},
      {"optimizer",
       optimizer.states.size() * kFloat * models::StateLayout(layout, optimizer.packed).words},
      {"gradients", buffers * layout.gradient_elements() * kFloat},
      {"exchange", room * kFloat},
      {"activations",
       models::TrainingPass::workspace_bytes(description, limits, recompute_of(spec), kept)},
      {"losses", samples * spec.data.sequence * kFloat},
      {"scratch", scratch + (optimizer.room == nullptr ? 0 : optimizer.room(layout))},
      {"ops", kOpsRoom},
  };
  if (codes != 0) estimate.parts.push_back({"fp8 weights", codes});
  return estimate;
}

MemoryEstimate largest_estimate(const spec::JobSpec& spec, const models::Decoder& decoder,
                                const optimizers::Optimizer& optimizer) {
  const std::uint32_t most = std::min(spec.resources.ranks_max, std::max(1U, spec.parallel.shards));
  MemoryEstimate largest = estimate_memory(spec, decoder, optimizer, spec.resources.ranks_min);
  for (std::uint32_t ranks = spec.resources.ranks_min + 1; ranks <= most; ++ranks) {
    MemoryEstimate one = estimate_memory(spec, decoder, optimizer, ranks);
    if (one.bytes() > largest.bytes()) largest = std::move(one);
  }
  return largest;
}

std::vector<LessKept> less_kept(const spec::JobSpec& spec, const models::Decoder& decoder,
                                const optimizers::Optimizer& optimizer) {
  std::vector<LessKept> ways;
  spec::JobSpec changed = spec;
  for (const models::Recompute recompute : models::kRecomputes) {
    if (recompute <= recompute_of(spec)) continue;
    changed.train.recompute = models::to_string(recompute);
    ways.push_back({recompute, largest_estimate(changed, decoder, optimizer).least()});
  }
  return ways;
}

Result<MemoryEstimate> estimate_memory(const spec::JobSpec& spec) {
  const auto optimizer = optimizers::find_optimizer(spec.train.optimizer.name);
  if (!optimizer) return optimizer.error();
  const auto decoder = open_decoder(spec);
  if (!decoder) return decoder.error();
  return largest_estimate(spec, *decoder, **optimizer);
}

}  // namespace tutti::training
