#include "jobs/tokenizers/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/core.h>
#include <pcre2.h>

#include <array>

namespace tutti::tokenizers {

struct Pattern::Code {
  pcre2_code* code = nullptr;
  bool compiled_to_machine_code = false;

  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

struct Matcher::State {
  std::shared_ptr<const Pattern::Code> code;
  pcre2_match_data* match = nullptr;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { pcre2_match_data_free(match); }
};

Result<Pattern> Pattern::compile(std::string_view expression) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code->code == nullptr) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(error, message.data(), message.size());
    return Error{ErrorCode::invalid_argument,
                 fmt::format("cannot compile the pattern {}: {} at offset {}", expression,
                             reinterpret_cast<const char*>(message.data()), offset)};
  }
  code->compiled_to_machine_code = pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE) == 0;
  return Pattern(std::move(code));
}

Matcher::Matcher(const Pattern& pattern) : state_(std::make_unique<State>()) {
  state_->code = pattern.code_;
  state_->match = pcre2_match_data_create(1, nullptr);
  TUTTI_ASSERT(state_->match != nullptr);
}

Matcher::Matcher(Matcher&&) noexcept = default;
Matcher::~Matcher() = default;

Matcher::Span Matcher::next(std::string_view text, std::size_t from) {
  const pcre2_code* code = state_->code->code;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  // The caller has checked the text: checking the rest of it for every piece would be quadratic.
  const auto attempt = [&](std::size_t at, std::uint32_t options) {
    int found = PCRE2_ERROR_JIT_STACKLIMIT;
    if (state_->code->compiled_to_machine_code) {
      found = pcre2_jit_match(code, subject, text.size(), at, options, state_->match, nullptr);
    }
    if (found != PCRE2_ERROR_JIT_STACKLIMIT) return found;
    return pcre2_match(code, subject, text.size(), at, options | PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       state_->match, nullptr);
  };
  if (from < text.size()) {
    int found = attempt(from, 0);
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(state_->match);
    if (found >= 0 && ends[0] == ends[1]) found = attempt(ends[0], PCRE2_NOTEMPTY);
    if (found >= 0) return {ends[0], ends[1]};
  }
  return {text.size(), text.size()};
}

}  // namespace tutti::tokenizers
