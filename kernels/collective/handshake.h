// What two ranks show each other before a link between them counts: generation, rank, and that they
// know the group's secret.
//
//   dialer -> acceptor   Greeting with a fresh nonce, fixed size, so that a stranger costs a
//                        bounded read
//   acceptor -> dialer   Greeting with its verdict; its proof only if the dialer's was right. Over
//                        a Unix socket with the memory of two rings, if both want them
//   dialer -> acceptor   then one byte: whether it took them
//
// The secret itself never leaves a process: a proof is HMAC-SHA-256 under it of who speaks to whom,
// in which generation, and of the dialer's nonce. Who listens at an address that a rank has left
// learns nothing, and an answer cannot be repeated; a greeting that was overheard fits one place,
// which its owner holds. Proofs are compared in constant time. It keeps out strangers on the
// machine or the network; it does not hide the data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/collective/communicator.h"

namespace tutti::kernels {

// The dialer's byte about the rings.
inline constexpr char kRingsTaken = 'r';
inline constexpr char kRingsDeclined = 's';

enum class Verdict : std::uint32_t { accepted, wrong_secret, wrong_generation, wrong_rank };

inline constexpr std::size_t kNonceBytes = 32;  // hexadecimal digits
inline constexpr std::size_t kProofBytes = 64;

struct Greeting {
  std::uint32_t magic = 0;
  Verdict verdict = Verdict::accepted;
  std::uint64_t generation = 0;
  std::uint32_t rank = 0;
  std::uint32_t size = 0;
  std::uint64_t ring_bytes = 0;  // of one direction: at most (dialer), or as sent along (acceptor)
  char nonce[kNonceBytes] = {};
  char proof[kProofBytes] = {};
};
static_assert(sizeof(Greeting) == 32 + kNonceBytes + kProofBytes);

// To the acceptor at rank `peer`.
Greeting make_greeting(const FormOptions& options, std::uint32_t peer);
// To a dialer whose greeting was accepted.
Greeting make_answer(const FormOptions& options, const Greeting& dialer, std::uint64_t ring_bytes);
Greeting make_refusal(Verdict verdict);

// Whether the greeting is of this protocol at all; noise is not answered.
bool is_greeting(const Greeting& greeting);

// What an acceptor thinks of a dialer, which must be a rank above its own.
Verdict judge_dialer(const Greeting& greeting, const FormOptions& options);

// What a dialer that said `own` thinks of the answer of `peer`. Errors: permission_denied, stale,
// corrupt.
Result<> judge_answer(const Greeting& greeting, const Greeting& own, const FormOptions& options,
                      std::uint32_t peer);

}  // namespace tutti::kernels
