// The plain meaning of every op, in double precision: what the fast kernels are compared with, and
// what finite differences are taken of. Written for reading, used by tests only.
//
// Chains are the exception: chain_* repeats an fp32 product in the order that the chain rule
// prescribes, bit for bit.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops/attention.h"
#include "kernels/tensor/matrix.h"

namespace tutti::kernels::reference {

// Rows of doubles.
struct Table {
  Table() = default;
  Table(Index rows_, Index columns_)
      : rows(rows_), columns(columns_), data(static_cast<std::size_t>(rows_ * columns_)) {}
  explicit Table(const ConstMatrix& from);

  double& at(Index r, Index c) { return data[static_cast<std::size_t>(r * columns + c)]; }
  double at(Index r, Index c) const { return data[static_cast<std::size_t>(r * columns + c)]; }

  Index rows = 0;
  Index columns = 0;
  std::vector<double> data;
};

// One fp32 chain: start, then fma over ascending k. left(k) and right(k) give the factors.
template <class Left, class Right>
float chain(float start, Index depth, const Left& left, const Right& right) {
  float sum = start;
  for (Index k = 0; k < depth; ++k) sum = __builtin_fmaf(left(k), right(k), sum);
  return sum;
}

Table rms_norm(const Table& x, std::span<const double> weight, double epsilon);
Table silu_gate(const Table& gate, const Table& up);
Table rotary(const Table& x, std::span<const std::int32_t> positions,
             std::span<const float> frequencies, Index head_width);
Table attention(const AttentionShape& shape, const Table& q, const Table& k, const Table& v,
                std::span<const std::int32_t> sample_offsets);
// x - log(sum(exp(x))), row by row.
Table log_softmax(const Table& x);
// One loss per row; 0 where the target is -1.
std::vector<double> cross_entropy(const Table& hidden, const Table& weight,
                                  std::span<const std::int32_t> targets);

}  // namespace tutti::kernels::reference
