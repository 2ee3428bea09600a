#include "jobs/serving/generate_tool.h"

#include <fmt/core.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <boost/json/string.hpp>
#include <cstdio>
#include <optional>
#include <string_view>
#include <vector>

#include "jobs/serving/model_folder.h"
#include "jobs/serving/tool_input.h"
#include "jobs/tokenizers/byte_text.h"
#include "jobs/tokenizers/tool_arguments.h"
#include "kernels/tensor/open_device.h"
#include "kernels/tensor/thread_pool.h"

namespace tutti::serving {
namespace {

using tokenizers::tool_failed;

constexpr std::string_view kHelp =
    R"(usage: tutti generate MODEL --prompt TEXT | --tokens F.npy [--max N] [settings]

Continues a prompt with a model directory (Hugging Face layout, or one of our checkpoints). The
continuation ends after N tokens, at an end-of-text token (which is among the tokens, not in the
text), or at a stop text.

  --prompt TEXT      as the tokenizer's template puts it (a begin token, say)
  --tokens F.npy     token ids as they are, one-dimensional uint16, uint32 or int32
  --max N            tokens of the continuation (default 64)
  --greedy           the most probable token each time
  --temperature X    default 1; 0 is greedy
  --top-k N          draw from the N most probable only
  --top-p X          draw from the fewest that together reach X
  --seed N           of the draws (default 0); the same seed gives the same tokens
  --stop TEXT        ends the continuation; may be repeated
  --ignore-end       an end-of-text token does not end it
  --weights FORMAT   auto (default: a file's own codes, with the bits of fp32; else fp32), fp32,
                     bf16, int8, q8_0, fp8_e4m3, fp8_e5m2, int4, q4_0, q5_0, q4_k, q5_k, q6_k, nf4
  --device NAME      cpu (default), gpu or gpu:INDEX
  --threads N        default: one a core
  -o text|json       json: one object with `tokens` (the continuation), `text`, `finish`
)";

struct Options {
  std::vector<std::string> model;
  std::optional<std::string> prompt;
  std::string tokens;
  std::string format = "text";
  std::string weights = "auto";
  std::string device = "cpu";
  std::uint32_t threads = 0;
  bool greedy = false;
  Request request;
};

std::string_view to_string(Finish finish) {
  return finish == Finish::stop ? "stop" : finish == Finish::length ? "length" : "error";
}

void describe(tokenizers::ToolArguments& arguments, Options& options) {
  arguments.option("--prompt", options.prompt);
  arguments.option("--tokens", options.tokens);
  arguments.option("--max", options.request.tokens_max);
  arguments.flag("--greedy", options.greedy);
  arguments.option("--temperature", options.request.temperature);
  arguments.option("--top-k", options.request.top_k);
  arguments.option("--top-p", options.request.top_p);
  arguments.option("--seed", options.request.seed);
  arguments.option("--stop", options.request.stop);
  arguments.flag("--ignore-end", options.request.ignores_end);
  arguments.option("--weights", options.weights);
  arguments.option("--device", options.device);
  arguments.option("--threads", options.threads);
  arguments.option("-o", options.format);
  arguments.positional(options.model);
}

// Runs the request to its end; text is shown as it comes where it is wanted.
Result<Output> run(const ServedModel& served, kernels::OpContext ctx, Options& options) {
  Engine engine(served.view(), ctx, {.batch_max = 1});
  const bool streams = options.format == "text";
  if (Result<> submitted = engine.submit(std::move(options.request)); !submitted) {
    return submitted.error();
  }
  Output whole;
  while (whole.finish == Finish::none) {
    for (const Output& output : engine.step()) {
      if (output.error) return *output.error;
      if (streams) {
        fmt::print("{}", output.text);
        std::fflush(stdout);
      }
      whole.text += output.text;
      whole.tokens.insert(whole.tokens.end(), output.tokens.begin(), output.tokens.end());
      whole.finish = output.finish;
    }
  }
  if (streams) fmt::print("\n");
  return whole;
}

}  // namespace

int run_generate_tool(std::span<const std::string> args) {
  Options options;
  options.request.tokens_max = 64;
  tokenizers::ToolArguments arguments("generate", kHelp);
  describe(arguments, options);
  if (const auto exit = arguments.parse(args)) return *exit;
  if (options.format != "text" && options.format != "json") {
    return tool_failed("generate", "-o is text or json");
  }
  if (options.model.size() != 1) {
    return tool_failed("generate", "one model directory is needed; --help shows the usage");
  }
  if (options.prompt.has_value() == !options.tokens.empty()) {
    return tool_failed("generate", "either --prompt or --tokens is needed");
  }
  if (options.greedy) options.request.temperature = 0;
  if (options.prompt) {
    options.request.prompt = *options.prompt;
  } else {
    Result<std::vector<std::uint32_t>> tokens = read_tokens(options.tokens);
    if (!tokens) return tool_failed("generate", tokens.error().message);
    options.request.tokens = std::move(*tokens);
  }
  kernels::ThreadPool pool(tool_threads(options.threads));
  const auto device = kernels::open_device(options.device);
  if (!device) return tool_failed("generate", device.error().message);
  const kernels::OpContext ctx{&pool, device->get()};
  const Result<ServedModel> served = load_served_model(ctx, options.model[0], options.weights);
  if (!served) return tool_failed("generate", served.error().message);
  if (options.format == "text" && !served->tokenizer) {
    return tool_failed("generate", options.model[0] + " has no tokenizer.json; use -o json");
  }
  const Result<Output> output = run(*served, ctx, options);
  if (!output) return tool_failed("generate", output.error().message);
  if (options.format == "json") {
    fmt::print("{{\"tokens\": {}, \"text\": {}, \"finish\": \"{}\"}}\n", json_list(output->tokens),
               boost::json::serialize(boost::json::string(output->text)),
               to_string(output->finish));
  }
  return tokenizers::kExitOk;
}

}  // namespace tutti::serving
