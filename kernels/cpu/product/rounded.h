// Products by any workers, for other ops: of fp32 numbers, of those that are rounded as they are
// packed (rounding.h), and of bf16 numbers.
#pragma once

#include "kernels/cpu/product/product_call.h"
#include "kernels/ops/product_bf16.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

// Of operands whose elements have so many bytes.
template <class Args>
OpWork work_of(const Args& args, const ProductShape& s, Index element_bytes) {
  const Index output_bytes = args.narrow ? 2 : 4;
  return {
      .flop = 2 * s.rows * s.columns * s.depth,
      .bytes = element_bytes * s.depth * (s.rows + s.columns) + output_bytes * s.rows * s.columns};
}

// As run_call of a context, which has its whole pool compute.
void run_call(const Workers& workers, const ProductCall& call);

// Whether the path in use has its arithmetic.
bool can_round(const Rounding& rounding);

// Of checked arguments that have outputs, without an image; the path in use has the arithmetic.
void run_rounded(const Workers& workers, ProductForm form, const Product& args,
                 const Rounding& rounding);
void run_bf16(const Workers& workers, ProductForm form, const Bf16Product& args);

// bf16 numbers as fp32, and fp32 numbers rounded to the nearest of them; op scratch memory.
ConstMatrix in_fp32(const Workers& workers, const Bf16Matrix& x);
ConstMatrix in_fp32(const Workers& workers, const ConstMatrix& x);

}  // namespace tutti::kernels
