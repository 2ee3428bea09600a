#include "coordinator/gateway/openai_answer.h"

#include <fmt/core.h>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include <algorithm>

#include "coordinator/api/json_views.h"

namespace tutti::gateway {

namespace json = boost::json;

namespace {

json::value finish_of(const std::string& finish) {
  return finish.empty() ? json::value(nullptr) : json::value(finish);
}

// A token may be a part of a character: then its bytes are spelt out, as OpenAI does.
std::string token_name(std::string_view text) {
  std::string valid = api::valid_utf8(text);
  if (valid == text) return valid;
  std::string out = "bytes:";
  for (const char c : text) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return out;
}

// Every character has one byte that does not continue another.
std::size_t characters_of(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

// Nothing precedes the first token of an echoed prompt, so it has no log-probability.
json::value logprob_of(const AnswerHead& head, const wire::TokenChoice& choice,
                       const Written& written) {
  if (head.echo && written.tokens == 0) return nullptr;
  return static_cast<double>(choice.logprob);
}

json::value completion_logprobs(const AnswerHead& head,
                                const std::vector<wire::TokenChoice>& chosen, Written& written) {
  if (chosen.empty()) return nullptr;
  json::array tokens;
  json::array logprobs;
  json::array best;
  json::array offsets;
  for (const wire::TokenChoice& choice : chosen) {
    const std::string name = token_name(choice.text);
    json::value logprob = logprob_of(head, choice, written);
    best.push_back(logprob.is_null() ? json::value(nullptr)
                                     : json::value(json::object{{name, logprob}}));
    tokens.emplace_back(name);
    logprobs.push_back(std::move(logprob));
    offsets.emplace_back(written.characters);
    ++written.tokens;
    written.characters += characters_of(choice.text);
  }
  return json::object{{"tokens", std::move(tokens)},
                      {"token_logprobs", std::move(logprobs)},
                      {"top_logprobs", head.best_logprobs ? json::value(best) : nullptr},
                      {"text_offset", std::move(offsets)}};
}

json::value chat_logprobs(const AnswerHead& head, const std::vector<wire::TokenChoice>& chosen) {
  if (chosen.empty()) return nullptr;
  json::array content;
  for (const wire::TokenChoice& choice : chosen) {
    json::array bytes;
    for (const char c : choice.text) bytes.emplace_back(static_cast<unsigned char>(c));
    json::object entry{{"token", api::valid_utf8(choice.text)},
                       {"logprob", static_cast<double>(choice.logprob)},
                       {"bytes", std::move(bytes)}};
    json::array best;
    if (head.best_logprobs) best.push_back(entry);
    entry["top_logprobs"] = std::move(best);
    content.push_back(std::move(entry));
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

json::object chunk_of(const AnswerHead& head, json::array choices) {
  json::object out = object_of(head, "chat.completion.chunk");
  out["choices"] = std::move(choices);
  if (head.include_usage) out["usage"] = nullptr;
  return out;
}

std::string event_of(const json::object& object) {
  return "data: " + json::serialize(object) + "\n\n";
}

json::object choice_of(const AnswerHead& head, const Choice& choice, std::size_t index) {
  json::object out{{"index", index}};
  const std::string text = api::valid_utf8(choice.text);
  if (head.dialect == Dialect::chat) {
    out["message"] = json::object{{"role", "assistant"}, {"content", text}, {"refusal", nullptr}};
    out["logprobs"] = chat_logprobs(head, choice.chosen);
  } else {
    Written written;
    out["text"] = text;
    out["logprobs"] = completion_logprobs(head, choice.chosen, written);
  }
  out["finish_reason"] = finish_of(choice.finish);
  return out;
}

json::object object_of(const Refusal& refusal) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? json::value(nullptr) : json::value(text);
  };
  return {{"error", json::object{{"message", api::valid_utf8(refusal.message)},
                                 {"type", refusal.type},
                                 {"param", or_null(refusal.param)},
                                 {"code", or_null(refusal.code)}}}};
}

}  // namespace

AnswerHead head_of(const OpenAiRequest& request, std::string_view unique,
                   std::int64_t created_unix) {
  const bool chat = request.dialect == Dialect::chat;
  return {.dialect = request.dialect,
          .id = fmt::format("{}-{}", chat ? "chatcmpl" : "cmpl", unique),
          .model = request.model,
          .created_unix = created_unix,
          .echo = request.prompts.front().echo,
          .include_usage = request.include_usage,
          .best_logprobs = request.best_logprobs};
}

void Choice::add(const wire::Generated& part) {
  text += part.text;
  chosen.insert(chosen.end(), part.chosen.begin(), part.chosen.end());
  if (part.finish.empty()) return;
  finish = part.finish;
  prompt_tokens = part.prompt_tokens;
  completion_tokens = part.completion_tokens;
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

std::string AnswerEvents::first() const {
  if (head_.dialect != Dialect::chat) return {};
  json::array choices;
  choices.push_back(json::object{{"index", 0},
                                 {"delta", json::object{{"role", "assistant"}, {"content", ""}}},
                                 {"logprobs", nullptr},
                                 {"finish_reason", nullptr}});
  return event_of(chunk_of(head_, std::move(choices)));
}

std::string AnswerEvents::part(const wire::Generated& part) {
  json::object choice{{"index", 0}};
  const std::string text = api::valid_utf8(part.text);
  if (head_.dialect == Dialect::chat) {
    json::object delta;
    if (!text.empty()) delta["content"] = text;
    choice["delta"] = std::move(delta);
    choice["logprobs"] = chat_logprobs(head_, part.chosen);
  } else {
    choice["text"] = text;
    choice["logprobs"] = completion_logprobs(head_, part.chosen, written_);
  }
  choice["finish_reason"] = finish_of(part.finish);
  json::array choices;
  choices.push_back(std::move(choice));
  std::string events = event_of(chunk_of(head_, std::move(choices)));
  if (part.finish.empty()) return events;
  if (head_.include_usage) {
    json::object last = chunk_of(head_, {});
    last["usage"] = usage_of(part.prompt_tokens, part.completion_tokens);
    events += event_of(last);
  }
  return events + "data: [DONE]\n\n";
}

std::string AnswerEvents::failure(const Refusal& refusal) { return event_of(object_of(refusal)); }

std::string refusal_body(const Refusal& refusal) { return json::serialize(object_of(refusal)); }

std::string models_body(const std::vector<std::string>& models) {
  json::array list;
  for (const std::string& model : models) {
    list.push_back(
        json::object{{"id", model}, {"object", "model"}, {"created", 0}, {"owned_by", "tutti"}});
  }
  return json::serialize(json::object{{"object", "list"}, {"data", std::move(list)}});
}

}  // namespace tutti::gateway
