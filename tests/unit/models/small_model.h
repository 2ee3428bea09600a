// A small decoder with fresh weights and random samples, for tests of the passes.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "jobs/models/decoder.h"
#include "jobs/models/training_pass.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/rng.h"
#include "tests/support/tiny_decoder.h"

namespace tutti::test {

// Sizes that are no multiples of vectors or tiles.
inline models::DecoderDescription small_description(std::string_view family = "llama") {
  models::DecoderDescription d = tiny_decoder(family);
  d.width = d.projections == models::Projections::fused ? 32 : 40;
  d.head_dim = 8;
  d.feed_forward = 52;
  d.vocabulary = 101;
  d.positions_max = 256;
  d.init_deviation = 0.2;
  return d;
}

// Samples of these lengths; about one row in eight has no target.
struct Samples {
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> targets;
  std::vector<std::int32_t> offsets = {0};

  Samples(std::vector<std::int32_t> lengths, std::uint32_t vocabulary, std::uint64_t seed) {
    Rng rng(seed);
    for (const std::int32_t length : lengths) {
      for (std::int32_t row = 0; row < length; ++row) {
        tokens.push_back(static_cast<std::int32_t>(rng.below(vocabulary)));
        targets.push_back(rng.chance(0.125) ? -1
                                            : static_cast<std::int32_t>(rng.below(vocabulary)));
      }
      offsets.push_back(offsets.back() + length);
    }
  }

  std::size_t count() const { return offsets.size() - 1; }
  models::TokenBatch batch() const { return {tokens, targets, {}, offsets}; }
};

}  // namespace tutti::test
