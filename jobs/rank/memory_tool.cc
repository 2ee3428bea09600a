#include "jobs/rank/memory_tool.h"

#include <fmt/core.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <utility>
#include <vector>

#include "jobs/models/inference_pass.h"
#include "jobs/models/serving_weights.h"
#include "jobs/serving/engine.h"
#include "jobs/tokenizers/tool_arguments.h"
#include "jobs/training/memory_estimate.h"
#include "jobs/training/tile_padding.h"
#include "jobs/training/training_job.h"
#include "protocol/base/file.h"
#include "protocol/spec/parse.h"

namespace tutti::rank {

namespace json = boost::json;

namespace {

constexpr std::string_view kHelp =
    R"(usage: tutti memory JOB.yaml [--set KEY=VALUE]... [-o text|json]

What a training or serving job takes of the memory of each GPU, by component; of training with
the number of ranks that takes most. `tutti plan` and `tutti submit` ask for such GPUs by it. The
same figures decide in a rank whether the job, or the weights of a served model, fit in what the
runtime leaves.

  --set KEY=VALUE    changes the spec, as in `tutti submit`
  -o text|json       json: one object with `bytes`, `least_bytes` (with which it runs too, more
                     slowly: a server with fewer requests at once, training in bf16 or fp16 with
                     weights that each product rounds anew), `ranks`, `parts` (`name`, `bytes`),
                     `less_kept` (`recompute`, `bytes`: what training takes with
                     that train.recompute), `tiles`
                     (what part of the products is padding: `share`, `device`, `outputs` of a
                     tile, `sizes`, `lines`), on the GPU or this machine's CPU

Examples:
  tutti memory big.yaml
  tutti memory big.yaml --set train.precision=bf16 -o json
)";

constexpr double kMegabyte = 1024.0 * 1024.0;
// Of a device that a process uses: the driver's context, the code of this build and its libraries,
// NCCL's buffers. An estimate from above that was measured on no GPU.
constexpr std::uint64_t kRuntimeRoom = std::uint64_t{768} << 20;

struct Answer {
  training::MemoryEstimate estimate;
  training::TilePadding padding;
  std::vector<training::LessKept> ways;  // of training, to make room
};

std::string text_of(const Answer& answer) {
  const training::MemoryEstimate& estimate = answer.estimate;
  std::string out;
  const auto line = [&](std::string_view name, std::uint64_t bytes) {
    out += fmt::format("{:<16}{:>12.1f} MB\n", name, static_cast<double>(bytes) / kMegabyte);
  };
  for (const auto& part : estimate.parts) line(part.name, part.bytes);
  line("in all", estimate.bytes());
  if (estimate.spare > 0) line("at least", estimate.least());
  out += fmt::format("a GPU of each rank, with {} rank{}\n", estimate.ranks,
                     estimate.ranks == 1 ? "" : "s");
  for (const training::LessKept& way : answer.ways) {
    out += fmt::format("with train.recompute={}: {:.1f} MB\n", models::to_string(way.recompute),
                       static_cast<double>(way.bytes) / kMegabyte);
  }
  for (const std::string& text : answer.padding.lines()) out += text + '\n';
  return out;
}

json::object json_of(const training::TilePadding& padding) {
  json::array sizes;
  for (const auto& size : padding.sizes) {
    sizes.push_back(json::object{{"name", size.name},
                                 {"size", size.size},
                                 {"rows", size.rows},
                                 {"computed", size.computed},
                                 {"share", size.share()},
                                 {"aligned", size.aligned}});
  }
  const std::vector<std::string> lines = padding.lines();
  return {{"device", padding.tiles.device},
          {"outputs", padding.tiles.outputs},
          {"share", padding.share},
          {"sizes", std::move(sizes)},
          {"lines", json::array(lines.begin(), lines.end())}};
}

std::string json_of(const Answer& answer) {
  const training::MemoryEstimate& estimate = answer.estimate;
  json::array parts;
  for (const auto& part : estimate.parts) {
    parts.push_back(json::object{{"name", part.name}, {"bytes", part.bytes}});
  }
  json::array ways;
  for (const training::LessKept& way : answer.ways) {
    ways.push_back(
        json::object{{"recompute", models::to_string(way.recompute)}, {"bytes", way.bytes}});
  }
  return json::serialize(json::object{{"bytes", estimate.bytes()},
                                      {"least_bytes", estimate.least()},
                                      {"ranks", estimate.ranks},
                                      {"parts", std::move(parts)},
                                      {"less_kept", std::move(ways)},
                                      {"tiles", json_of(answer.padding)}}) +
         "\n";
}

// As the engine sets it aside. Pages are those of as many whole contexts as are decoded together; a
// rank takes half of what the weights leave, and lets requests wait where that is less.
Result<training::MemoryEstimate> estimate_of_server(const spec::JobSpec& spec,
                                                    const models::Decoder& decoder) {
  const models::DecoderDescription& d = decoder.description();
  const auto weights =
      models::ServingWeights::device_bytes(decoder, spec.serve.weights, spec.model.path);
  if (!weights) return weights.error();
  const std::uint32_t context = spec.serve.tokens_max == 0
                                    ? d.positions_max
                                    : std::min(spec.serve.tokens_max, d.positions_max);
  const std::uint32_t batch = std::max(1U, spec.serve.batch_max);
  const models::PassLimits limits{.rows_max = std::max(batch, serving::EngineOptions{}.step_tokens),
                                  .samples_max = batch};
  training::MemoryEstimate estimate;
  estimate.parts = {
      {"weights", *weights},
      {"pages", batch * models::KvCache::bytes(d, context)},
      {"activations", models::InferencePass::workspace_bytes(d, limits)},
      {"logits", std::uint64_t{batch} * d.vocabulary * sizeof(float)},
      {"ops", training::kOpsRoom},
      {"runtime", kRuntimeRoom},
  };
  // Half of what the weights leave is for pages, at least those of one whole context.
  const std::uint64_t beside = models::InferencePass::workspace_bytes(d, limits) +
                               std::uint64_t{batch} * d.vocabulary * sizeof(float) +
                               training::kOpsRoom;
  const std::uint64_t half = std::max(models::KvCache::bytes(d, context), beside);
  const std::uint64_t least = *weights + 2 * half + kRuntimeRoom;
  estimate.spare = estimate.bytes() - std::min(estimate.bytes(), least);
  return estimate;
}

Result<Answer> answer_for(const std::string& file, const std::vector<std::string>& settings) {
  const auto text = read_file(file);
  if (!text) return text.error();
  auto spec = spec::parse_job_spec(*text, {.file = file, .overrides = settings});
  if (!spec) return spec.error();
  // As `tutti submit` reads it.
  if (!spec->model.path.empty()) {
    spec->model.path = (std::filesystem::path(file).parent_path() / spec->model.path).string();
  }
  const bool serves = spec->kind == spec::JobKind::serve;
  if (!serves && spec->kind != spec::JobKind::train) {
    return Error{ErrorCode::invalid_argument, file + ": it is no job of kind train or serve"};
  }
  const auto decoder =
      serves ? models::load_decoder(spec->model.path) : training::open_decoder(*spec);
  if (!decoder) return decoder.error();
  auto estimate = serves ? estimate_of_server(*spec, *decoder) : training::estimate_memory(*spec);
  if (!estimate) return estimate.error();
  std::vector<training::LessKept> ways;
  if (!serves) {
    estimate->parts.push_back({"runtime", kRuntimeRoom});
    const auto optimizer = optimizers::find_optimizer(spec->train.optimizer.name);
    if (!optimizer) return optimizer.error();
    ways = training::less_kept(*spec, *decoder, **optimizer);
    for (training::LessKept& way : ways) way.bytes += kRuntimeRoom;
  }
  const std::uint32_t input_bytes = serves ? 4 : training::input_bytes(*spec);
  const auto tiles =
      spec::takes_gpus(*spec) ? training::gpu_tiles(input_bytes) : training::cpu_tiles();
  return Answer{*std::move(estimate), training::tile_padding(decoder->description(), tiles),
                std::move(ways)};
}

}  // namespace

int run_memory_tool(std::span<const std::string> args) {
  std::vector<std::string> files;
  std::vector<std::string> settings;
  std::string format = "text";
  tokenizers::ToolArguments arguments("memory", kHelp);
  arguments.positional(files);
  arguments.option("--set", settings);
  arguments.option("-o", format);
  if (const auto done = arguments.parse(args)) return *done;
  if (files.size() != 1 || (format != "text" && format != "json")) {
    return tokenizers::tool_failed("memory", "it takes one JOB.yaml and -o text or json");
  }
  const auto answer = answer_for(files.front(), settings);
  if (!answer) return tokenizers::tool_failed("memory", answer.error().message);
  std::fputs((format == "json" ? json_of(*answer) : text_of(*answer)).c_str(), stdout);
  return tokenizers::kExitOk;
}

}  // namespace tutti::rank
