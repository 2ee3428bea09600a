// Whether a request can be served at all, and its prompt as token ids.
//
// Errors: invalid_argument, naming the setting and its value.
#pragma once

#include <cstdint>
#include <vector>

#include "jobs/models/description.h"
#include "jobs/serving/request.h"
#include "jobs/tokenizers/tokenizer.h"
#include "protocol/base/result.h"

namespace tutti::serving {

// Stop texts are looked for after every token.
inline constexpr std::size_t kStopTextsMax = 16;
inline constexpr std::size_t kStopBytesMax = 1024;

Result<> check_settings(const Request& request);

// A text as its model wants it (with a begin token, say). An empty prompt is the begin token alone,
// or the end-of-text token of models that have no other.
Result<std::vector<std::int32_t>> prompt_tokens(const Request& request,
                                                const tokenizers::Tokenizer* tokenizer,
                                                const models::DecoderDescription& description);

}  // namespace tutti::serving
