#include "coordinator/gateway/openai_request.h"

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

#include <cmath>
#include <random>

#include "protocol/base/clock.h"

namespace tutti::gateway {

namespace json = boost::json;

namespace {

constexpr std::size_t kStopsMax = 16;
constexpr std::uint32_t kTokensMax = 1u << 20;

Error wrong(std::string_view field, std::string_view what) {
  return {ErrorCode::invalid_argument, std::string(field) + " " + std::string(what)};
}

// Reads fields of one object; the first wrong one is kept.
class Fields {
 public:
  explicit Fields(const json::object& object) : object_(object) {}

  const json::value* find(std::string_view name) const {
    const json::value* value = object_.if_contains(name);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  template <class T>
  void number(std::string_view name, T min, T max, T& out) {
    const json::value* value = find(name);
    if (value == nullptr || failed()) return;
    boost::system::error_code failure;
    const T number = value->to_number<T>(failure);
    if (failure || number < min || number > max) return fail(name, "is not a number in range");
    out = number;
  }

  void flag(std::string_view name, bool& out) {
    const json::value* value = find(name);
    if (value == nullptr || failed()) return;
    if (!value->is_bool()) return fail(name, "is not true or false");
    out = value->as_bool();
  }

  void text(std::string_view name, std::string& out) {
    const json::value* value = find(name);
    if (value == nullptr || failed()) return;
    if (!value->is_string()) return fail(name, "is not a string");
    out = value->as_string().c_str();
  }

  void fail(std::string_view name, std::string_view what) {
    if (!failed()) error_ = wrong(name, what);
  }
  bool failed() const { return !error_.message.empty(); }
  const Error& error() const { return error_; }

 private:
  const json::object& object_;
  Error error_;
};

Result<json::object> parse_object(std::string_view body) {
  boost::system::error_code failure;
  json::value value = json::parse(body, failure);
  if (failure) return wrong("the body", "is not JSON: " + failure.message());
  if (!value.is_object()) return wrong("the body", "is not a JSON object");
  return std::move(value.as_object());
}

void read_stop(Fields& fields, std::vector<std::string>& out) {
  const json::value* stop = fields.find("stop");
  if (stop == nullptr) return;
  if (stop->is_string()) {
    out.emplace_back(stop->as_string());
    return;
  }
  if (!stop->is_array() || stop->as_array().size() > kStopsMax)
    return fields.fail("stop", "is not a string or a short list of strings");
  for (const json::value& text : stop->as_array()) {
    if (!text.is_string()) return fields.fail("stop", "is not a string or a list of strings");
    out.emplace_back(text.as_string());
  }
}

// What both dialects share. Without a seed every request draws its own.
void read_sampling(Fields& fields, OpenAiRequest& request, wire::Generate& generate) {
  std::uint32_t choices = 1;
  fields.text("model", request.model);
  if (request.model.empty()) fields.fail("model", "is missing");
  fields.number<std::uint32_t>("n", 1, 1, choices);
  fields.number<std::uint32_t>("max_tokens", 0, kTokensMax, generate.tokens_max);
  fields.number<double>("temperature", 0.0, 100.0, generate.temperature);
  fields.number<double>("top_p", 0.0, 1.0, generate.top_p);
  fields.number<std::uint32_t>("top_k", 0, kTokensMax, generate.top_k);
  generate.seed = std::random_device{}();
  std::int64_t seed = 0;
  fields.number<std::int64_t>("seed", std::numeric_limits<std::int64_t>::min(),
                              std::numeric_limits<std::int64_t>::max(), seed);
  if (fields.find("seed") != nullptr) generate.seed = static_cast<std::uint64_t>(seed);
  read_stop(fields, generate.stop);
  fields.flag("stream", request.stream);
  const json::value* options = fields.find("stream_options");
  if (options != nullptr && options->is_object()) {
    Fields inner(options->as_object());
    inner.flag("include_usage", request.include_usage);
    if (inner.failed()) fields.fail("stream_options", "is malformed");
  }
}

void add_tokens(Fields& fields, const json::array& ids, const wire::Generate& like,
                std::vector<wire::Generate>& out) {
  wire::Generate generate = like;
  for (const json::value& id : ids) {
    boost::system::error_code failure;
    generate.tokens.push_back(id.to_number<std::uint32_t>(failure));
    if (failure) return fields.fail("prompt", "is not text, a list of texts or token ids");
  }
  out.push_back(std::move(generate));
}

void read_prompts(Fields& fields, const wire::Generate& like, std::vector<wire::Generate>& out) {
  const json::value* prompt = fields.find("prompt");
  if (prompt == nullptr) return fields.fail("prompt", "is missing");
  const auto add_text = [&](const json::value& text) {
    wire::Generate generate = like;
    generate.prompt = text.as_string().c_str();
    out.push_back(std::move(generate));
  };
  if (prompt->is_string()) return add_text(*prompt);
  if (!prompt->is_array() || prompt->as_array().empty())
    return fields.fail("prompt", "is not text, a list of texts or token ids");
  const json::array& items = prompt->as_array();
  if (items.front().is_number()) return add_tokens(fields, items, like, out);
  if (items.size() > kPromptsMax) return fields.fail("prompt", "has too many texts");
  for (const json::value& item : items) {
    if (item.is_string()) {
      add_text(item);
    } else if (item.is_array()) {
      add_tokens(fields, item.as_array(), like, out);
    } else {
      return fields.fail("prompt", "is not text, a list of texts or token ids");
    }
  }
}

// The text of a message: a string, or the texts of its parts.
bool content_of(const json::value& content, std::string& out) {
  if (content.is_string()) {
    out = content.as_string().c_str();
    return true;
  }
  if (!content.is_array()) return false;
  for (const json::value& part : content.as_array()) {
    const auto* object = part.if_object();
    const json::value* text = object != nullptr ? object->if_contains("text") : nullptr;
    if (text == nullptr || !text->is_string()) return false;
    out += text->as_string().c_str();
  }
  return true;
}

// Plain text, each message under its role; the model is to go on as the assistant, until the user's
// turn.
void read_messages(Fields& fields, wire::Generate& generate) {
  const json::value* messages = fields.find("messages");
  if (messages == nullptr || !messages->is_array() || messages->as_array().empty()) {
    return fields.fail("messages", "is not a list of messages");
  }
  for (const json::value& message : messages->as_array()) {
    const auto* object = message.if_object();
    const json::value* role = object != nullptr ? object->if_contains("role") : nullptr;
    const json::value* content = object != nullptr ? object->if_contains("content") : nullptr;
    std::string text;
    if (role == nullptr || !role->is_string() || content == nullptr ||
        !content_of(*content, text)) {
      return fields.fail("messages", "has a message without role and text");
    }
    generate.prompt.append(role->as_string().c_str()).append(": ").append(text).append("\n");
  }
  generate.prompt += "assistant:";
  generate.stop.emplace_back("\nuser:");
}

}  // namespace

Result<OpenAiRequest> parse_completion(std::string_view body) {
  const Result<json::object> object = parse_object(body);
  if (!object) return object.error();
  Fields fields(*object);
  OpenAiRequest request;
  wire::Generate generate;
  read_sampling(fields, request, generate);
  fields.flag("echo", generate.echo);
  fields.number<std::uint32_t>("logprobs", 0, 20, generate.logprobs);
  // 0 asks for those of the chosen tokens alone.
  if (fields.find("logprobs") != nullptr && generate.logprobs == 0) generate.logprobs = 1;
  read_prompts(fields, generate, request.prompts);
  if (request.stream && request.prompts.size() > 1)
    fields.fail("prompt", "has several texts, which cannot be streamed");
  if (fields.failed()) return fields.error();
  return request;
}

Result<OpenAiRequest> parse_chat(std::string_view body) {
  const Result<json::object> object = parse_object(body);
  if (!object) return object.error();
  Fields fields(*object);
  OpenAiRequest request;
  request.dialect = Dialect::chat;
  wire::Generate generate;
  generate.tokens_max = kChatTokensDefault;
  read_sampling(fields, request, generate);
  fields.number<std::uint32_t>("max_completion_tokens", 0, kTokensMax, generate.tokens_max);
  bool logprobs = false;
  fields.flag("logprobs", logprobs);
  fields.number<std::uint32_t>("top_logprobs", 0, 20, generate.logprobs);
  generate.logprobs = logprobs ? std::max(1u, generate.logprobs) : 0;
  read_messages(fields, generate);
  if (fields.failed()) return fields.error();
  request.prompts.push_back(std::move(generate));
  return request;
}

}  // namespace tutti::gateway
