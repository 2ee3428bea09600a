// Products of groups of rows, each by a weight of its own, in one call: the experts of a mixture,
// whose rows were put side by side, or requests that have adapters.
//
//   left    [M, K]   f32 or bf16; group g's rows are [ends[g - 1], ends[g]), none for an empty one
//   rights  a weight for each group: one format, N outputs of K inputs
//   output  [M, N]   f32 or bf16
//
// The bits of one product_quantised for each group, ends included, on all paths and devices: a row
// meets its group's weight and no other, so none is padded or dropped, and a group may be of any
// size. Rows come in the order of their groups, as a mixture keeps an expert's rows in the order of
// their shards, samples and positions (DESIGN, mixing samples).
//
// Why one call: a mixture that decodes has one or two rows for each of many experts. Here rows are
// rounded to int8 in one loop, and threads share the panels of all weights in another; a call for
// each group would have them wait for each other twice a group.
//
// Row rule and errors as in quantised_weight.h; invalid_argument too for weights that differ in
// format or shape, and for ends that do not ascend to M. Nothing is written then.
#pragma once

#include "kernels/ops/weights/quantised_weight.h"

namespace tutti::kernels {

struct GroupedProduct {
  ConstMatrix left;
  std::span<const QuantisedWeight* const> rights;
  std::span<const Index> ends;  // as many as weights
  Matrix output;
  Activations activations = Activations::int8;
  ChainStart start = ChainStart::zero;
  const float* bias = nullptr;  // the first group's [N], others behind it
  Index bias_step = 0;          // 0: one for all
  ConstMatrix residual = {};    // this and what follows as in product.h
  std::optional<Activation> activation = {};
  ConstMatrix gate = {};
  BasicMatrix<Bf16> narrow = {};
  BasicMatrix<const Bf16> narrow_left = {};  // in place of `left`, which is empty then
};
Result<> product_quantised_grouped(const OpContext& ctx, const GroupedProduct& args);

}  // namespace tutti::kernels
