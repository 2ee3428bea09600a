#include "jobs/serving/score_tool.h"

#include <fmt/core.h>

#include <limits>
#include <string_view>
#include <vector>

#include "jobs/serving/model_folder.h"
#include "jobs/serving/scorer.h"
#include "jobs/serving/tool_input.h"
#include "jobs/tokenizers/tool_arguments.h"
#include "kernels/ops/math.h"
#include "kernels/tensor/open_device.h"
#include "kernels/tensor/thread_pool.h"
#include "protocol/base/file.h"

namespace tutti::serving {
namespace {

using tokenizers::tool_failed;

constexpr std::string_view kHelp =
    R"(usage: tutti score MODEL --tokens F.npy | --text F [settings]

Log-probability of every token but the first, given those before it, and the perplexity
exp(-mean log-probability).

A text longer than the context is scored in windows that overlap by half: after the first window,
each token is scored with at least half a context before it.

  --tokens F.npy     token ids as they are, one-dimensional uint16, uint32 or int32
  --text F           a text file, as the tokenizer's template puts it (a begin token, say)
  --context N        longest context to use (default: the model's)
  --weights FORMAT   auto (default: a file's own codes, with the bits of fp32; else fp32), fp32,
                     bf16, int8, q8_0, fp8_e4m3, fp8_e5m2, int4, q4_0, q5_0, q4_k, q5_k, q6_k, nf4
  --device NAME      cpu (default), gpu or gpu:INDEX
  --threads N        default: one a core
  -o text|json       json: one object with `tokens` (count), `logprobs` (of tokens 1 .. n-1),
                     `perplexity`
)";

struct Options {
  std::vector<std::string> model;
  std::string tokens;
  std::string text;
  std::string format = "text";
  std::string weights = "auto";
  std::string device = "cpu";
  std::uint32_t context = 0;
  std::uint32_t threads = 0;
};

Result<std::vector<std::int32_t>> tokens_of(const Options& options, const ServedModel& served) {
  Result<std::vector<std::uint32_t>> ids = std::vector<std::uint32_t>();
  if (!options.tokens.empty()) {
    ids = read_tokens(options.tokens);
  } else {
    const Result<std::string> text = read_file(options.text);
    if (!text) return text.error();
    if (!served.tokenizer) {
      return Error{ErrorCode::invalid_argument,
                   options.model[0] + " has no tokenizer.json; use --tokens"};
    }
    ids = served.tokenizer->encode_whole(*text);
  }
  if (!ids) return ids.error();
  const std::uint32_t vocabulary = served.decoder.description().vocabulary;
  std::vector<std::int32_t> tokens;
  tokens.reserve(ids->size());
  for (const std::uint32_t id : *ids) {
    if (id >= vocabulary) {
      return Error{ErrorCode::invalid_argument,
                   fmt::format("token {} at position {} is outside the vocabulary of {}", id,
                               tokens.size(), vocabulary)};
    }
    tokens.push_back(static_cast<std::int32_t>(id));
  }
  return tokens;
}

}  // namespace

int run_score_tool(std::span<const std::string> args) {
  Options options;
  tokenizers::ToolArguments arguments("score", kHelp);
  arguments.option("--tokens", options.tokens);
  arguments.option("--text", options.text);
  arguments.option("--context", options.context);
  arguments.option("--weights", options.weights);
  arguments.option("--device", options.device);
  arguments.option("--threads", options.threads);
  arguments.option("-o", options.format);
  arguments.positional(options.model);
  if (const auto exit = arguments.parse(args)) return *exit;
  if (options.format != "text" && options.format != "json") {
    return tool_failed("score", "-o is text or json");
  }
  if (options.model.size() != 1) {
    return tool_failed("score", "one model directory is needed; --help shows the usage");
  }
  if (options.tokens.empty() == options.text.empty()) {
    return tool_failed("score", "either --tokens or --text is needed");
  }
  kernels::ThreadPool pool(tool_threads(options.threads));
  const auto device = kernels::open_device(options.device);
  if (!device) return tool_failed("score", device.error().message);
  const kernels::OpContext ctx{&pool, device->get()};
  const Result<ServedModel> served = load_served_model(ctx, options.model[0], options.weights);
  if (!served) return tool_failed("score", served.error().message);
  const Result<std::vector<std::int32_t>> tokens = tokens_of(options, *served);
  if (!tokens) return tool_failed("score", tokens.error().message);
  const Result<std::vector<float>> scores =
      score_tokens(served->view(), ctx, *tokens, options.context);
  if (!scores) return tool_failed("score", scores.error().message);
  double sum = 0;
  for (const float score : *scores) sum += static_cast<double>(score);
  const double perplexity = kernels::exp(-sum / static_cast<double>(scores->size()));
  if (options.format == "json") {
    fmt::print("{{\"tokens\": {}, \"logprobs\": {}, \"perplexity\": {}}}\n", tokens->size(),
               json_list(*scores), perplexity);
  } else {
    fmt::print("tokens      {}\nperplexity  {:.4f}\n", tokens->size(), perplexity);
  }
  return tokenizers::kExitOk;
}

}  // namespace tutti::serving
