// The norm of a decoder, whichever its description names, forward and backward.
//
//   x, y, dy, dx, residual   [rows, C]      weight, bias, dweight, dbias   [C]
//   mean, inverse            [rows]         kept from forward to backward
//
// An RMS norm has neither bias nor mean. The arithmetic is that of kernels/ops/rms_norm.h and
// kernels/ops/elementwise/layer_norm.h. A refused argument is a broken invariant (must, layer.h).
#pragma once

#include "jobs/models/description.h"
#include "jobs/models/memory_plan.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"

namespace tutti::models {

// Where a norm's parameters lie, or their gradients.
template <class Float>
struct NormParameters {
  Float* weight = nullptr;
  Float* bias = nullptr;  // null: it has none
};

// What backward reads of forward; null: not kept.
struct NormStatistics {
  float* mean = nullptr;
  float* inverse = nullptr;
};

struct NormForward {
  kernels::ConstMatrix x;
  NormParameters<const float> parameters;
  ProductRows y;  // may be x, where it is fp32
  NormStatistics kept = {};
};
void norm_forward(const kernels::OpContext& ctx, const DecoderDescription& description,
                  const NormForward& args);

struct NormBackward {
  kernels::ConstMatrix dy;
  kernels::ConstMatrix x;
  NormParameters<const float> parameters;
  NormStatistics kept;
  ProductRows dx;                      // written; may be dy or residual
  NormParameters<float> gradients;     // chains that go on
  kernels::ConstMatrix residual = {};  // added to dx last
};
void norm_backward(const kernels::OpContext& ctx, const DecoderDescription& description,
                   const NormBackward& args);

}  // namespace tutti::models
