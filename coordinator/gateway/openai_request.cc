#include "coordinator/gateway/openai_request.h"

#include <fmt/core.h>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

namespace tutti::gateway {

namespace json = boost::json;

namespace {

constexpr std::size_t kStopsMax = 16;
constexpr std::uint32_t kTokensMax = 1u << 20;
constexpr std::uint32_t kLogprobsMax = 1;
constexpr std::string_view kPromptKinds = "must be a text, a list of texts or of token ids";

std::string string_of(const json::string& text) { return {text.data(), text.size()}; }

Refusal wrong(std::string_view field, std::string_view what) {
  Refusal out;
  out.message = fmt::format("{} {}", field, what);
  out.param = field;
  out.code = "invalid_value";
  return out;
}

Refusal not_json(std::string message) {
  Refusal out;
  out.message = std::move(message);
  out.code = "invalid_json";
  return out;
}

template <class T>
struct Range {
  T min;
  T max;
};

// Reads fields of one object; the first refusal is kept.
class Fields {
 public:
  explicit Fields(const json::object& object) : object_(object) {}

  // Null counts as missing.
  const json::value* find(std::string_view name) const {
    const json::value* value = object_.if_contains(name);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  template <class T>
  void number(std::string_view name, Range<T> range, T& out) {
    const json::value* value = find(name);
    if (value == nullptr) return;
    boost::system::error_code failure;
    const T number = value->to_number<T>(failure);
    if (failure || !(number >= range.min && number <= range.max))
      return fail(name, fmt::format("must be a number from {} to {}", range.min, range.max));
    out = number;
  }

  void flag(std::string_view name, bool& out) {
    const json::value* value = find(name);
    if (value == nullptr) return;
    if (!value->is_bool()) return fail(name, "must be true or false");
    out = value->as_bool();
  }

  void text(std::string_view name, std::string& out) {
    const json::value* value = find(name);
    if (value == nullptr) return;
    if (!value->is_string()) return fail(name, "must be a string");
    out = string_of(value->as_string());
  }

  // What this server cannot do may be there only with the value that asks for nothing.
  void only(std::string_view name, const json::value& neutral) {
    const json::value* value = find(name);
    if (value == nullptr || *value == neutral) return;
    const bool same_number = value->is_number() && neutral.is_number() &&
                             value->to_number<double>() == neutral.to_number<double>();
    if (same_number) return;
    fail(name, fmt::format("is not supported; leave it out"));
    refusal_->code = "unsupported_value";
  }

  void fail(std::string_view name, std::string_view what) {
    if (!refusal_) refusal_ = wrong(name, what);
  }
  const std::optional<Refusal>& refusal() const { return refusal_; }

 private:
  const json::object& object_;
  std::optional<Refusal> refusal_;
};

std::variant<json::object, Refusal> parse_object(std::string_view body) {
  boost::system::error_code failure;
  json::value value = json::parse(body, failure);
  if (failure) return not_json("the body is not JSON: " + failure.message());
  if (!value.is_object()) return not_json("the body is not a JSON object");
  return std::move(value.as_object());
}

void read_stop(Fields& fields, std::vector<std::string>& out) {
  constexpr std::string_view kKinds = "must be a string or a list of at most 16 strings";
  const json::value* stop = fields.find("stop");
  if (stop == nullptr) return;
  const auto add = [&](const json::value& text) {
    if (!text.is_string()) return fields.fail("stop", kKinds);
    if (text.as_string().empty()) return fields.fail("stop", "must not hold an empty string");
    out.push_back(string_of(text.as_string()));
  };
  if (!stop->is_array()) return add(*stop);
  if (stop->as_array().size() > kStopsMax) return fields.fail("stop", kKinds);
  for (const json::value& text : stop->as_array()) add(text);
}

void read_stream(Fields& fields, OpenAiRequest& request) {
  fields.flag("stream", request.stream);
  const json::value* options = fields.find("stream_options");
  if (options == nullptr) return;
  if (!options->is_object()) return fields.fail("stream_options", "must be an object");
  if (!request.stream) return fields.fail("stream_options", "is for streams: set stream to true");
  Fields inner(options->as_object());
  inner.flag("include_usage", request.include_usage);
  if (inner.refusal()) fields.fail("stream_options", inner.refusal()->message);
}

// What both dialects share.
void read_sampling(Fields& fields, OpenAiRequest& request, wire::Generate& generate) {
  fields.text("model", request.model);
  if (request.model.empty()) fields.fail("model", "is missing");
  fields.number<std::uint32_t>("max_tokens", {0, kTokensMax}, generate.tokens_max);
  fields.number<double>("temperature", {0, 100}, generate.temperature);
  fields.number<double>("top_p", {0, 1}, generate.top_p);
  if (generate.top_p == 0) fields.fail("top_p", "must be above 0 and at most 1");
  fields.number<std::uint32_t>("top_k", {0, kTokensMax}, generate.top_k);
  if (fields.find("seed") != nullptr) {
    std::int64_t seed = 0;
    fields.number<std::int64_t>(
        "seed",
        {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()}, seed);
    generate.seed = static_cast<std::uint64_t>(seed);
  }
  read_stop(fields, generate.stop);
  read_stream(fields, request);
  fields.only("n", 1);
  fields.only("best_of", 1);
  fields.only("presence_penalty", 0);
  fields.only("frequency_penalty", 0);
  fields.only("logit_bias", json::object{});
}

bool add_tokens(const json::array& ids, const wire::Generate& like,
                std::vector<wire::Generate>& out) {
  wire::Generate generate = like;
  for (const json::value& id : ids) {
    boost::system::error_code failure;
    generate.tokens.push_back(id.to_number<std::uint32_t>(failure));
    if (failure) return false;
  }
  if (generate.tokens.empty()) return false;
  out.push_back(std::move(generate));
  return true;
}

bool add_prompt(const json::value& prompt, const wire::Generate& like,
                std::vector<wire::Generate>& out) {
  if (prompt.is_array()) return add_tokens(prompt.as_array(), like, out);
  if (!prompt.is_string()) return false;
  out.push_back(like);
  out.back().prompt = string_of(prompt.as_string());
  return true;
}

void read_prompts(Fields& fields, const wire::Generate& like, std::vector<wire::Generate>& out) {
  const json::value* prompt = fields.find("prompt");
  if (prompt == nullptr) return fields.fail("prompt", "is missing");
  const json::array* items = prompt->if_array();
  if (items != nullptr && items->empty()) return fields.fail("prompt", kPromptKinds);
  if (items == nullptr || items->front().is_number()) {
    if (!add_prompt(*prompt, like, out)) fields.fail("prompt", kPromptKinds);
    return;
  }
  if (items->size() > kPromptsMax)
    return fields.fail("prompt", fmt::format("must hold at most {} texts", kPromptsMax));
  for (const json::value& item : *items) {
    if (!add_prompt(item, like, out)) return fields.fail("prompt", kPromptKinds);
  }
}

// The text of a message: a string, or the texts of its parts.
bool content_of(const json::value& content, std::string& out) {
  if (content.is_string()) {
    out = string_of(content.as_string());
    return true;
  }
  if (!content.is_array()) return false;
  for (const json::value& part : content.as_array()) {
    const json::object* object = part.if_object();
    const json::value* text = object != nullptr ? object->if_contains("text") : nullptr;
    if (text == nullptr || !text->is_string()) return false;
    out += string_of(text->as_string());
  }
  return true;
}

// Plain text, each message under its role; the model is to go on as the assistant, until the user's
// turn.
void read_messages(Fields& fields, wire::Generate& generate) {
  constexpr std::array<std::string_view, 4> kRoles = {"system", "developer", "user", "assistant"};
  const json::value* messages = fields.find("messages");
  if (messages == nullptr) return fields.fail("messages", "is missing");
  if (!messages->is_array() || messages->as_array().empty())
    return fields.fail("messages", "must be a list of messages");
  for (const json::value& message : messages->as_array()) {
    const json::object* object = message.if_object();
    const json::value* role = object != nullptr ? object->if_contains("role") : nullptr;
    const json::value* content = object != nullptr ? object->if_contains("content") : nullptr;
    std::string text;
    if (role == nullptr || !role->is_string() || content == nullptr || !content_of(*content, text))
      return fields.fail("messages", "must each have a role, and a content that is text");
    const std::string name = string_of(role->as_string());
    if (std::find(kRoles.begin(), kRoles.end(), name) == kRoles.end())
      return fields.fail("messages", "must each be of system, developer, user or assistant");
    generate.prompt.append(name).append(": ").append(text).append("\n");
  }
  generate.prompt += "assistant:";
  generate.stop.emplace_back("\nuser:");
}

void read_completion(Fields& fields, OpenAiRequest& request, wire::Generate& generate) {
  read_sampling(fields, request, generate);
  fields.only("suffix", "");
  fields.flag("echo", generate.echo);
  fields.number<std::uint32_t>("logprobs", {0, kLogprobsMax}, generate.logprobs);
  request.best_logprobs = generate.logprobs > 0;
  // 0 asks for those of the chosen tokens alone.
  if (fields.find("logprobs") != nullptr) generate.logprobs = 1;
  read_prompts(fields, generate, request.prompts);
  if (request.stream && request.prompts.size() > 1)
    fields.fail("prompt", "must be one text for a stream");
}

void read_chat(Fields& fields, OpenAiRequest& request, wire::Generate& generate) {
  generate.tokens_max = kChatTokensDefault;
  generate.tokens_as_fit =
      fields.find("max_tokens") == nullptr && fields.find("max_completion_tokens") == nullptr;
  read_sampling(fields, request, generate);
  fields.number<std::uint32_t>("max_completion_tokens", {0, kTokensMax}, generate.tokens_max);
  fields.only("tools", json::array{});
  fields.only("functions", json::array{});
  fields.only("response_format", json::object{{"type", "text"}});
  bool logprobs = false;
  std::uint32_t best = 0;
  fields.flag("logprobs", logprobs);
  fields.number<std::uint32_t>("top_logprobs", {0, kLogprobsMax}, best);
  if (best > 0 && !logprobs) fields.fail("top_logprobs", "needs logprobs to be true");
  request.best_logprobs = best > 0;
  generate.logprobs = logprobs ? 1 : 0;
  read_messages(fields, generate);
  request.prompts.push_back(std::move(generate));
}

Parsed parse(std::string_view body, std::uint64_t seed, Dialect dialect) {
  const auto object = parse_object(body);
  if (const auto* refusal = std::get_if<Refusal>(&object)) return *refusal;
  Fields fields(std::get<json::object>(object));
  OpenAiRequest request;
  request.dialect = dialect;
  wire::Generate generate;
  generate.seed = seed;
  if (dialect == Dialect::chat) {
    read_chat(fields, request, generate);
  } else {
    read_completion(fields, request, generate);
  }
  if (fields.refusal()) return *fields.refusal();
  return request;
}

}  // namespace

Refusal refusal_of(const Error& error) {
  Refusal out{.status = 500,
              .message = error.message,
              .type = "server_error",
              .param = {},
              .code = std::string(to_string(error.code))};
  switch (error.code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::unsupported:
      out.status = 400;
      out.type = "invalid_request_error";
      break;
    case ErrorCode::not_found:
      out.status = 404;
      out.type = "invalid_request_error";
      out.param = "model";
      out.code = "model_not_found";
      break;
    case ErrorCode::exhausted:
      out.status = 429;
      out.type = "rate_limit_error";
      out.code = "rate_limit_exceeded";
      break;
    case ErrorCode::unavailable:
    case ErrorCode::aborted: out.status = 503; break;
    case ErrorCode::deadline_exceeded: out.status = 504; break;
    default: break;
  }
  return out;
}

Parsed parse_completion(std::string_view body, std::uint64_t seed) {
  return parse(body, seed, Dialect::completion);
}

Parsed parse_chat(std::string_view body, std::uint64_t seed) {
  return parse(body, seed, Dialect::chat);
}

}  // namespace tutti::gateway
