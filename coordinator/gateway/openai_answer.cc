#include "coordinator/gateway/openai_answer.h"

#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include "coordinator/api/json_views.h"
#include "protocol/base/clock.h"
#include "protocol/base/secret.h"

namespace tutti::gateway {

namespace json = boost::json;

namespace {

json::value finish_of(const std::string& finish) {
  return finish.empty() ? json::value(nullptr) : json::value(finish);
}

json::value completion_logprobs(const std::vector<wire::TokenChoice>& chosen) {
  if (chosen.empty()) return nullptr;
  json::array tokens;
  json::array logprobs;
  json::array offsets;
  std::size_t offset = 0;
  for (const wire::TokenChoice& choice : chosen) {
    tokens.emplace_back(api::valid_utf8(choice.text));
    logprobs.emplace_back(choice.logprob);
    offsets.emplace_back(offset);
    offset += choice.text.size();
  }
  return json::object{{"tokens", std::move(tokens)},
                      {"token_logprobs", std::move(logprobs)},
                      {"top_logprobs", nullptr},
                      {"text_offset", std::move(offsets)}};
}

json::value chat_logprobs(const std::vector<wire::TokenChoice>& chosen) {
  if (chosen.empty()) return nullptr;
  json::array content;
  for (const wire::TokenChoice& choice : chosen) {
    json::array bytes;
    for (const char c : choice.text) bytes.emplace_back(static_cast<unsigned char>(c));
    content.push_back(json::object{{"token", api::valid_utf8(choice.text)},
                                   {"logprob", choice.logprob},
                                   {"bytes", std::move(bytes)},
                                   {"top_logprobs", json::array()}});
  }
  return json::object{{"content", std::move(content)}};
}

json::object usage_of(std::uint64_t prompt_tokens, std::uint64_t completion_tokens) {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens}};
}

// Without choices.
json::object object_of(const AnswerHead& head, std::string_view chat_object) {
  const std::string_view object = head.dialect == Dialect::chat ? chat_object : "text_completion";
  return {
      {"id", head.id}, {"object", object}, {"created", head.created_unix}, {"model", head.model}};
}

std::string event_of(const json::object& object) {
  return "data: " + json::serialize(object) + "\n\n";
}

json::object chunk_with(const AnswerHead& head, json::object choice) {
  json::object out = object_of(head, "chat.completion.chunk");
  json::array choices;
  choices.push_back(std::move(choice));
  out["choices"] = std::move(choices);
  return out;
}

json::object choice_of(const AnswerHead& head, const Choice& choice, std::size_t index) {
  json::object out{{"index", index}};
  if (head.dialect == Dialect::chat) {
    out["message"] = json::object{{"role", "assistant"}, {"content", api::valid_utf8(choice.text)}};
    out["logprobs"] = chat_logprobs(choice.chosen);
  } else {
    out["text"] = api::valid_utf8(choice.text);
    out["logprobs"] = completion_logprobs(choice.chosen);
  }
  out["finish_reason"] = finish_of(choice.finish);
  return out;
}

std::string_view type_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::not_found:
    case ErrorCode::unsupported: return "invalid_request_error";
    case ErrorCode::permission_denied: return "authentication_error";
    case ErrorCode::exhausted: return "rate_limit_error";
    default: return "server_error";
  }
}

json::object error_object(const Error& error) {
  return {{"error", json::object{{"message", error.message},
                                 {"type", type_of(error.code)},
                                 {"param", nullptr},
                                 {"code", to_string(error.code)}}}};
}

}  // namespace

void Choice::add(const wire::Generated& part) {
  text += part.text;
  chosen.insert(chosen.end(), part.chosen.begin(), part.chosen.end());
  if (part.finish.empty()) return;
  finish = part.finish;
  prompt_tokens = part.prompt_tokens;
  completion_tokens = part.completion_tokens;
}

AnswerHead new_answer(const OpenAiRequest& request) {
  const char* prefix = request.dialect == Dialect::chat ? "chatcmpl-" : "cmpl-";
  return {request.dialect, prefix + random_hex(12), request.model, wall_now().unix_ms / 1000};
}

std::string whole_answer(const AnswerHead& head, const std::vector<Choice>& choices) {
  json::object out = object_of(head, "chat.completion");
  json::array list;
  std::uint64_t prompt_tokens = 0;
  std::uint64_t completion_tokens = 0;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    list.push_back(choice_of(head, choices[i], i));
    prompt_tokens += choices[i].prompt_tokens;
    completion_tokens += choices[i].completion_tokens;
  }
  out["choices"] = std::move(list);
  out["usage"] = usage_of(prompt_tokens, completion_tokens);
  return json::serialize(out);
}

std::string first_event(const AnswerHead& head) {
  if (head.dialect != Dialect::chat) return {};
  return event_of(
      chunk_with(head, json::object{{"index", 0},
                                    {"delta", json::object{{"role", "assistant"}, {"content", ""}}},
                                    {"logprobs", nullptr},
                                    {"finish_reason", nullptr}}));
}

std::string part_event(const AnswerHead& head, const wire::Generated& part) {
  json::object choice{{"index", 0}};
  const std::string text = api::valid_utf8(part.text);
  if (head.dialect == Dialect::chat) {
    json::object delta;
    if (!text.empty()) delta["content"] = text;
    choice["delta"] = std::move(delta);
    choice["logprobs"] = chat_logprobs(part.chosen);
  } else {
    choice["text"] = text;
    choice["logprobs"] = completion_logprobs(part.chosen);
  }
  choice["finish_reason"] = finish_of(part.finish);
  return event_of(chunk_with(head, std::move(choice)));
}

std::string usage_event(const AnswerHead& head, const wire::Generated& last) {
  json::object out = object_of(head, "chat.completion.chunk");
  out["choices"] = json::array();
  out["usage"] = usage_of(last.prompt_tokens, last.completion_tokens);
  return event_of(out);
}

std::string error_event(const Error& error) { return event_of(error_object(error)); }

std::string error_body(const Error& error) { return json::serialize(error_object(error)); }

Error error_of(const wire::Generated& part) {
  Error error{ErrorCode::internal, part.error};
  for (int i = 0; i <= static_cast<int>(ErrorCode::internal); ++i) {
    if (to_string(static_cast<ErrorCode>(i)) == part.error_code)
      error.code = static_cast<ErrorCode>(i);
  }
  return error;
}

std::string models_body(const std::vector<std::string>& models) {
  json::array list;
  for (const std::string& model : models) {
    list.push_back(
        json::object{{"id", model}, {"object", "model"}, {"created", 0}, {"owned_by", "tutti"}});
  }
  return json::serialize(json::object{{"object", "list"}, {"data", std::move(list)}});
}

}  // namespace tutti::gateway
