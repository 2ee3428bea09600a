// Where the activations of a decoder's layers lie for training, and which of them backward makes
// again (Chen et al. 2016).
//
//                kept for each layer                        made again
//   none         all                                        nothing
//   selective    what products and attention gave (query,   normed rows and inner rows: what takes
//                key and value turned; attended and its     no product
//                softmax; mid, gate, up), and its input
//   full         its input                                  all else; the layer's last product is
//                                                           not asked for
//
// What a byte saves costs: a norm or a gate some 2 to 6 operations a byte of output, attention T/2,
// a product half of its inner length; decision 0062 has the figures. What is made again has the
// same bits, since each op is a function of its arguments.
//
// Activations that are made again lie in one place for all layers.
//
// On a device whose products round what they read, what they alone read (normed rows, inner rows)
// is kept rounded: half of the memory, and the same bits. Where attention is by such products, too,
// so are queries, keys and values, whose fp32 rows lie in one place for all layers then; what
// attention gives is kept both ways, as its gradient reads it in fp32.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "jobs/models/description.h"
#include "jobs/models/memory_plan.h"

namespace tutti::models {

enum class Recompute : std::uint8_t { none, selective, full };

// As specs name it.
constexpr std::string_view to_string(Recompute recompute) {
  switch (recompute) {
    case Recompute::none: return "none";
    case Recompute::selective: return "selective";
    case Recompute::full: return "full";
  }
  return "none";
}
inline constexpr Recompute kRecomputes[] = {Recompute::none, Recompute::selective, Recompute::full};
std::optional<Recompute> recompute_of(std::string_view name);

// What is kept rounded: nothing, what products alone read, or that and what attention reads.
enum class Kept : std::uint8_t { wide, products, attention };
// Whether a model's rows can be kept so: they begin at multiples of 16 bytes.
bool can_be_rounded(const DecoderDescription& description);

struct LayerBands {
  Band x, attention_normed, query, key, value, attended, mid, feed_forward_normed, gate, up, inner;
  Band query_rounded, key_rounded, value_rounded, attended_rounded;  // or of no columns
  Band attention_mean, attention_inverse, feed_forward_mean, feed_forward_inverse, lse;
};

// Of each layer, as parts of the plan.
std::vector<LayerBands> plan_layers(MemoryPlan& plan, const DecoderDescription& description,
                                    Recompute recompute, Kept kept);

}  // namespace tutti::models
