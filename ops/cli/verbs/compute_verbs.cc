// tutti generate | score | tokenize | tokenizer: computed by the tutti-rank binary beside this one,
// in place of this process; `generate` with the name of a served model asks the cluster instead.
#include <fmt/core.h>
#include <unistd.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "ops/cli/client/connection.h"
#include "ops/cli/client/event_stream.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/rank_tools.h"
#include "ops/cli/verbs.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

struct GenerateOptions {
  std::string model;
  std::string prompt;
  std::uint64_t tokens_max = 64;
  double temperature = 1.0;
  std::uint64_t top_k = 0;
  double top_p = 1.0;
  std::optional<std::uint64_t> seed;
  std::vector<std::string> stop;
  bool greedy = false;
  std::string output = "text";
};

// Asks the cluster's OpenAI-compatible route and prints the text as it comes.
int generate_served(const GenerateOptions& options) {
  Connection connection;
  json::object body{{"model", options.model},
                    {"prompt", options.prompt},
                    {"max_tokens", options.tokens_max},
                    {"temperature", options.greedy ? 0.0 : options.temperature},
                    {"top_p", options.top_p}};
  if (options.top_k > 0) body["top_k"] = options.top_k;
  if (options.seed) body["seed"] = *options.seed;
  if (!options.stop.empty()) body["stop"] = json::array(options.stop.begin(), options.stop.end());
  if (options.output == "json") {
    const Result<json::value> answer =
        connection.api().post("/v1/completions", body, Api::Repeat::never);
    if (!answer) return fail(answer.error());
    print(json_line(*answer));
    return kDone;
  }
  body["stream"] = true;
  std::string failure;
  bool printed = false;
  EventStream events;
  const Result<> streamed =
      connection.api().post_stream("/v1/completions", body, [&](std::string_view bytes) {
        for (const std::string& data : events.add(bytes)) {
          if (data == "[DONE]") continue;
          boost::system::error_code failed;
          const json::value event = json::parse(data, failed);
          if (failed) continue;
          if (has(event, "error")) failure = text_of(member_of(event, "error"), "message");
          for (const json::value& choice : list_of(event, "choices")) {
            print(text_of(choice, "text"));
            printed = true;
          }
        }
      });
  if (printed) print("\n");
  if (!streamed) return fail(streamed.error());
  return failure.empty() ? kDone : fail(kInfrastructure, failure);
}

// The model: the first word that is no option and no option's value.
std::string model_of(const std::vector<std::string>& words) {
  return words.size() > 1 && !words[1].empty() && words[1].front() != '-' ? words[1] : "";
}

bool names_a_file(const std::string& model) {
  std::error_code failed;
  return model.find('/') != std::string::npos || std::filesystem::exists(model, failed);
}

}  // namespace

int pass_to_rank(const std::vector<std::string>& words, Session&) {
  const std::string program = rank_binary(words);
  std::vector<std::string> command = words;
  command.insert(command.begin(), program);
  std::vector<char*> arguments;
  for (std::string& word : command) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  ::execv(program.c_str(), arguments.data());
  return fail(kOwnError,
              fmt::format("cannot run {}, which computes this: {}", program, std::strerror(errno)));
}

int pass_generate(const std::vector<std::string>& words, Session& session) {
  const std::string model = model_of(words);
  if (model.empty() || names_a_file(model)) return pass_to_rank(words, session);
  GenerateOptions options;
  Arguments arguments("generate", "Continue a text with a served model.");
  arguments.word("MODEL", options.model, "name of a served model, or a model directory");
  arguments.option("--prompt", options.prompt, "text to continue");
  arguments.option("--max", options.tokens_max, "most tokens to make (64)");
  arguments.flag("--greedy", options.greedy, "always the likeliest token");
  arguments.option("--temperature", options.temperature, "0: greedy (1)");
  arguments.option("--top-k", options.top_k, "sample among so many likeliest tokens; 0: all");
  arguments.option("--top-p", options.top_p, "sample among the likeliest with this sum; 1: all");
  arguments.option("--seed", options.seed, "of the sampling");
  arguments.repeated("--stop", options.stop, "a text that ends the continuation");
  arguments.option("-o,--output", options.output, "text or json");
  const Result<Arguments::Outcome> parsed =
      arguments.parse(std::vector<std::string>(words.begin() + 1, words.end()));
  if (!parsed) return fail(parsed.error());
  if (*parsed == Arguments::Outcome::help) {
    print(arguments.help());
    return kDone;
  }
  return generate_served(options);
}

}  // namespace tutti::cli
