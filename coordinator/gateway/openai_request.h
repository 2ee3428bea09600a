// An OpenAI request body -> what is asked of the serving rank.
//
// Of OpenAI's fields these are heard: model, prompt (text, texts, token ids), messages, max_tokens,
// max_completion_tokens, temperature, top_p, seed, stop, echo, logprobs, top_logprobs, stream,
// stream_options.include_usage; and beside them top_k. n other than 1 is refused; other fields are
// ignored, as OpenAI's clients send many. Errors: invalid_argument, naming the field.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/result.h"
#include "protocol/wire/serve_messages.h"

namespace tutti::gateway {

inline constexpr std::size_t kPromptsMax = 128;
inline constexpr std::uint32_t kChatTokensDefault = 256;

enum class Dialect { completion, chat };

struct OpenAiRequest {
  Dialect dialect = Dialect::completion;
  std::string model;
  std::vector<wire::Generate> prompts;  // one, or one for each text of a list
  bool stream = false;
  bool include_usage = false;
};

Result<OpenAiRequest> parse_completion(std::string_view body);
Result<OpenAiRequest> parse_chat(std::string_view body);

}  // namespace tutti::gateway
