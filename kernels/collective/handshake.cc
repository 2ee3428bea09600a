#include "kernels/collective/handshake.h"

#include <cstring>

#include "protocol/base/secret.h"

namespace tutti::kernels {
namespace {

constexpr std::uint32_t kMagic = 0x4d545554;  // "TUTM", little endian; changes with the layout

std::string_view shown_secret(const Greeting& greeting) {
  return {greeting.secret, greeting.secret_bytes <= kSecretBytesMax ? greeting.secret_bytes : 0};
}

}  // namespace

Greeting make_greeting(const FormOptions& options) {
  TUTTI_ASSERT(options.secret.size() <= kSecretBytesMax);
  Greeting greeting;
  greeting.magic = kMagic;
  greeting.generation = options.generation;
  greeting.rank = options.rank;
  greeting.size = static_cast<std::uint32_t>(options.addresses.size());
  greeting.secret_bytes = options.secret.size();
  std::memcpy(greeting.secret, options.secret.data(), options.secret.size());
  return greeting;
}

Greeting make_refusal(Verdict verdict) {
  Greeting greeting;
  greeting.magic = kMagic;
  greeting.verdict = verdict;
  return greeting;
}

bool is_greeting(const Greeting& greeting) { return greeting.magic == kMagic; }

Verdict judge_dialer(const Greeting& greeting, const FormOptions& options) {
  if (!equal_secrets(shown_secret(greeting), options.secret)) return Verdict::wrong_secret;
  if (greeting.generation != options.generation) return Verdict::wrong_generation;
  const bool fits = greeting.rank > options.rank && greeting.rank < options.addresses.size() &&
                    greeting.size == options.addresses.size();
  return fits ? Verdict::accepted : Verdict::wrong_rank;
}

Result<> judge_answer(const Greeting& greeting, const FormOptions& options, std::uint32_t peer) {
  const std::string who = "rank " + std::to_string(peer);
  if (!is_greeting(greeting)) {
    return Error{ErrorCode::corrupt, who + " answered something that is no greeting"};
  }
  switch (greeting.verdict) {
    case Verdict::accepted: break;
    case Verdict::wrong_secret:
      return Error{ErrorCode::permission_denied, who + " refused our secret"};
    case Verdict::wrong_generation:
      return Error{ErrorCode::stale,
                   who + " is not in generation " + std::to_string(options.generation)};
    default:
      return Error{ErrorCode::corrupt,
                   who + " has no place for rank " + std::to_string(options.rank)};
  }
  if (!equal_secrets(shown_secret(greeting), options.secret)) {
    return Error{ErrorCode::permission_denied, who + " does not know the group's secret"};
  }
  if (greeting.generation != options.generation) {
    return Error{ErrorCode::stale,
                 who + " is in generation " + std::to_string(greeting.generation)};
  }
  if (greeting.rank != peer) {
    return Error{ErrorCode::corrupt,
                 "the address of " + who + " answered as rank " + std::to_string(greeting.rank)};
  }
  return {};
}

}  // namespace tutti::kernels
