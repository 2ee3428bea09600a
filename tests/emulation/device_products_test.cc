// Products by the library whatever the number of rows, and what is added to them. Whatever runs
// them (device_runs.h), the same bits each time.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "kernels/cuda/convert.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/elementwise/bf16.h"
#include "kernels/ops/elementwise/fp16.h"
#include "tests/emulation/device_runs.h"
#include "tests/support/larger.h"
#ifdef TUTTI_CUDA_EMULATION
#include "tests/support/cuda_emulation/grid_counts.h"
#endif

namespace tutti::kernels::cuda {
namespace {

using tutti::test::draw;
using tutti::test::Floats;
using tutti::test::in_all_orders;
using tutti::test::in_each_order;
using tutti::test::open_device_for;

// What may be added to a product of [m, k] by [n, k]: a bias, a residual with a stride of its own,
// and the output itself, where `before` has what it holds.
struct Ends {
  const float* bias = nullptr;
  ConstMatrix residual = {};
  Floats before = {};
};
Floats product_of(CudaDevice& on, const ConstMatrix& x, const ConstMatrix& w, const Ends& ends) {
  const ChainStart start = ends.before.empty() ? ChainStart::zero : ChainStart::output;
  return in_all_orders<float>(on, [&] {
    Floats output(static_cast<std::size_t>(x.rows * w.rows));
    if (!ends.before.empty()) output = ends.before;
    REQUIRE(on.enqueue(ProductForm::nt, Product{.left = x,
                                                .right = w,
                                                .output = Matrix(output.data(), x.rows, w.rows),
                                                .start = start,
                                                .bias = ends.bias,
                                                .residual = ends.residual}));
    return output;
  });
}

// By hand, to the finished sums: what the output held, then the bias, then the residual; or the
// last two the other way round.
enum class Order { bias_first, residual_first };
Floats added_by_hand(Floats sums, const Ends& ends, Order order) {
  const Index rows = ends.residual.rows;
  const Index columns = ends.residual.columns;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const Index row = static_cast<Index>(i) / columns;
    const Index column = static_cast<Index>(i) % columns;
    REQUIRE(row < rows);
    if (!ends.before.empty()) sums[i] += ends.before[i];
    const float residual = ends.residual.row(row)[column];
    if (order == Order::residual_first) sums[i] += residual;
    if (ends.bias != nullptr) sums[i] += ends.bias[column];
    if (order == Order::bias_first) sums[i] += residual;
  }
  return sums;
}

constexpr Products::Inputs kInputs[] = {Products::Inputs::fp32, Products::Inputs::bf16,
                                        Products::Inputs::fp16, Products::Inputs::tf32};

}  // namespace

TEST_CASE("device ops: products in fp16 are those of fp32 of rounded numbers") {
  constexpr Index kRows = 9;
  constexpr Index kOutputs = 24;
  constexpr Index kDepth = 70;
  Floats x = draw(kRows * kDepth, 1);
  Floats w = draw(kOutputs * kDepth, 2);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::ldexp(x[i], static_cast<int>(i % 32) - 26);
  x[3 * kDepth] = 65519.0F;
  x[4 * kDepth] = 65520.0F;
  x[5 * kDepth] = -std::numeric_limits<float>::infinity();
  x[6 * kDepth] = std::numeric_limits<float>::quiet_NaN();
  const auto on = open_device_for(Products::Inputs::fp16);
  const ConstMatrix left(x.data(), kRows, kDepth);
  const ConstMatrix right(w.data(), kOutputs, kDepth);
  const Floats given = product_of(*on, left, right, {});
  for (Floats* side : {&x, &w}) {
    std::transform(side->begin(), side->end(), side->begin(), rounded_to_fp16);
  }
  for (Index i = 0; i < kRows * kOutputs; ++i) {
    INFO("row " << i / kOutputs << ", output " << i % kOutputs);
    double sum = 0.0;
    double size = 0.0;
    for (Index k = 0; k < kDepth; ++k) {
      const double term = static_cast<double>(left.row(i / kOutputs)[k]) *
                          static_cast<double>(right.row(i % kOutputs)[k]);
      sum += term;
      size += std::abs(term);
    }
    const auto value = static_cast<double>(given[static_cast<std::size_t>(i)]);
    if (std::isfinite(sum)) {
      CHECK(std::abs(value - sum) <= kDepth * 0x1p-23 * size);
    } else {
      CHECK(std::isnan(value) == std::isnan(sum));
      CHECK((std::isnan(sum) || value == sum));
    }
  }
}

