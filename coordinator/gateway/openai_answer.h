// What a serving rank generated -> OpenAI's answers: whole, as chunks of a stream, and errors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/gateway/openai_request.h"
#include "protocol/base/error.h"
#include "protocol/wire/serve_messages.h"

namespace tutti::gateway {

// What all parts of one answer have in common.
struct AnswerHead {
  Dialect dialect = Dialect::completion;
  std::string id;
  std::string model;
  std::int64_t created_unix = 0;  // seconds
};

// The parts of one prompt's answer, joined.
struct Choice {
  std::string text;
  std::vector<wire::TokenChoice> chosen;
  std::string finish;
  std::uint32_t prompt_tokens = 0;
  std::uint32_t completion_tokens = 0;

  void add(const wire::Generated& part);
};

AnswerHead new_answer(const OpenAiRequest& request);
std::string whole_answer(const AnswerHead& head, const std::vector<Choice>& choices);

// One event of a stream: "data: {...}\n\n".
std::string first_event(const AnswerHead& head);  // empty for completions
std::string part_event(const AnswerHead& head, const wire::Generated& part);
std::string usage_event(const AnswerHead& head, const wire::Generated& last);
std::string error_event(const Error& error);
inline constexpr const char* kStreamEnd = "data: [DONE]\n\n";

// {"error": {"message", "type", "param", "code"}}
std::string error_body(const Error& error);

// The error that a part with finish "error" carries.
Error error_of(const wire::Generated& part);

std::string models_body(const std::vector<std::string>& models);

}  // namespace tutti::gateway
