// Forward of a decoder for serving: chunks of prompts and single tokens of several sequences in one
// batch, each with its cache of keys and values.
//
// A token's logits depend on its own sequence and position only: the same bits whether a prompt
// comes whole, in chunks or token by token, alone or beside others, and the same as in training
// (the products, the attention grid and the norms are the same ops).
//
//   KvCache cache(decoder.description(), 2048);
//   pass.choose(ctx, weights, {{{&cache, prompt, LogitRows::last}}}, draws, chosen);
//
// Ownership: the caller owns caches; the pass owns activations and refers to the decoder. Threads:
// one at a time per pass and per cache.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "jobs/models/decoder.h"
#include "jobs/models/serving_weights.h"
#include "jobs/models/training_pass.h"
#include "kernels/ops/choose_tokens.h"
#include "protocol/base/result.h"

namespace tutti::models {

// Keys and values of one sequence, all layers: pages of kernels::kKeyBlock positions, in one
// buffer.
class KvCache {
 public:
  KvCache(const DecoderDescription& description, std::uint32_t capacity,
          kernels::Device* device = nullptr);

  std::uint32_t capacity() const { return capacity_; }
  // Tokens that are in it; the next one has this position.
  std::uint32_t length() const { return length_; }
  // Forgets tokens from `length` on.
  void truncate(std::uint32_t length);
  // As if so many tokens were in it, with whatever its memory holds: for steps that nobody reads.
  void pretend(std::uint32_t length);

  // Of a cache that holds `capacity` tokens (rounded up to whole pages).
  static std::uint64_t bytes(const DecoderDescription& description, std::uint32_t capacity);

 private:
  friend class InferencePass;
  std::span<float* const> pages(std::uint32_t layer) const;

  kernels::FloatBuffer memory_;
  std::vector<float*> pages_;  // [layers, pages_per_layer_]
  std::size_t pages_per_layer_ = 0;
  std::uint32_t capacity_ = 0;
  std::uint32_t length_ = 0;
};

enum class LogitRows : std::uint8_t { none, last, all };

// The next tokens of one sequence.
struct SequenceChunk {
  KvCache* cache = nullptr;              // not twice in one batch
  std::span<const std::int32_t> tokens;  // at least one
  LogitRows wanted = LogitRows::last;
};

// What caches may grow to: tokens of one, and pages of all in one call. A device then does the same
// work for as many sequences, whatever their lengths. Zeros: not known.
struct CacheLimits {
  std::uint32_t tokens_max = 0;
  std::uint64_t pages_max = 0;
};

class InferencePass {
 public:
  // On a device, weights and caches are its memory; tokens, logits and choices stay the host's.
  InferencePass(const Decoder& decoder, PassLimits limits, kernels::Device* device = nullptr,
                CacheLimits caches = {});
  // Bytes of activations that the constructor sets aside.
  static std::uint64_t workspace_bytes(const DecoderDescription& description, PassLimits limits);
  InferencePass(InferencePass&&) noexcept;
  ~InferencePass();

  // Appends the chunks' keys and values to their caches and writes the wanted logits, [wanted rows,
  // V], chunk by chunk. `logits` has exactly that size. Errors: invalid_argument (limits, a token
  // outside the vocabulary, sizes), exhausted (a cache is full: the message gives chunk and
  // capacity); caches and logits are as before on error.
  Result<> run(const kernels::OpContext& ctx, std::span<const float> weights,
               std::span<const SequenceChunk> chunks, std::span<float> logits);
  // By images: on a CPU those of fp32 give the bits of the arena that they were made from.
  Result<> run(const kernels::OpContext& ctx, const ServingWeights& weights,
               std::span<const SequenceChunk> chunks, std::span<float> logits);
  // The same, and of each wanted row only the token that is chosen by it: logits stay where they
  // are. A draw and a place for each wanted row.
  Result<> choose(const kernels::OpContext& ctx, const ServingWeights& weights,
                  std::span<const SequenceChunk> chunks, std::span<const kernels::TokenDraw> draws,
                  std::span<kernels::ChosenToken> chosen);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tutti::models