#ifdef TUTTI_CUDA_EMULATION
TEST_CASE("device ops: a library that finds no memory for a product is a device that has none") {
  const auto on = open_device_for(Products::Inputs::fp32);
  const Floats x = draw(4, 1);
  Floats output(4);
  ::setenv("TUTTI_EMULATION_BLAS_MEMORY", "0", 1);
  const auto refused = on->enqueue(ProductForm::nt, Product{.left = ConstMatrix(x.data(), 2, 2),
                                                            .right = ConstMatrix(x.data(), 2, 2),
                                                            .output = Matrix(output.data(), 2, 2)});
  ::unsetenv("TUTTI_EMULATION_BLAS_MEMORY");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::exhausted);
}
#endif

TEST_CASE("device ops: a row of a product has the same bits among any number of rows") {
  constexpr Index kRowsMost = 130;
  constexpr Index kOutputs = 96;
  constexpr Index kDepth = 1024;
  const Floats x = draw(kRowsMost * kDepth, 1);
  for (const auto inputs : kInputs) {
    const auto on = open_device_for(inputs);
    for (const ProductForm form : {ProductForm::nt, ProductForm::nn}) {
      const bool turned = form == ProductForm::nt;
      const Floats w = draw(kOutputs * kDepth, 2);
      const ConstMatrix weight(w.data(), turned ? kOutputs : kDepth, turned ? kDepth : kOutputs);
      const auto run = [&](Index rows) {
        return in_all_orders<float>(*on, [&] {
          Floats output(static_cast<std::size_t>(rows * kOutputs));
          REQUIRE(on->enqueue(form, Product{.left = ConstMatrix(x.data(), rows, kDepth),
                                            .right = weight,
                                            .output = Matrix(output.data(), rows, kOutputs)}));
          return output;
        });
      };
      const Floats all = run(kRowsMost);
      for (const Index rows : {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 127, 128, 129}) {
        INFO(rows << " rows, form " << static_cast<int>(form));
        const Floats some = run(rows);
        CHECK(std::equal(some.begin(), some.end(), all.begin()));
      }
    }
  }
}

#ifdef TUTTI_CUDA_EMULATION
TEST_CASE(
    "device ops: where what the library offers refuses few rows, all it has is looked through") {
  const Floats x = draw(40 * 32, 1);
  const Floats w = draw(24 * 32, 2);
  const ConstMatrix right(w.data(), 24, 32);
  for (const auto inputs : {Products::Inputs::fp32, Products::Inputs::bf16}) {
    const auto offered = open_device_for(inputs);
    const Floats other = product_of(*offered, ConstMatrix(x.data(), 40, 32), right, {});
    ::setenv("TUTTI_EMULATION_OFFERED_ROWS_MIN", "1000", 1);
    const auto on = open_device_for(inputs);
    const Floats expected = product_of(*on, ConstMatrix(x.data(), 40, 32), right, {});
    for (std::size_t i = 0; i < expected.size(); ++i)
      CHECK(expected[i] == Approx(other[i]).margin(1e-5));
    for (const Index rows : {15, 1}) {
      const Floats some = product_of(*on, ConstMatrix(x.data(), rows, 32), right, {});
      CHECK(std::equal(some.begin(), some.end(), expected.begin()));
    }
    ::unsetenv("TUTTI_EMULATION_OFFERED_ROWS_MIN");
    CHECK(on->choice_table() != offered->choice_table());
  }
}
#endif

namespace {

// How many numbers lie behind each row, and before the first.
struct Lying {
  Index behind, offset;
};
struct Placed {
  Placed(Index rows, Index columns, const Lying& lies, std::uint64_t stream)
      : numbers(draw(lies.offset + rows * (lies.behind + columns), stream)),
        matrix(numbers.data() + lies.offset, rows, columns, columns + lies.behind) {}
  Floats numbers;
  Matrix matrix;
};

}  // namespace

