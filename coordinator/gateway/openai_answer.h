// What a serving rank generated -> OpenAI's answers: whole, as chunks of a stream, and errors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/gateway/openai_request.h"
#include "protocol/wire/serve_messages.h"

namespace tutti::gateway {

// What all parts of one answer have in common.
struct AnswerHead {
  Dialect dialect = Dialect::completion;
  std::string id;
  std::string model;
  std::int64_t created_unix = 0;  // seconds
  bool echo = false;
  bool include_usage = false;
  bool best_logprobs = false;
};

// `unique` goes into the id.
AnswerHead head_of(const OpenAiRequest& request, std::string_view unique,
                   std::int64_t created_unix);

// The parts of one prompt's answer, joined.
struct Choice {
  std::string text;
  std::vector<wire::TokenChoice> chosen;
  std::string finish;
  std::uint32_t prompt_tokens = 0;
  std::uint32_t completion_tokens = 0;

  void add(const wire::Generated& part);
};

std::string whole_answer(const AnswerHead& head, const std::vector<Choice>& choices);

// How much of a choice has been written: log-probabilities state where their token begins.
struct Written {
  std::size_t tokens = 0;
  std::size_t characters = 0;
};

// The events of one streamed answer, each "data: {...}\n\n", in the order in which they are
// written.
class AnswerEvents {
 public:
  explicit AnswerEvents(AnswerHead head) : head_(std::move(head)) {}

  std::string first() const;  // empty for completions
  // With the last part also the usage, if it was asked for, and the end of the stream.
  std::string part(const wire::Generated& part);
  // Nothing follows, not even [DONE], which says that all went well.
  static std::string failure(const Refusal& refusal);

 private:
  const AnswerHead head_;
  Written written_;
};

// {"error": {"message", "type", "param", "code"}}
std::string refusal_body(const Refusal& refusal);

std::string models_body(const std::vector<std::string>& models);

}  // namespace tutti::gateway
