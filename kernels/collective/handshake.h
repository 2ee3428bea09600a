// What two ranks show each other before a link between them counts: generation, rank and the
// group's secret.
//
//   dialer -> acceptor   Greeting, fixed size, so that a stranger costs a bounded read
//   acceptor -> dialer   Greeting with its verdict; the secret only if the dialer knew it
//
// The secret is compared in constant time. It keeps out strangers on the machine or the network
// segment; it does not hide the data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/collective/communicator.h"

namespace tutti::kernels {

enum class Verdict : std::uint32_t { accepted, wrong_secret, wrong_generation, wrong_rank };

struct Greeting {
  std::uint32_t magic = 0;
  Verdict verdict = Verdict::accepted;
  std::uint64_t generation = 0;
  std::uint32_t rank = 0;
  std::uint32_t size = 0;
  std::uint64_t secret_bytes = 0;
  char secret[kSecretBytesMax] = {};
};
static_assert(sizeof(Greeting) == 32 + kSecretBytesMax);

Greeting make_greeting(const FormOptions& options);
Greeting make_refusal(Verdict verdict);

// Whether the greeting is of this protocol at all; noise is not answered.
bool is_greeting(const Greeting& greeting);

// What an acceptor thinks of a dialer, which must be a rank above its own.
Verdict judge_dialer(const Greeting& greeting, const FormOptions& options);

// What a dialer thinks of the answer of `peer`. Errors: permission_denied, stale, corrupt.
Result<> judge_answer(const Greeting& greeting, const FormOptions& options, std::uint32_t peer);

}  // namespace tutti::kernels