// The library is asked by how rows lie, and the emulated one refuses an algorithm that was asked
// for by other rows than those of the product.
TEST_CASE("device ops: a product's rows may lie anywhere, and its algorithm is asked for by that") {
  constexpr Index kM = 21;
  constexpr Index kN = 13;
  constexpr Index kK = 37;
  for (const auto inputs : kInputs) {
    const auto on = open_device_for(inputs);
    for (const ProductForm form : {ProductForm::nt, ProductForm::nn, ProductForm::tn}) {
      for (const Lying lies : {Lying{0, 0}, Lying{3, 0}, Lying{2, 1}, Lying{11, 2}, Lying{7, 3}}) {
        CAPTURE(static_cast<int>(inputs), static_cast<int>(form), lies.behind, lies.offset);
        const bool turned = form == ProductForm::tn;
        // Of the output m by n, over k.
        Placed left(turned ? kK : kM, turned ? kM : kK, lies, 1);
        Placed right(form == ProductForm::nt ? kN : kK, form == ProductForm::nt ? kK : kN, lies, 2);
        Placed output(kM, kN, lies, 3);
        in_all_orders<float>(*on, [&] {
          REQUIRE(on->enqueue(
              form, Product{.left = left.matrix, .right = right.matrix, .output = output.matrix}));
          return output.numbers;
        });
        double worst = 0.0;
        for (Index r = 0; r < kM; ++r) {
          for (Index c = 0; c < kN; ++c) {
            double sum = 0.0;
            for (Index k = 0; k < kK; ++k) {
              const float a = turned ? left.matrix.row(k)[r] : left.matrix.row(r)[k];
              const float b =
                  form == ProductForm::nt ? right.matrix.row(c)[k] : right.matrix.row(k)[c];
              sum += static_cast<double>(a) * static_cast<double>(b);
            }
            worst = tutti::test::larger(
                worst, std::abs(sum - static_cast<double>(output.matrix.row(r)[c])));
          }
        }
        // Of bf16, the coarsest: 37 products of numbers below 1, each rounded by 2^-8 at most.
        CHECK(worst < 37.0 * 0x1p-7);
      }
    }
  }
}

TEST_CASE("device ops: rounded operands lie at multiples of 16 bytes whatever their columns") {
  const auto on = open_device_for(Products::Inputs::bf16);
  Floats x = draw(5 * 37, 1);
  Floats w = draw(13 * 37, 2);
  static_cast<void>(
      product_of(*on, ConstMatrix(x.data(), 5, 37), ConstMatrix(w.data(), 13, 37), {}));
  // Form, inputs, N, K; left, right and output.
  CHECK(on->choice_table().starts_with("0 1 13 37 16 16 4 "));
}

TEST_CASE("device ops: bias, then residual are added to the rounded sum, by whomever") {
  constexpr Index kRows = 9;
  constexpr Index kOutputs = 24;
  constexpr Index kDepth = 64;
  constexpr Index kStride = 32;  // of the residual
  const Floats x = draw(kRows * kDepth, 1);
  const Floats w = draw(kOutputs * kDepth, 2);
  // Numbers beside which a sum rounds away to another one, as the order is.
  Floats bias = draw(kOutputs + 1, 3);
  Floats base = draw(kRows * kStride, 4);
  for (float& number : bias) number *= 4096.0F;
  for (float& number : base) number *= 65536.0F;
  const Floats before = draw(kRows * kOutputs, 5);
  const Floats nothing(static_cast<std::size_t>(kRows * kOutputs));
  const ConstMatrix left(x.data(), kRows, kDepth);
  const ConstMatrix right(w.data(), kOutputs, kDepth);
  const ConstMatrix residual(base.data(), kRows, kOutputs, kStride);
  const ConstMatrix none(nothing.data(), kRows, kOutputs);
  // The second device's library has no algorithm that takes a bias, where it is the stand-in.
  for (const char* const takes_bias : {"1", "0"}) {
    ::setenv("TUTTI_EMULATION_BIAS", takes_bias, 1);
    for (const auto inputs : kInputs) {
      const auto on = open_device_for(inputs);
      const Floats plain = product_of(*on, left, right, {});
      const auto by_hand = [&](Ends ends, Order order) {
        if (!ends.residual) ends.residual = none;
        return added_by_hand(plain, ends, order);
      };
      // The second bias begins where the library takes none.
      for (const Ends& ends :
           {Ends{bias.data(), {}, {}}, Ends{bias.data() + 1, {}, {}}, Ends{nullptr, residual, {}},
            Ends{nullptr, residual, before}, Ends{bias.data(), {}, before}}) {
        CHECK(product_of(*on, left, right, ends) == by_hand(ends, Order::bias_first));
      }
      for (const Ends& ends :
           {Ends{bias.data(), residual, {}}, Ends{bias.data(), residual, before}}) {
        const Floats sums = product_of(*on, left, right, ends);
        CHECK(sums == by_hand(ends, Order::bias_first));
        CHECK(sums != by_hand(ends, Order::residual_first));
      }
    }
    ::unsetenv("TUTTI_EMULATION_BIAS");
  }
}

