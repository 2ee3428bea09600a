// Products: y = x w^T (a linear layer), dx = dy w and dw += dy^T x (its gradients).
//
// Each output is one chain of fused multiply-adds over the summed index in ascending order,
// continued through memory (DESIGN numerics, chain rule). So tiles, threads, vector width, and how
// the sum is divided into calls never change a bit: two calls over tokens [0, a) and [a, n) with
// `ChainStart::output` give the bits of one call over [0, n).
//
//   nt: output[M, N] = left[M, K] * right[N, K]^T      sums over K
//   nn: output[M, K] = left[M, N] * right[N, K]        sums over N
//   tn: output[N, K] = left[M, N]^T * right[M, K]      sums over M, the tokens
//
// Any matrix may be a band of a wider one (stride > columns). Output overlaps no input, `residual`
// and `gate` included: they are read after the chains were stored. An empty sum gives the chain's
// start. Row m of nt and nn depends on row m of `left` and on `right` only.
//
// Fused ends follow a finished chain while it is in cache, each with the bits of its own op:
//
//   y = chain + bias;  y = y + residual;  y = f(y) or f(gate) * y;  y as bf16
//
// A gated layer, silu(x Wg^T) * (x Wu^T), is two products, the second with the first as its gate.
//
// In a product that says so (`eights`), a device that was opened for fp8 reads both operands of nt
// and nn as codes (fp8_rows.h) where N and K are multiples of 16, and as bf16 where they are not;
// all else reads them as ever.
//
// Errors: invalid_argument (shapes that do not match, `output` beside `narrow`); nothing is written
// then. unsupported: in a scope of rounding.h, what that says; rounded operands, what rounded.h
// says; codes, on what was not opened for fp8.
#pragma once

#include <optional>
#include <span>

#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/elementwise/bf16.h"
#include "kernels/ops/elementwise/fp8_rows.h"
#include "kernels/ops/elementwise/rounded.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

enum class ChainStart {
  zero,    // output is overwritten
  output,  // the chain goes on from what output holds
};

enum class Eights { never, allowed };

class PackedWeight;

struct Product {
  ConstMatrix left;
  ConstMatrix right;
  Matrix output;
  ChainStart start = ChainStart::zero;
  const float* bias = nullptr;                // [output.columns], added once to the finished chain
  ConstMatrix residual = {};                  // shape of output, added after the bias
  std::optional<Activation> activation = {};  // f, as activation_forward
  ConstMatrix gate = {};                      // shape of output: f of it, as gate_forward
  // The output rounded as by to_bf16, in place of `output`, which is empty then; from zero only.
  BasicMatrix<Bf16> narrow = {};
  // nt only: the image of exactly `right` (packed_weight.h), made on the same context and read in
  // its place; null: none.
  const PackedWeight* packed = nullptr;
  // Read in place of left and right, which give shapes then (rounded.h); null: none.
  ConstRoundedMatrix left_rounded = {};
  ConstRoundedMatrix right_rounded = {};
  Eights eights = Eights::never;
  // The codes of exactly `right`, read where the product reads codes; null: it makes its own.
  Fp8Weight right_fp8 = {};
};

Result<> product_nt(const OpContext& ctx, const Product& args);
Result<> product_nn(const OpContext& ctx, const Product& args);
Result<> product_tn(const OpContext& ctx, const Product& args);

// output[N, K] = the tree of shards of left[M, N]^T * right[M, K] (collective/shard_tree.h): shard
// s sums tokens [ends[s - 1], ends[s]) as one chain, shards are added pairwise in one balanced
// tree, and an inner node with one empty half is its other half. The bits of one product_tn per
// shard, each from zero, added by add_into in the tree's order; but the tree is added while a block
// of outputs is in cache, and no buffer per level of it is needed. Where all shards are empty the
// tree is zero. `start` output adds the tree to what output holds, by one addition; it does not
// continue a chain.
struct ShardedProduct {
  ConstMatrix left;
  ConstMatrix right;
  Matrix output;
  std::span<const Index> ends;  // a power of two of them, ascending; the last is M
  ChainStart start = ChainStart::zero;
};
Result<> product_tn_shards(const OpContext& ctx, const ShardedProduct& args);

// output[c] = chain of additions over the rows of x in order: the gradient of a bias.
struct ColumnSums {
  ConstMatrix x;            // [M, N]
  float* output = nullptr;  // [N]
  ChainStart start = ChainStart::output;
};
Result<> column_sums(const OpContext& ctx, const ColumnSums& args);

}  // namespace tutti::kernels
