// One decoder layer, forward and backward, over token rows: the plain code that both passes share.
//
//   mid = x   + output(attention(rotate(query, key), value of norm(x)))
//   out = mid + down(silu(gate) * up of norm(mid))
//
// The description says which norm it is, whether queries and keys are turned, whether the inner
// layer has a gate or is f(up), and whether linear layers have biases.
//
// Attention itself sits between project() and finish(): training attends within the batch, serving
// to cached pages.
//
//   x, mid, out, normed    [rows, C]         query, attended    [rows, heads * head_dim]
//   gate, up, inner        [rows, F]         key, value         [rows, kv_heads * head_dim]
//
// Ownership: views only; the passes own the memory. A wrong shape is a broken invariant here,
// because passes check what they are given.
#pragma once

#include <cstdint>
#include <span>

#include "jobs/models/description.h"
#include "jobs/models/parameters.h"
#include "jobs/models/parts/dropout.h"
#include "jobs/models/parts/linear.h"
#include "jobs/models/parts/norm.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/product.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"

namespace tutti::models {

using kernels::ConstMatrix;
using kernels::Index;
using kernels::Matrix;

// Aborts where an op refuses its arguments; throws DeviceFailure where its device failed, has
// nothing for these arguments or was misused, and AllocationFailure where it is full.
void must(const Result<>& result);

// One layer's parameters inside an arena: of weights (float = const float) or of gradients.
template <class Float>
struct LayerParameters {
  NormParameters<Float> attention_norm, feed_forward_norm;
  LinearParameters<Float> query, key, value, output, gate, up, down;
};

// A matrix as products of few rows read it: one of the two images.
struct WeightImage {
  kernels::PackedWeight fp32;
  kernels::QuantisedWeight quantised;
};
// Of one layer's matrices.
struct LayerImages {
  WeightImage query, key, value, output, gate, up, down;
};
// y = x w^T by the image of w; `product.right` has its shape.
void multiply(const kernels::OpContext& ctx, const kernels::Product& product,
              const WeightImage& image);
// `rounded`: an arena of the same, rounded (rounded_weights.h); null: none.
LayerParameters<const float> layer_weights(const ParameterLayout& layout, std::uint32_t layer,
                                           const float* arena,
                                           const std::uint16_t* rounded = nullptr);
LayerParameters<float> layer_gradients(const ParameterLayout& layout, std::uint32_t layer,
                                       float* arena);

// The norm behind the last layer, in an arena of weights or of gradients.
template <class Float>
NormParameters<Float> final_norm(const ParameterLayout& layout, Float* arena) {
  const Parameter* const bias = layout.find(Role::final_norm_bias);
  return {arena + layout.at(Role::final_norm).offset,
          bias == nullptr ? nullptr : arena + bias->offset};
}

// What every layer of a pass has in common.
struct LayerContext {
  const kernels::OpContext& op;
  const DecoderDescription& description;
  kernels::AttentionShape attention;
  ConstMatrix cosine;  // [rows, head_dim / 2]; rotary positions only
  ConstMatrix sine;
  const LayerImages* images = nullptr;  // read in place of this layer's matrices; null: none
  Dropout dropout = {};
  std::uint32_t layer = 0;  // for what is dropped
};

kernels::AttentionShape attention_shape(const DecoderDescription& description);

// Kept from forward to backward. Serving lets out be x and keeps no statistics; its inner is up,
// which becomes f(up) or is multiplied by the gate as its product ends.
struct LayerActivations {
  Matrix x;
  ProductRows attention_normed;
  ProductRows query;  // rounded too, for attention
  ProductRows key;
  ProductRows value;
  ProductRows attended;
  Matrix mid;
  ProductRows feed_forward_normed;
  Matrix gate;
  Matrix up;
  ProductRows inner;
  NormStatistics attention_norm;
  NormStatistics feed_forward_norm;
  float* lse = nullptr;  // [rows, heads]
};

// x -> query and key (rotated), value.
void project(const LayerContext& ctx, const LayerParameters<const float>& weights,
             const LayerActivations& act);
// x and attended -> mid -> gate, up and inner.
void widen(const LayerContext& ctx, const LayerParameters<const float>& weights,
           const LayerActivations& act);
// The same, and on to out, which may be x.
void finish(const LayerContext& ctx, const LayerParameters<const float>& weights,
            const LayerActivations& act, Matrix out);

// Again, from x, mid, gate and up, what takes no product: normed rows with their statistics, inner.
void remake_rows(const LayerContext& ctx, const LayerParameters<const float>& weights,
                 const LayerActivations& act);

// Memory for the gradients of activations, shared by all layers.
struct LayerScratch {
  Matrix
      dnormed;  // [rows, C]; before that, the gradient of what a part added, where some is dropped
  Matrix dinner;        // [rows, F]
  ProductRows dopened;  // [rows, F]; the gate's gradient, or that of up; dinner itself where fp32
  ProductRows dup;      // [rows, F]; where there is a gate
  Matrix dattended;     // [rows, heads * head_dim]
  ProductRows dquery;
  ProductRows dkey;
  ProductRows dvalue;
};

// dx holds the gradient of out and becomes that of x. Weight gradients continue their chains.
void backward(const LayerContext& ctx, const LayerParameters<const float>& weights,
              const LayerParameters<float>& gradients, const LayerActivations& act,
              const LayerScratch& scratch, std::span<const std::int32_t> sample_offsets,
              const ProductRows& dx);

}  // namespace tutti::models