namespace {

// One set of ends, and what they are by themselves: the op of each behind the plain product.
struct EndsCase {
  bool bias, residual, continued, narrow;
  int activation;  // -1: none
  bool gated;
};

struct EndsOperands {
  EndsOperands(Index rows_in, Index columns_in)
      : rows(rows_in),
        columns(columns_in),
        x(draw(rows * kDepth, 1)),
        w(draw(columns * kDepth, 2)),
        bias(draw(columns, 3)),
        residual(draw(rows * (columns + 4), 4)),
        gate(draw(rows * (columns + 8), 5)),
        before(draw(rows * columns, 6)) {}

  ConstMatrix of(const Floats& numbers) const {
    return {numbers.data(), rows, columns, static_cast<Index>(numbers.size()) / rows};
  }
  Product product(Floats& to) const {
    return {.left = ConstMatrix(x.data(), rows, kDepth),
            .right = ConstMatrix(w.data(), columns, kDepth),
            .output = Matrix(to.data(), rows, columns)};
  }
  Floats fused(CudaDevice& on, const EndsCase& c) const {
    Floats out = before;
    std::vector<Bf16> halves(out.size());
    Product args = product(out);
    if (c.bias) args.bias = bias.data();
    if (c.residual) args.residual = of(residual);
    if (c.continued) args.start = ChainStart::output;
    if (c.activation >= 0) args.activation = static_cast<Activation>(c.activation);
    if (c.gated) args.gate = of(gate);
    if (c.narrow) {
      args.output = {};
      args.narrow = {halves.data(), rows, columns};
    }
    REQUIRE(on.enqueue(ProductForm::nt, args));
    if (c.narrow) REQUIRE(on.enqueue(FromBf16{halves, out}));
    return out;
  }
  Floats apart(CudaDevice& on, const EndsCase& c) const {
    Floats out(before.size());
    REQUIRE(on.enqueue(ProductForm::nt, product(out)));
    for (Index i = 0; i < rows * columns; ++i) {
      float& value = out[static_cast<std::size_t>(i)];
      if (c.continued) value = before[static_cast<std::size_t>(i)] + value;
      if (c.bias) value += bias[static_cast<std::size_t>(i % columns)];
      if (c.residual) value += of(residual).row(i / columns)[i % columns];
    }
    const Matrix y(out.data(), rows, columns);
    const auto kind = static_cast<Activation>(c.activation);
    if (c.gated) {
      REQUIRE(on.enqueue(GateForward{.kind = kind, .gate = of(gate), .up = y, .y = y}));
    } else if (c.activation >= 0) {
      REQUIRE(on.enqueue(ActivationForward{.kind = kind, .x = y, .y = y}));
    }
    if (!c.narrow) return out;
    std::vector<Bf16> halves(out.size());
    REQUIRE(on.enqueue(ToBf16{out, halves}));
    REQUIRE(on.enqueue(FromBf16{halves, out}));
    return out;
  }

  static constexpr Index kDepth = 16;
  Index rows, columns;
  Floats x, w, bias, residual, gate, before;
};

}  // namespace

TEST_CASE("device ops: all ends of a product together have the bits of one after the other") {
  for (const auto inputs : {Products::Inputs::fp32, Products::Inputs::bf16}) {
    const auto on = open_device_for(inputs);
    // Rows that threads read by fours, and rows that they do not.
    for (const Index columns : {24, 13}) {
      const EndsOperands operands(5, columns);
      for (int bits = 0; bits < 16; ++bits) {
        for (int activation = -1; activation < 4; ++activation) {
          for (const bool gated : {false, true}) {
            const EndsCase c{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0,
                             (bits & 8) != 0, activation,      gated};
            if ((c.continued && c.narrow) || (gated && activation < 0)) continue;
            CAPTURE(static_cast<int>(inputs), columns, bits, activation, gated);
            const Floats fused = in_all_orders<float>(*on, [&] { return operands.fused(*on, c); });
            REQUIRE(fused == operands.apart(*on, c));
          }
        }
      }
    }
  }
}

