// What the parity cases share: the paths and thread counts that must agree, data, tolerances,
// finite differences.
#pragma once

#include <catch2/catch.hpp>

#include <algorithm>
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

// Which NaN comes out is not promised: all become one.
Floats one_nan(Floats values);

// Runs `op` on every path that this machine has, with 1, 2, 3, 4 and 7 threads on each, some beside
// other caches (other_caches.h), too, and requires the same bits of all; returns them.
// A path that the machine lacks is said to be skipped.
Floats on_all_paths(const std::function<Floats(const OpContext&)>& op);
// The same, and the bits become part of `golden`.
Floats on_all_paths(Golden& golden, const std::function<Floats(const OpContext&)>& op);

// Whether a product goes on from what its output holds as one chain (CPU), or adds a finished sum
// to it (a GPU's library; kernels/cuda/products.h).
bool continues_chains();

// Whether ops run on the emulated GPU, which is slow: of a long sweep it runs a few cases.
bool is_emulated();

// Whether sums of products agree: bit for bit where they are chains, else but for the order of
// additions.
bool same_sums(std::span<const float> a, std::span<const float> b);

// A context of one thread on the default path, for what on_all_paths has covered.
const OpContext& single();

// How far an fp32 result may lie from the exact one. A chain or lane sum of n rounded steps over
// terms whose magnitudes add up to `magnitude` errs by at most n u / (1 - n u) * magnitude (Higham
// 2002, section 3.1), u = 2^-24; an op adds a few steps of its own (exp, division, scaling), which
// kOwnSteps bounds. Not a quantile: no correct kernel exceeds it.
inline constexpr double kUnit = 0x1p-24;
inline constexpr double kOwnSteps = 16.0;
inline double tolerance(Index terms, double magnitude, double unit = kUnit) {
  const double steps = (static_cast<double>(terms) + kOwnSteps) * unit;
  return steps / (1.0 - steps) * magnitude;
}

// The same for sums of doubles.
inline double double_tolerance(Index terms, double magnitude) {
  return tolerance(terms, magnitude, 0x1p-53);
}

// How far the mean of many outputs may lie from the exact one, relative to the mean of their
// magnitudes: what gradient_error gives, and sums of losses. Terms have random signs, so a sum of n
// of size t is of size t sqrt(n), and so are its partial sums, whose n roundings to nearest (unit u
// each, of random signs too) add up to u t n / sqrt(6): relative to the sum u sqrt(n / 6), less
// than u sqrt(n) / 2 (Higham & Mary 2019 have the bound; 4 deviations of it are passed once in
// 16,000 sums, and by a mean of them never). The own steps are errors that all outputs may share,
// such as a norm's factor: they count as in tolerance(). What they are compared with, a central
// difference of a double-precision function, errs by 1e-8.
inline double mean_tolerance(Index terms) {
  constexpr double kDeviations = 4.0;
  const double steps = kDeviations * std::sqrt(static_cast<double>(terms)) / 2.0 + kOwnSteps;
  return steps * kUnit + 1e-8;
}

// Of an activation at x, or of what it is multiplied into: exp errs by 2^-22 of its value (tested
// in elementwise_test), which a sum with 1, a division and two products double at most.
inline double activation_tolerance(double x) { return 0x1p-21 * std::max(1.0, std::abs(x)); }

// How far a sum of products may move where `roundings` factors of each term are rounded to a format
// whose numbers lie up to two half steps apart, relative to themselves: (1 + h)^n - 1 of the terms'
// magnitudes, to nearest. Where a format's codes are a fixed step apart, the half step is of the
// largest number. It comes on top of tolerance(), which is of what is computed with them.
inline double rounding_tolerance(double half_step, Index roundings, double magnitude = 1.0) {
  return (std::pow(1.0 + half_step, static_cast<double>(roundings)) - 1.0) * magnitude;
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
// The difference, relative to sum |gradient * direction|; mean_tolerance() bounds it.
double gradient_error(const GradientCheck& check);

// sum(weights * y): a loss whose gradient with respect to y is `weights`.
double weighted_sum(const Table& y, const Floats& weights);

}  // namespace tutti::kernels::parity
