#include "kernels/collective/handshake.h"

#include <cstring>

#include "protocol/base/assert.h"
#include "protocol/base/secret.h"
#include "protocol/base/sha256.h"

namespace tutti::kernels {
namespace {

constexpr std::uint32_t kMagic = 0x4f545554;  // "TUTO", little endian; changes with the layout

enum class Speaker : char { dialer = 'd', acceptor = 'a' };

// Binds all that the greeting says, who it is for, and the dialer's nonce.
std::string proof_of(const Greeting& greeting, Speaker speaker, std::uint32_t peer,
                     const std::string& secret) {
  std::string said(1, static_cast<char>(speaker));
  const auto add = [&](std::uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) said.push_back(static_cast<char>(value >> shift));
  };
  add(greeting.generation);
  add(greeting.rank);
  add(greeting.size);
  add(peer);
  add(greeting.ring_bytes);
  said.append(greeting.nonce, kNonceBytes);
  return hmac_sha256_hex(secret, said);
}

bool is_proven(const Greeting& greeting, Speaker speaker, std::uint32_t peer,
               const std::string& secret) {
  return equal_secrets({greeting.proof, kProofBytes}, proof_of(greeting, speaker, peer, secret));
}

Greeting own_greeting(const FormOptions& options) {
  Greeting greeting;
  greeting.magic = kMagic;
  greeting.generation = options.generation;
  greeting.rank = options.rank;
  greeting.size = static_cast<std::uint32_t>(options.addresses.size());
  return greeting;
}

void prove(Greeting& greeting, Speaker speaker, std::uint32_t peer, const std::string& secret) {
  const std::string proof = proof_of(greeting, speaker, peer, secret);
  TUTTI_ASSERT(proof.size() == kProofBytes);
  std::memcpy(greeting.proof, proof.data(), kProofBytes);
}

}  // namespace

Greeting make_greeting(const FormOptions& options, std::uint32_t peer) {
  Greeting greeting = own_greeting(options);
  greeting.ring_bytes = options.ring_bytes;
  const std::string nonce = random_hex(kNonceBytes / 2);
  std::memcpy(greeting.nonce, nonce.data(), kNonceBytes);
  prove(greeting, Speaker::dialer, peer, options.secret);
  return greeting;
}

Greeting make_answer(const FormOptions& options, const Greeting& dialer, std::uint64_t ring_bytes) {
  Greeting greeting = own_greeting(options);
  greeting.ring_bytes = ring_bytes;
  std::memcpy(greeting.nonce, dialer.nonce, kNonceBytes);
  prove(greeting, Speaker::acceptor, dialer.rank, options.secret);
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
  if (!is_proven(greeting, Speaker::dialer, options.rank, options.secret)) {
    return Verdict::wrong_secret;
  }
  if (greeting.generation != options.generation) return Verdict::wrong_generation;
  const bool fits = greeting.rank > options.rank && greeting.rank < options.addresses.size() &&
                    greeting.size == options.addresses.size();
  return fits ? Verdict::accepted : Verdict::wrong_rank;
}

Result<> judge_answer(const Greeting& greeting, const Greeting& own, const FormOptions& options,
                      std::uint32_t peer) {
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
  const bool answers_us =
      std::string_view(greeting.nonce, kNonceBytes) == std::string_view(own.nonce, kNonceBytes);
  if (!answers_us || !is_proven(greeting, Speaker::acceptor, options.rank, options.secret)) {
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
