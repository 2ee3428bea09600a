// An OpenAI request body -> what is asked of the serving rank, or why it is refused.
//
// Which fields are heard, refused and ignored: README.md of this folder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "protocol/base/error.h"
#include "protocol/wire/serve_messages.h"

namespace tutti::gateway {

inline constexpr std::size_t kPromptsMax = 128;
// Of a chat that sets no limit, as far as the context allows.
inline constexpr std::uint32_t kChatTokensDefault = 512;

enum class Dialect { completion, chat };

struct OpenAiRequest {
  Dialect dialect = Dialect::completion;
  std::string model;
  std::vector<wire::Generate> prompts;  // one, or one for each text of a list
  bool stream = false;
  bool include_usage = false;
  bool best_logprobs = false;  // of each place the best token's, too

  bool operator==(const OpenAiRequest&) const = default;
};

// An error as OpenAI's clients read it.
struct Refusal {
  unsigned status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::string param;  // empty: null
  std::string code;

  bool operator==(const Refusal&) const = default;
};

Refusal refusal_of(const Error& error);

using Parsed = std::variant<OpenAiRequest, Refusal>;

// Requests without a seed get `seed`.
Parsed parse_completion(std::string_view body, std::uint64_t seed);
Parsed parse_chat(std::string_view body, std::uint64_t seed);

}  // namespace tutti::gateway
