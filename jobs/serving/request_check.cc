#include "jobs/serving/request_check.h"

#include <fmt/core.h>

#include <cmath>
#include <utility>

namespace tutti::serving {
namespace {

Error refused(std::string message) { return {ErrorCode::invalid_argument, std::move(message)}; }

}  // namespace

Result<> check_settings(const Request& request) {
  if (!std::isfinite(request.temperature) || request.temperature < 0) {
    return refused(fmt::format("temperature is {}; it must be 0 or more", request.temperature));
  }
  if (!(request.top_p > 0 && request.top_p <= 1)) {
    return refused(fmt::format("top_p is {}; it must be above 0 and at most 1", request.top_p));
  }
  if (request.stop.size() > kStopTextsMax) {
    return refused(
        fmt::format("{} stop texts; at most {} are taken", request.stop.size(), kStopTextsMax));
  }
  for (const std::string& stop : request.stop) {
    if (stop.empty()) return refused("a stop text is empty");
    if (stop.size() > kStopBytesMax) {
      return refused(
          fmt::format("a stop text of {} bytes; at most {} are taken", stop.size(), kStopBytesMax));
    }
  }
  return {};
}

Result<std::vector<std::int32_t>> prompt_tokens(const Request& request,
                                                const tokenizers::Tokenizer* tokenizer,
                                                const models::DecoderDescription& description) {
  std::vector<std::uint32_t> ids = request.tokens;
  if (ids.empty()) {
    if (tokenizer == nullptr && !request.prompt.empty()) {
      return refused("the model has no tokenizer; give token ids");
    }
    if (tokenizer != nullptr) ids = tokenizer->encode_whole(request.prompt);
  }
  if (ids.empty() && description.begin_token >= 0) {
    ids.push_back(static_cast<std::uint32_t>(description.begin_token));
  }
  if (ids.empty() && tokenizer != nullptr && tokenizer->end_of_text()) {
    ids.push_back(*tokenizer->end_of_text());
  }
  if (ids.empty()) return refused("the prompt is empty, and the model has no begin token");
  std::vector<std::int32_t> prompt;
  prompt.reserve(ids.size());
  for (const std::uint32_t id : ids) {
    if (id >= description.vocabulary) {
      return refused(
          fmt::format("token {} at position {} of the prompt is outside the "
                      "vocabulary of {}",
                      id, prompt.size(), description.vocabulary));
    }
    prompt.push_back(static_cast<std::int32_t>(id));
  }
  return prompt;
}

}  // namespace tutti::serving
