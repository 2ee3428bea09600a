// What the parity cases share: the paths and thread counts that must agree, data, tolerances,
// finite differences.
#pragma once

#include <catch2/catch.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <vector>

#include "kernels/ops/cpu_path.h"
#include "kernels/ops/random.h"
#include "kernels/ops/reference/reference.h"
#include "kernels/tensor/buffer.h"
#include "kernels/tensor/op_context.h"
#include "tests/golden/portable.h"

namespace tutti::kernels::parity {

using reference::Table;
using test::Golden;
using Floats = std::vector<float>;

// A case's numbers: uniform in [-1, 1), a function of `stream` alone.
Floats draw(Index count, std::uint64_t stream);

inline Matrix matrix(Floats& data, Index rows, Index columns) {
  return {data.data(), rows, columns};
}
inline ConstMatrix matrix(const Floats& data, Index rows, Index columns) {
  return {data.data(), rows, columns};
}

// Whether both hold the same bits; on a difference `first_difference` says where.
bool same_bits(std::span<const float> a, std::span<const float> b);

// Runs `op` on every path that this machine has, with 1, 2, 3, 4 and 7 threads on each, and
// requires the same bits of all; returns them.
// A path that the machine lacks is said to be skipped.
Floats on_all_paths(const std::function<Floats(const OpContext&)>& op);
// The same, and the bits become part of `golden`.
Floats on_all_paths(Golden& golden, const std::function<Floats(const OpContext&)>& op);

// Whether a product goes on from what its output holds as one chain (CPU), or adds a finished sum
// to it (a GPU's library; kernels/cuda/products.h).
bool continues_chains();

// Whether sums of products agree: bit for bit where they are chains, else but for the order of
// additions.
bool same_sums(std::span<const float> a, std::span<const float> b);

// A context of one thread on the default path, for what on_all_paths has covered.
const OpContext& single();

// How far an fp32 result may lie from the exact one. A chain or lane sum of n rounded steps over
// terms whose magnitudes add up to `magnitude` errs by at most n u / (1 - n u) * magnitude (Higham
// 2002, section 3.1), u = 2^-24; an op adds a few steps of its own (exp, division, scaling), which
// kOwnSteps bounds. Not a quantile: no correct kernel exceeds it.
inline double tolerance(Index terms, double magnitude) {
  constexpr double kUnit = 0x1p-24;
  constexpr double kOwnSteps = 16.0;
  const double steps = (static_cast<double>(terms) + kOwnSteps) * kUnit;
  return steps / (1.0 - steps) * magnitude;
}

double largest_difference(std::span<const float> actual, const Table& expected);
double largest_magnitude(const Table& table);

// The derivative of `loss` along `direction` at x by central differences, against the sum of
// gradient * direction. `loss` is the double-precision reference, so that the step can be small:
// relative error about 1e-8.
struct GradientCheck {
  std::function<double(const Table&)> loss;
  Table at;
  std::span<const float> gradient;
  std::uint64_t stream = 99;
};
// The difference, relative to sum |gradient * direction|.
double gradient_error(const GradientCheck& check);

// sum(weights * y): a loss whose gradient with respect to y is `weights`.
double weighted_sum(const Table& y, const Floats& weights);

}  // namespace tutti::kernels::parity