namespace {

struct LossOutcome {
  Floats losses, dhidden, dweight;
  bool operator==(const LossOutcome&) const = default;
};

// In chunks of three rows, its head with a row of padding.
LossOutcome loss_of(CudaDevice& on, const Floats& x, const Floats& w, Index width) {
  const std::vector<std::int32_t> targets{5, 40, -1, 0, 42, 7, 7};
  const auto rows = static_cast<Index>(targets.size());
  const Index vocabulary = static_cast<Index>(w.size()) / width - 1;
  LossOutcome out{Floats(targets.size()), Floats(x.size()), draw(vocabulary * width, 3)};
  out.dweight.resize(w.size());
  REQUIRE(on.enqueue(LinearCrossEntropy{.hidden = ConstMatrix(x.data(), rows, width),
                                        .weight = ConstMatrix(w.data(), vocabulary, width),
                                        .targets = targets,
                                        .losses = out.losses.data(),
                                        .dhidden = Matrix(out.dhidden.data(), rows, width),
                                        .dweight = Matrix(out.dweight.data(), vocabulary, width),
                                        .chunk = 3,
                                        .padded = vocabulary + 1}));
  REQUIRE(on.synchronize());
  return out;
}

float rounded_as(Products::Inputs inputs, float x) {
  return inputs == Products::Inputs::bf16 ? from_bf16(to_bf16(x)) : rounded_to_fp16(x);
}

}  // namespace

TEST_CASE("device ops: the loss rounds the head once and hidden rows once a chunk") {
  // Rows that begin at multiples of 16 bytes when they are rounded, and rows that do not.
  for (const Index width : {24, 13}) {
    Floats x = draw(7 * width, 1);
    Floats w = draw(44 * width, 2);
    std::fill(w.end() - width, w.end(), 0.0F);
    for (const auto inputs : {Products::Inputs::bf16, Products::Inputs::fp16}) {
      CAPTURE(width, static_cast<int>(inputs));
      const auto on = open_device_for(inputs);
#ifdef TUTTI_CUDA_EMULATION
      const auto before = emulation::grids_of("round_rows_kernel");
#endif
      const LossOutcome given = loss_of(*on, x, w, width);
#ifdef TUTTI_CUDA_EMULATION
      CHECK(emulation::grids_of("round_rows_kernel") - before == 1 + 3);
#endif
      CHECK(given.losses[2] == 0.0F);
      CHECK(given.losses[0] > 0.0F);
      in_each_order([&] { CHECK(loss_of(*on, x, w, width) == given); });
      // What is rounded already stays as it is; the other type's numbers are others.
      const auto with_rounded = [&](Products::Inputs type) {
        Floats x_rounded = x;
        Floats w_rounded = w;
        for (Floats* const side : {&x_rounded, &w_rounded}) {
          for (float& value : *side) value = rounded_as(type, value);
        }
        return loss_of(*on, x_rounded, w_rounded, width);
      };
      CHECK(with_rounded(inputs) == given);
      CHECK_FALSE(with_rounded(inputs == Products::Inputs::bf16 ? Products::Inputs::fp16
                                                                : Products::Inputs::bf16) == given);
    }
  }
}

TEST_CASE("device ops: the ends of a product without a depth follow its start") {
  const auto on = open_device_for(Products::Inputs::fp32);
  const Floats bias = draw(8, 1);
  const Floats before = draw(24, 2);
  const auto run = [&](ChainStart start) {
    return in_all_orders<float>(*on, [&] {
      Floats output = before;
      REQUIRE(on->enqueue(ProductForm::nt, Product{.left = ConstMatrix(nullptr, 3, 0, 0),
                                                   .right = ConstMatrix(nullptr, 8, 0, 0),
                                                   .output = Matrix(output.data(), 3, 8),
                                                   .start = start,
                                                   .bias = bias.data(),
                                                   .activation = Activation::relu}));
      return output;
    });
  };
  const Floats continued = run(ChainStart::output);
  const Floats anew = run(ChainStart::zero);
  for (std::size_t i = 0; i < before.size(); ++i) {
    CHECK(continued[i] == std::max(before[i] + bias[i % 8], 0.0F));
    CHECK(anew[i] == std::max(bias[i % 8], 0.0F));
  }
}

}  // namespace tutti::kernels::cuda
