#include "jobs/models/parts/layer_bands.h"

#include <algorithm>

namespace tutti::models {

namespace {

using kernels::Index;

// What it takes to make an activation again, where backward reads it.
enum class Remade { by_layers, by_products, by_rows, never };

struct Activation {
  Band LayerBands::*band;
  Index columns = 0;
  Remade remade;
  Numbers numbers = Numbers::wide;
};

std::vector<Activation> activations_of(const DecoderDescription& d, Kept kept) {
  const Numbers of_products = kept == Kept::wide ? Numbers::wide : Numbers::rounded;
  const bool of_attention = kept == Kept::attention;
  const Remade projected = of_attention ? Remade::never : Remade::by_products;
  const auto rounded = [&](Index columns) { return of_attention ? columns : 0; };
  const Index width = d.width;
  const Index query = d.query_width();
  const Index kv = d.kv_width();
  const Index feed_forward = d.feed_forward;
  const Index gate = d.inner == FeedForward::gated ? feed_forward : 0;
  const Index mean = d.norm == Norm::layer ? 1 : 0;
  return {{&LayerBands::x, width, Remade::by_layers},
          {&LayerBands::attention_normed, width, Remade::by_rows, of_products},
          {&LayerBands::mid, width, Remade::by_products},
          {&LayerBands::feed_forward_normed, width, Remade::by_rows, of_products},
          {&LayerBands::query, query, projected},
          {&LayerBands::query_rounded, rounded(query), Remade::by_products, Numbers::rounded},
          {&LayerBands::attended, query, Remade::by_products},
          {&LayerBands::attended_rounded, rounded(query), Remade::by_products, Numbers::rounded},
          {&LayerBands::key, kv, projected},
          {&LayerBands::key_rounded, rounded(kv), Remade::by_products, Numbers::rounded},
          {&LayerBands::value, kv, projected},
          {&LayerBands::value_rounded, rounded(kv), Remade::by_products, Numbers::rounded},
          {&LayerBands::gate, gate, Remade::by_products},
          {&LayerBands::up, feed_forward, Remade::by_products},
          {&LayerBands::inner, feed_forward, Remade::by_rows, of_products},
          {&LayerBands::attention_inverse, 1, Remade::by_rows},
          {&LayerBands::feed_forward_inverse, 1, Remade::by_rows},
          {&LayerBands::attention_mean, mean, Remade::by_rows},
          {&LayerBands::feed_forward_mean, mean, Remade::by_rows},
          {&LayerBands::lse, d.heads, Remade::by_products}};
}

bool is_kept(const Activation& activation, Recompute recompute) {
  switch (recompute) {
    case Recompute::none: return activation.remade != Remade::never;
    case Recompute::selective:
      return activation.remade != Remade::by_rows && activation.remade != Remade::never;
    case Recompute::full: return activation.remade == Remade::by_layers;
  }
  return true;
}

}  // namespace

std::optional<Recompute> recompute_of(std::string_view name) {
  const auto* const found =
      std::find_if(std::begin(kRecomputes), std::end(kRecomputes),
                   [&](Recompute recompute) { return to_string(recompute) == name; });
  if (found == std::end(kRecomputes)) return std::nullopt;
  return *found;
}

// Nor is what rotary or a gate leaves rounded alone summed for a bias, which no family has there.
bool can_be_rounded(const DecoderDescription& description) {
  const bool turned = description.positions == Positions::rotary;
  const bool gated = description.inner == FeedForward::gated;
  return description.width % kernels::kRoundedUnit == 0 &&
         description.feed_forward % kernels::kRoundedUnit == 0 &&
         !(description.biases && (turned || gated));
}

std::vector<LayerBands> plan_layers(MemoryPlan& plan, const DecoderDescription& description,
                                    Recompute recompute, Kept kept) {
  const std::vector<Activation> activations = activations_of(description, kept);
  LayerBands shared;
  for (const Activation& one : activations) {
    if (!is_kept(one, recompute)) shared.*one.band = plan.band(one.columns, one.numbers);
  }
  std::vector<LayerBands> layers(description.layers, shared);
  for (LayerBands& bands : layers) {
    for (const Activation& one : activations) {
      if (is_kept(one, recompute)) bands.*one.band = plan.band(one.columns, one.numbers);
    }
  }
  return layers;
}

}  // namespace tutti::models
