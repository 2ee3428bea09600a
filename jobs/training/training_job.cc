#include "jobs/training/training_job.h"

#include <algorithm>
#include <bit>
#include <filesystem>

#include "jobs/data/text.h"
#include "jobs/models/training_pass.h"
#include "kernels/tensor/device.h"

namespace tutti::training {

namespace fs = std::filesystem;

namespace {

// Tokens of one call of the pass: enough for products to run near their peak (from some 512 rows
// on), few enough that activations stay small, and that a rank which is told to leave its group
// gets to hear it soon: between two calls. A call of kMicroOperations takes a core half a second.
constexpr std::uint64_t kMicroRowsMin = 512;
constexpr std::uint64_t kMicroRowsMax = 2048;
constexpr std::uint64_t kMicroOperations = 40'000'000'000;
// Multiplications and additions a parameter and token, forward and backward.
constexpr std::uint64_t kOperationsPerWeight = 6;

Result<models::Decoder> open_decoder(const spec::JobSpec& spec) {
  auto description = spec.model.path.empty() ? models::describe(spec.model, spec.data.sequence)
                                             : models::read_config(spec.model.path);
  if (!description) return description.error();
  return models::Decoder::create(*description);
}

struct DataSource {
  std::vector<std::string> tokens;
  std::string tokenizer;
};

Result<DataSource> open_source(const OpenOptions& options, std::uint32_t vocabulary) {
  const spec::JobSpec& spec = options.spec;
  std::string tokenizer = spec.data.tokenizer;
  std::error_code ignored;
  const fs::path beside_model = fs::path(spec.model.path) / "tokenizer.json";
  if (tokenizer.empty() && !spec.model.path.empty() && fs::exists(beside_model, ignored)) {
    tokenizer = beside_model.string();
  }
  if (spec.data.text.empty()) return DataSource{spec.data.tokens, tokenizer};
  auto text = data::tokenize_text({spec.data.text, tokenizer, vocabulary, options.folder});
  if (!text) return text.error();
  return DataSource{{text->tokens}, text->tokenizer};
}

}  // namespace

std::uint64_t TrainingJob::last_step() const {
  return spec.train.stop == 0 ? spec.train.steps : std::min(spec.train.stop, spec.train.steps);
}

std::uint32_t TrainingJob::micro() const {
  const std::uint32_t shards = std::max(1U, spec.parallel.shards);
  const std::uint32_t in_shard = std::max(1U, (spec.train.batch + shards - 1) / shards);
  if (spec.train.micro != 0) return std::min(spec.train.micro, in_shard);
  const std::uint64_t a_row = kOperationsPerWeight * decoder.layout().parameter_count();
  const std::uint64_t rows = std::clamp(kMicroOperations / a_row, kMicroRowsMin, kMicroRowsMax);
  const std::uint64_t samples = std::max<std::uint64_t>(1, rows / spec.data.sequence);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(samples, in_shard));
}

bool TrainingJob::saves_after(std::uint64_t step) const {
  const bool periodic = spec.checkpoint.every != 0 && step % spec.checkpoint.every == 0;
  return step != 0 && (periodic || (step == last_step() && spec.checkpoint.last));
}

Result<> check_memory(const TrainingJob& job, kernels::Device* device) {
  if (device == nullptr) return {};
  if (job.optimizer->name != optimizers::kAdamW.name) {
    return Error{ErrorCode::unsupported, "train.optimizer.name " +
                                             std::string(job.optimizer->name) +
                                             " runs on CPUs only; on a GPU there is adamw"};
  }
  const models::ParameterLayout& layout = job.decoder.layout();
  const std::uint32_t micro = job.micro();
  const std::uint64_t states = (1 + job.optimizer->states.size()) * layout.elements();
  // A tree of S shards holds log2(S) + 1 sums at once, and the pieces of other ranks at most as
  // much.
  const std::uint64_t shards = std::max(1U, job.spec.parallel.shards);
  const auto sums = static_cast<std::uint64_t>(std::bit_width(shards)) + 1;
  const std::uint64_t activations = models::TrainingPass::workspace_bytes(
      job.decoder.description(),
      {.rows_max = micro * job.spec.data.sequence, .samples_max = micro});
  constexpr std::uint64_t kOpsRoom = std::uint64_t{64} << 20;
  const std::uint64_t needed =
      (states + sums * layout.gradient_elements()) * sizeof(float) + activations + kOpsRoom;
  auto free = device->free_bytes();
  if (!free) return free.error();
  if (needed <= *free) return {};
  return Error{ErrorCode::invalid_argument,
               "the job needs " + std::to_string(needed >> 20) + " MB of memory on " +
                   std::string(device->name()) + ", which has " + std::to_string(*free >> 20) +
                   " MB free: take a smaller train.micro, model, or a larger GPU"};
}

Result<std::unique_ptr<TrainingJob>> open_training_job(const OpenOptions& options) {
  const spec::JobSpec& spec = options.spec;
  auto optimizer = optimizers::find_optimizer(spec.train.optimizer.name);
  if (!optimizer) return optimizer.error();
  if (auto checked = (*optimizer)->check(spec.train.optimizer); !checked) return checked.error();
  auto schedule = optimizers::find_schedule(spec.train.schedule.name);
  if (!schedule) return schedule.error();
  if (spec.train.precision != "fp32" && spec.train.precision != "bf16") {
    return Error{ErrorCode::unsupported,
                 "train.precision " + spec.train.precision + ": this build knows fp32 and bf16"};
  }
  auto decoder = open_decoder(spec);
  if (!decoder) return decoder.error();
  const std::uint32_t vocabulary = decoder->description().vocabulary;
  auto source = open_source(options, vocabulary);
  if (!source) return source.error();
  const auto order = spec.data.shuffle ? data::SampleOrder::shuffled : data::SampleOrder::as_stored;
  auto dataset = data::Dataset::open({.tokens = source->tokens,
                                      .sequence = spec.data.sequence,
                                      .batch = spec.train.batch,
                                      .vocabulary = vocabulary,
                                      .order = order,
                                      .seed = spec.train.seed});
  if (!dataset) return dataset.error();
  return std::unique_ptr<TrainingJob>(new TrainingJob{spec, options.spec_text, *std::move(decoder),
                                                      *std::move(dataset), source->tokenizer,
                                                      *optimizer, *schedule});
}

}  // namespace tutti::training
