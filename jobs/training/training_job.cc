#include "jobs/training/training_job.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "jobs/data/text.h"
#include "jobs/models/parts/positions.h"
#include "jobs/training/memory_estimate.h"
#include "kernels/tensor/device.h"

namespace tutti::training {

namespace fs = std::filesystem;

Result<models::Decoder> open_decoder(const spec::JobSpec& spec) {
  auto description = spec.model.path.empty() ? models::describe(spec.model, spec.data.sequence)
                                             : models::read_config(spec.model.path);
  if (!description) return description.error();
  description->vocabulary_multiple = std::max(1U, spec.train.pad_vocabulary);
  if (auto known = models::check_position(*description, std::int64_t{spec.data.sequence} - 1);
      !known) {
    return Error(known.error()).with_context("data.sequence");
  }
  return models::Decoder::create(*description);
}

namespace {

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

std::uint32_t TrainingJob::micro(const kernels::Device* device) const {
  return micro_samples(spec, decoder, device != nullptr);
}

models::Recompute TrainingJob::recompute() const { return recompute_of(spec); }
models::Kept TrainingJob::kept() const { return kept_of(spec, decoder.description()); }

bool TrainingJob::saves_after(std::uint64_t step) const {
  const bool periodic = spec.checkpoint.every != 0 && step % spec.checkpoint.every == 0;
  return step != 0 && (periodic || (step == last_step() && spec.checkpoint.last));
}

Result<> fit_memory(TrainingJob& job, kernels::Device* device) {
  if (device == nullptr) return {};
  const MemoryEstimate estimate = largest_estimate(job.spec, job.decoder, *job.optimizer);
  auto free = device->free_bytes();
  if (!free) return free.error();
  job.rounds_weights = estimate.bytes() <= *free;
  if (estimate.least() <= *free) return {};
  std::string parts;
  for (const MemoryPart& part : estimate.parts) {
    parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", part.name, part.bytes >> 20);
  }
  std::string remedy = "a smaller train.micro, model, or a larger GPU (resources.device_memory)";
  for (const LessKept& way : less_kept(job.spec, job.decoder, *job.optimizer)) {
    if (way.bytes > *free) continue;
    remedy = fmt::format("train.recompute={}, with which it needs {} MB",
                         models::to_string(way.recompute), way.bytes >> 20);
    break;
  }
  return Error{
      ErrorCode::invalid_argument,
      fmt::format("the job needs {} MB of memory on {}, which has {} MB free ({}): take {}",
                  estimate.least() >> 20, device->name(), *free >> 20, parts, remedy)};
}

Result<std::unique_ptr<TrainingJob>> open_training_job(const OpenOptions& options) {
  const spec::JobSpec& spec = options.spec;
  auto optimizer = optimizers::find_optimizer(spec.train.optimizer.name);
  if (!optimizer) return optimizer.error();
  if (auto checked = (*optimizer)->check(spec.train.optimizer); !checked) return checked.error();
  auto schedule = optimizers::find_schedule(spec.train.schedule.name);
  if (!schedule) return schedule.error();
  constexpr std::string_view kPrecisions[] = {"fp32", "bf16", "fp16", "tf32", "fp8"};
  if (std::ranges::find(kPrecisions, spec.train.precision) == std::end(kPrecisions)) {
    return Error{ErrorCode::unsupported, "train.precision " + spec.train.precision +
                                             ": this build knows fp32, bf16, fp16, tf32 and fp8"};
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
