// The decoder that tests begin with: they say what they need otherwise.
#pragma once

#include <string_view>

#include "jobs/models/description.h"
#include "jobs/models/families/family.h"

namespace tutti::test {

// Two layers of whole vectors, heads grouped where the family has keys of their own, and weights so
// large that fresh ones prefer some tokens clearly and attention is far from even.
inline models::DecoderDescription tiny_decoder(std::string_view family = "llama") {
  models::DecoderDescription d = models::find_family(family)->parts();
  d.layers = 2;
  d.width = 64;
  d.heads = 4;
  d.kv_heads = d.projections == models::Projections::fused ? 4 : 2;
  d.head_dim = 16;
  d.feed_forward = 96;
  d.vocabulary = 288;
  d.positions_max = 200;
  d.tied = true;
  d.init_deviation = 0.3;
  return d;
}

}  // namespace tutti::test
