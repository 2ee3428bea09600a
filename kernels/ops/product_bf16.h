// Products of bf16 matrices with sums in fp32: y = x w^T and its gradients, as in product.h.
//
//   widened  each output is the chain of product.h over the operands' values: the portable profile,
//            the same bits on every path.
//   native   the CPU's dot product of bf16 pairs (AVX512-BF16), a profile of its own. Inputs are
//            paired (0, 1), (2, 3), ...; an output is one chain over ascending pairs, and within a
//            pair the odd input comes first:
//              sum = fma(x[2p], w[2p], fma(x[2p + 1], w[2p + 1], sum))
//            each fma rounded once, to nearest; numbers below 2^-126, operands, products and sums,
//            count as zeros. An odd depth is filled with a zero. Where a sum is divided into calls,
//            cut at even k.
//   tiles    the CPU's products of tiles (AMX-BF16), a profile of its own. Inputs come in groups of
//            32; of a group the even ones make one chain, the odd ones another, both from zero and
//            ascending, and their sum is added:
//              even = fma(x[k], w[k], even), k = 0, 2, ..., 30     odd: k = 1, 3, ..., 31
//              sum = sum + (even + odd)
//            with rounding and small numbers as native. The last group is filled with zeros; where
//            a sum is divided into calls, cut at multiples of 32.
//
// All keep the row rule and are the same for any number of threads. Fused ends as in product.h.
// Errors: invalid_argument; unsupported: an arithmetic that the path in use does not have, or on a
// device.
#pragma once

#include <optional>
#include <string_view>

#include "kernels/ops/elementwise/bf16.h"
#include "kernels/ops/product.h"
#include "kernels/tensor/rounding.h"

namespace tutti::kernels {

using Bf16Matrix = BasicMatrix<const Bf16>;

// Whether the path in use has it: native on avx512bf16, tiles there where the CPU has AMX-BF16 too.
bool has_bf16(Bf16Arithmetic arithmetic);

// Of those, what the machines that have it do best.
Bf16Arithmetic fastest_bf16();

// The numerics profile of a run whose context rounds so; and back: none has that name.
std::string_view profile_of(Bf16Arithmetic arithmetic);
std::optional<Bf16Arithmetic> arithmetic_of(std::string_view profile);

class PackedBf16Weight;

struct Bf16Product {
  Bf16Matrix left;
  Bf16Matrix right;
  Matrix output;
  Bf16Arithmetic arithmetic = Bf16Arithmetic::widened;
  ChainStart start = ChainStart::zero;
  const float* bias = nullptr;
  ConstMatrix residual = {};
  std::optional<Activation> activation = {};
  ConstMatrix gate = {};
  BasicMatrix<Bf16> narrow = {};
  // nt only: the image of exactly `right` (packed_bf16.h) for this arithmetic, read in its place
  // (widened, of more than 256 rows only where `right` has no data).
  const PackedBf16Weight* packed = nullptr;
};

Result<> product_bf16_nt(const OpContext& ctx, const Bf16Product& args);
Result<> product_bf16_nn(const OpContext& ctx, const Bf16Product& args);
Result<> product_bf16_tn(const OpContext& ctx, const Bf16Product& args);

}  // namespace tutti::kernels
