// Matrices that whoever makes them leaves as products read them (ops/elementwise/rounded.h): the
// bits of the op that leaves fp32, rounded behind it, and of the products that round for
// themselves.
#include <catch2/catch.hpp>

#include <functional>
#include <limits>

#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/elementwise/fp16.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/silu_gate.h"
#include "tests/emulation/rounded/rounded_room.h"
#ifdef TUTTI_CUDA_EMULATION
#include "tests/support/cuda_emulation/grid_counts.h"
#endif

namespace tutti::kernels::cuda {
namespace {

// An op that leaves `wide`, `rounded`, or both of them, each of [rows, columns].
using Leaves = std::function<void(const Matrix& wide, const RoundedMatrix& rounded)>;

void check_leaves(CudaDevice& on, Inputs inputs, std::pair<Index, Index> shape,
                  const Leaves& leaves) {
  const auto [rows, columns] = shape;
  const Floats nothing(static_cast<std::size_t>(rows * columns), 7.0F);
  Floats alone = nothing;
  leaves(Matrix(alone.data(), rows, columns), {});
  for (const Index behind : {0, 8}) {
    CAPTURE(behind);
    const Halves expected =
        rounded_behind(on, ConstMatrix(alone.data(), rows, columns), inputs, behind);
    in_each_order([&, columns = columns, rows = rows, behind = behind] {
      RoundedRoom instead(rows, columns, behind);
      leaves({}, instead.matrix);
      REQUIRE(on.synchronize());
      CHECK(instead.numbers == expected);
      RoundedRoom beside(rows, columns, behind);
      Floats wide = nothing;
      leaves(Matrix(wide.data(), rows, columns), beside.matrix);
      REQUIRE(on.synchronize());
      CHECK(beside.numbers == expected);
      CHECK(bits_of(wide) == bits_of(alone));
    });
  }
}

constexpr Activation kActivations[] = {Activation::gelu, Activation::gelu_tanh, Activation::silu,
                                       Activation::relu};

// Rows of inputs lie apart, too.
constexpr Index kRows = 5;
constexpr Index kColumns = 72;
constexpr Index kStride = kColumns + 3;

ConstMatrix banded(const Floats& numbers) { return {numbers.data(), kRows, kColumns, kStride}; }

}  // namespace

TEST_CASE("device ops: a product reads operands that were rounded before, with the same bits") {
  constexpr Index kM = 21;
  constexpr Index kN = 13;
  constexpr Index kK = 37;
  for (const Inputs inputs : kHalfInputs) {
    const auto on = open_device_for(inputs);
    for (const ProductForm form : {ProductForm::nt, ProductForm::nn, ProductForm::tn}) {
      const bool turned = form == ProductForm::tn;
      const Floats x = draw(kM * kK, 1);
      const Floats w = draw(kN * kK, 2);
      const ConstMatrix left(x.data(), turned ? kK : kM, turned ? kM : kK);
      const ConstMatrix right(w.data(), form == ProductForm::nt ? kN : kK,
                              form == ProductForm::nt ? kK : kN);
      const auto rounded = [&](const ConstMatrix& of, Halves& room, Narrow narrow) {
        const Index stride = rounded_stride(of.columns) + 8;
        room.assign(static_cast<std::size_t>(of.rows * stride), kUntouched);
        REQUIRE(round_rows(on->stream(), of, room.data(), stride, narrow));
        return ConstRoundedMatrix(room.data(), of.rows, of.columns, stride);
      };
      const auto product = [&](Product args) {
        Floats output = draw(kM * kN, 3);
        args.output = Matrix(output.data(), kM, kN);
        args.start = ChainStart::output;
        REQUIRE(on->enqueue(form, args));
        REQUIRE(on->synchronize());
        return output;
      };
      const Floats expected = product({.left = left, .right = right, .output = {}});
      const auto without_data = [](ConstMatrix matrix) {
        matrix.data = nullptr;
        return matrix;
      };
      Halves left_room;
      Halves right_room;
      const auto of_left = rounded(left, left_room, narrow_of(inputs));
      const auto of_right = rounded(right, right_room, narrow_of(inputs));
      CAPTURE(static_cast<int>(inputs), static_cast<int>(form));
      in_each_order([&] {
        CHECK(product({.left = without_data(left),
                       .right = right,
                       .output = {},
                       .left_rounded = of_left}) == expected);
        CHECK(product({.left = left,
                       .right = without_data(right),
                       .output = {},
                       .right_rounded = of_right}) == expected);
      });
      const Product both{.left = without_data(left),
                         .right = without_data(right),
                         .output = {},
                         .left_rounded = of_left,
                         .right_rounded = of_right};
#ifdef TUTTI_CUDA_EMULATION
      const auto before = emulation::grids_of("round_rows_kernel");
      CHECK(product(both) == expected);
      CHECK(emulation::grids_of("round_rows_kernel") == before);
#else
      CHECK(product(both) == expected);
#endif
      // Had it been rounded to the other type on its way, these would be other numbers.
      Floats twice = x;
      for (float& value : twice) {
        value = inputs == Inputs::bf16 ? rounded_to_fp16(value) : from_bf16(to_bf16(value));
      }
      Halves twice_room;
      const auto of_twice =
          rounded({twice.data(), left.rows, left.columns}, twice_room, narrow_of(inputs));
      CHECK(product({.left = left, .right = right, .output = {}, .left_rounded = of_twice}) !=
            expected);
    }
  }
}

TEST_CASE("device ops: activations leave rounded rows with the bits of rounding behind them") {
  const Floats x = odd_numbers(kRows * kStride, 1);
  const Floats dy = odd_numbers(kRows * kStride, 2);
  for (const Inputs inputs : kHalfInputs) {
    const auto on = open_device_for(inputs);
    for (const Activation kind : kActivations) {
      CAPTURE(static_cast<int>(inputs), static_cast<int>(kind));
      check_leaves(*on, inputs, {kRows, kColumns}, [&](const Matrix& y, const RoundedMatrix& to) {
        REQUIRE(
            on->enqueue(ActivationForward{.kind = kind, .x = banded(x), .y = y, .rounded = to}));
      });
      check_leaves(*on, inputs, {kRows, kColumns}, [&](const Matrix& dx, const RoundedMatrix& to) {
        REQUIRE(on->enqueue(ActivationBackward{
            .kind = kind, .dy = banded(dy), .x = banded(x), .dx = dx, .rounded = to}));
      });
    }
  }
}

TEST_CASE("device ops: an activation's gradient is summed on its way as column_sums would") {
  constexpr Index kMany = 2 * 256 + 3;  // rows: three pieces
  constexpr Index kWide = 136;          // more columns than a block has threads
  Floats x = draw(kMany * kWide, 1);
  Floats dy = draw(kMany * kWide, 2);
  x[7] = std::numeric_limits<float>::quiet_NaN();
  dy[300] = std::numeric_limits<float>::infinity();
  const Floats before = draw(kWide, 3);
  const ConstMatrix rows(x.data(), kMany, kWide);
  const ConstMatrix slopes(dy.data(), kMany, kWide);
  for (const Inputs inputs : kHalfInputs) {
    const auto on = open_device_for(inputs);
    for (const Activation kind : kActivations) {
      CAPTURE(static_cast<int>(inputs), static_cast<int>(kind));
      Floats dx(x.size());
      Floats expected = before;
      REQUIRE(on->enqueue(ActivationBackward{
          .kind = kind, .dy = slopes, .x = rows, .dx = Matrix(dx.data(), kMany, kWide)}));
      REQUIRE(on->enqueue(ColumnSums{.x = ConstMatrix(dx.data(), kMany, kWide),
                                     .output = expected.data(),
                                     .start = ChainStart::output}));
      check_leaves(*on, inputs, {kMany, kWide}, [&](const Matrix& wide, const RoundedMatrix& to) {
        Floats sums = before;
        REQUIRE(on->enqueue(ActivationBackward{.kind = kind,
                                               .dy = slopes,
                                               .x = rows,
                                               .dx = wide,
                                               .rounded = to,
                                               .sums = to ? sums.data() : nullptr}));
        REQUIRE(on->synchronize());
        if (to) CHECK(bits_of(sums) == bits_of(expected));
      });
    }
  }
}

TEST_CASE("device ops: a gated layer leaves rounded rows with the bits of rounding behind them") {
  const Floats gate = odd_numbers(kRows * kStride, 1);
  const Floats up = odd_numbers(kRows * kStride, 2);
  const Floats dy = odd_numbers(kRows * kStride, 3);
  for (const Inputs inputs : kHalfInputs) {
    const auto on = open_device_for(inputs);
    CAPTURE(static_cast<int>(inputs));
    check_leaves(*on, inputs, {kRows, kColumns}, [&](const Matrix& y, const RoundedMatrix& to) {
      REQUIRE(on->enqueue(
          SiluGateForward{.gate = banded(gate), .up = banded(up), .y = y, .rounded = to}));
    });
    Floats other(static_cast<std::size_t>(kRows * kColumns));
    const Matrix beside(other.data(), kRows, kColumns);
    const SiluGateBackward both{
        .dy = banded(dy), .gate = banded(gate), .up = banded(up), .dgate = beside, .dup = beside};
    check_leaves(*on, inputs, {kRows, kColumns}, [&](const Matrix& wide, const RoundedMatrix& to) {
      SiluGateBackward args = both;
      args.dgate = wide;
      args.dgate_rounded = to;
      REQUIRE(on->enqueue(args));
    });
    check_leaves(*on, inputs, {kRows, kColumns}, [&](const Matrix& wide, const RoundedMatrix& to) {
      SiluGateBackward args = both;
      args.dup = wide;
      args.dup_rounded = to;
      REQUIRE(on->enqueue(args));
    });
  }
}

TEST_CASE("device ops: norms leave rounded rows with the bits of rounding behind them") {
  Floats x = draw(kRows * kStride, 1);
  x[5] = std::numeric_limits<float>::quiet_NaN();
  x[2 * kStride + 3] = std::numeric_limits<float>::infinity();
  x[3 * kStride + 4] = 1e30F;
  Floats weight = draw(kColumns, 2);
  weight[9] = 1e6F;
  weight[10] = 3e38F;
  const Floats bias = draw(kColumns, 3);
  for (const Inputs inputs : kHalfInputs) {
    const auto on = open_device_for(inputs);
    CAPTURE(static_cast<int>(inputs));
    check_leaves(*on, inputs, {kRows, kColumns}, [&](const Matrix& y, const RoundedMatrix& to) {
      REQUIRE(on->enqueue(
          RmsNormForward{.x = banded(x), .weight = weight.data(), .y = y, .rounded = to}));
    });
    check_leaves(*on, inputs, {kRows, kColumns}, [&](const Matrix& y, const RoundedMatrix& to) {
      REQUIRE(on->enqueue(LayerNormForward{
          .x = banded(x), .weight = weight.data(), .bias = bias.data(), .y = y, .rounded = to}));
    });
  }
}

TEST_CASE("device ops: norms' gradients leave rounded rows with the bits of rounding behind them") {
  const Floats dy = odd_numbers(kRows * kStride, 1);
  const Floats x = draw(kRows * kStride, 2);
  const Floats around = draw(kRows * kStride, 3);
  const Floats weight = draw(kColumns, 4);
  const Floats mean = draw(kRows, 5);
  const Floats inverse(kRows, 0.75F);
  for (const Inputs inputs : kHalfInputs) {
    const auto on = open_device_for(inputs);
    CAPTURE(static_cast<int>(inputs));
    Floats first_sums;
    check_leaves(*on, inputs, {kRows, kColumns}, [&](const Matrix& dx, const RoundedMatrix& to) {
      Floats sums(kColumns, 1.0F);
      REQUIRE(on->enqueue(RmsNormBackward{.dy = banded(dy),
                                          .x = banded(x),
                                          .weight = weight.data(),
                                          .inverse = inverse.data(),
                                          .dx = dx,
                                          .dweight = sums.data(),
                                          .residual = banded(around),
                                          .rounded = to}));
      REQUIRE(on->synchronize());
      if (first_sums.empty()) first_sums = sums;
      CHECK(bits_of(sums) == bits_of(first_sums));
    });
    first_sums.clear();
    check_leaves(*on, inputs, {kRows, kColumns}, [&](const Matrix& dx, const RoundedMatrix& to) {
      Floats sums(2 * kColumns, 1.0F);
      REQUIRE(on->enqueue(LayerNormBackward{.dy = banded(dy),
                                            .x = banded(x),
                                            .weight = weight.data(),
                                            .mean = mean.data(),
                                            .inverse = inverse.data(),
                                            .dx = dx,
                                            .dweight = sums.data(),
                                            .dbias = sums.data() + kColumns,
                                            .residual = banded(around),
                                            .rounded = to}));
      REQUIRE(on->synchronize());
      if (first_sums.empty()) first_sums = sums;
      CHECK(bits_of(sums) == bits_of(first_sums));
    });
  }
}

TEST_CASE("device ops: rounded rows with gaps may be more than a grid takes") {
  constexpr Index kMany = 65535 + 3;
  constexpr Index kFew = 8;
  const Floats x = odd_numbers(kMany * kFew, 1);
  const ConstMatrix rows(x.data(), kMany, kFew);
  const auto on = open_device_for(Inputs::bf16);
  const Halves expected = rounded_behind(*on, rows, Inputs::bf16);
  RoundedRoom room(kMany, kFew);
  REQUIRE(on->round(rows, room.matrix));
  REQUIRE(on->synchronize());
  CHECK(room.numbers == expected);
}

TEST_CASE("device ops: a matrix is rounded as products round their operands") {
  const Floats x = odd_numbers(kRows * kStride, 1);
  for (const Inputs inputs : kHalfInputs) {
    const auto on = open_device_for(inputs);
    for (const Index behind : {0, 8}) {
      RoundedRoom room(kRows, kColumns, behind);
      const Halves expected = rounded_behind(*on, banded(x), inputs, behind);
      in_each_order([&] {
        REQUIRE(on->round(banded(x), room.matrix));
        REQUIRE(on->synchronize());
        CHECK(room.numbers == expected);
      });
    }
    RoundedRoom other(kRows, kColumns + 8);
    CHECK(on->round(banded(x), other.matrix).error().code == ErrorCode::invalid_argument);
    CHECK(on->round(banded(x), {}).error().code == ErrorCode::invalid_argument);
  }
  RoundedRoom room(kRows, kColumns);
  const auto exact = open_device_for(Inputs::tf32);
  CHECK(exact->round(banded(x), room.matrix).error().code == ErrorCode::unsupported);
}

TEST_CASE("device ops: the loss rounds the head once, and hidden rows once a chunk") {
  constexpr Index kTokens = 7;
  constexpr Index kWidth = 24;
  constexpr Index kVocabulary = 43;
  const Floats x = draw(kTokens * kWidth, 1);
  const Floats w = draw(kVocabulary * kWidth, 2);
  const std::vector<std::int32_t> targets{5, 40, -1, 0, 42, 7, 7};
  const ConstMatrix hidden(x.data(), kTokens, kWidth);
  struct Outcome {
    Floats losses, dhidden, dweight;
    bool operator==(const Outcome&) const = default;
  };
  for (const Inputs inputs : kHalfInputs) {
    const auto on = open_device_for(inputs);
    CAPTURE(static_cast<int>(inputs));
    const auto loss = [&](const ConstMatrix& rows, const ConstRoundedMatrix& rounded,
                          const Floats& head, const ConstRoundedMatrix& head_rounded = {}) {
      const float* const wide_head = head_rounded ? nullptr : head.data();
      Outcome out{Floats(kTokens), Floats(x.size()), draw(kVocabulary * kWidth, 3)};
      REQUIRE(
          on->enqueue(LinearCrossEntropy{.hidden = rows,
                                         .weight = ConstMatrix(wide_head, kVocabulary, kWidth),
                                         .targets = targets,
                                         .losses = out.losses.data(),
                                         .dhidden = Matrix(out.dhidden.data(), kTokens, kWidth),
                                         .dweight = Matrix(out.dweight.data(), kVocabulary, kWidth),
                                         .chunk = 3,
                                         .hidden_rounded = rounded,
                                         .weight_rounded = head_rounded}));
      REQUIRE(on->synchronize());
      return out;
    };
#ifdef TUTTI_CUDA_EMULATION
    const auto before = emulation::grids_of("round_rows_kernel");
    const Outcome expected = loss(hidden, {}, w);
    CHECK(emulation::grids_of("round_rows_kernel") == before + 1 + 3);
#else
    const Outcome expected = loss(hidden, {}, w);
#endif
    CHECK(expected.losses[2] == 0.0F);
    CHECK(expected.losses[0] > 0.0F);
    Halves room(static_cast<std::size_t>(kTokens * 32), kUntouched);
    REQUIRE(round_rows(on->stream(), hidden, room.data(), 32, narrow_of(inputs)));
    REQUIRE(on->synchronize());
    RoundedRoom head(kVocabulary, kWidth);
    REQUIRE(on->round(ConstMatrix(w.data(), kVocabulary, kWidth), head.matrix));
    in_each_order([&] {
      CHECK(loss({nullptr, kTokens, kWidth}, {room.data(), kTokens, kWidth, 32}, w) == expected);
      CHECK(loss(hidden, {}, w, head.matrix) == expected);
    });
#ifdef TUTTI_CUDA_EMULATION
    const auto rounded_before = emulation::grids_of("round_rows_kernel");
    CHECK(loss(hidden, {}, w, head.matrix) == expected);
    CHECK(emulation::grids_of("round_rows_kernel") == rounded_before + 3);
#else
    CHECK(loss(hidden, {}, w, head.matrix) == expected);
#endif
    // Its gradients are those of products that round for themselves: what is rounded already stays.
    const auto rounded_numbers = [&](Floats values) {
      for (float& value : values) {
        value = inputs == Inputs::bf16 ? from_bf16(to_bf16(value)) : rounded_to_fp16(value);
      }
      return values;
    };
    const Floats x_rounded = rounded_numbers(x);
    CHECK(loss({x_rounded.data(), kTokens, kWidth}, {}, rounded_numbers(w)) == expected);
  }
}

TEST_CASE("device ops: rounded matrices are refused where they do not lie or mean what they must") {
  ThreadPool pool(1);
  const auto coarse = open_device_for(Inputs::bf16);
  const OpContext here{&pool, coarse.get()};
  Floats x(4 * 16);
  Halves room(4 * 16 + 1);
  const ConstMatrix in(x.data(), 4, 16);
  const auto leave = [&](const OpContext& ctx, const ConstMatrix& from, const RoundedMatrix& to) {
    return activation_forward(ctx, {.kind = Activation::relu, .x = from, .y = {}, .rounded = to});
  };
  REQUIRE(leave(here, in, {room.data(), 4, 16}));
  REQUIRE(coarse->synchronize());
  const auto code_of = [](const Result<>& result) {
    REQUIRE_FALSE(result);
    return result.error().code;
  };
  // Another shape, rows and an address between multiples of 16 bytes, columns that end there.
  const ConstMatrix narrower(x.data(), 4, 12);
  CHECK(code_of(leave(here, in, {room.data(), 3, 16})) == ErrorCode::invalid_argument);
  CHECK(code_of(leave(here, in, {room.data() + 1, 4, 16})) == ErrorCode::invalid_argument);
  CHECK(code_of(leave(here, narrower, {room.data(), 4, 12})) == ErrorCode::invalid_argument);
  CHECK(code_of(leave(here, narrower, {room.data(), 4, 12, 16})) == ErrorCode::invalid_argument);
  CHECK(code_of(leave(here, in, {})) == ErrorCode::invalid_argument);
  CHECK(code_of(activation_backward(
            here, {.dy = in, .x = in, .dx = Matrix(x.data(), 4, 16), .sums = x.data()})) ==
        ErrorCode::invalid_argument);
  // A CPU has none, nor has a device that rounds nothing.
  const OpContext host{&pool, nullptr};
  for (const auto inputs : {Inputs::fp32, Inputs::tf32}) {
    const auto exact = open_device_for(inputs);
    CHECK(code_of(leave({&pool, exact.get()}, in, {room.data(), 4, 16})) == ErrorCode::unsupported);
  }
  const RoundedMatrix to(room.data(), 4, 16);
  const Matrix square(x.data(), 4, 4);
  const float* const weight = x.data();
  CHECK(code_of(leave(host, in, to)) == ErrorCode::unsupported);
  CHECK(code_of(activation_backward(host, {.dy = in, .x = in, .dx = {}, .rounded = to})) ==
        ErrorCode::unsupported);
  CHECK(code_of(silu_gate_forward(host, {.gate = in, .up = in, .y = {}, .rounded = to})) ==
        ErrorCode::unsupported);
  CHECK(code_of(silu_gate_backward(host, {.dy = in,
                                          .gate = in,
                                          .up = in,
                                          .dgate = {},
                                          .dup = {},
                                          .dgate_rounded = to,
                                          .dup_rounded = to})) == ErrorCode::unsupported);
  CHECK(code_of(rms_norm_forward(host, {.x = in, .weight = weight, .y = {}, .rounded = to})) ==
        ErrorCode::unsupported);
  CHECK(code_of(layer_norm_forward(host, {.x = in, .weight = weight, .y = {}, .rounded = to})) ==
        ErrorCode::unsupported);
  CHECK(code_of(rms_norm_backward(
            host,
            {.dy = in, .x = in, .weight = weight, .inverse = weight, .dx = {}, .rounded = to})) ==
        ErrorCode::unsupported);
  CHECK(code_of(layer_norm_backward(host, {.dy = in,
                                           .x = in,
                                           .weight = weight,
                                           .mean = weight,
                                           .inverse = weight,
                                           .dx = {},
                                           .rounded = to})) == ErrorCode::unsupported);
  CHECK(
      code_of(product_nt(host, {.left = in, .right = in, .output = square, .left_rounded = to})) ==
      ErrorCode::unsupported);
  const std::vector<std::int32_t> targets(4, 0);
  CHECK(code_of(linear_cross_entropy(host, {.hidden = in,
                                            .weight = in,
                                            .targets = targets,
                                            .losses = x.data(),
                                            .hidden_rounded = to})) == ErrorCode::unsupported);
  CHECK(code_of(linear_cross_entropy(host, {.hidden = in,
                                            .weight = in,
                                            .targets = targets,
                                            .losses = x.data(),
                                            .weight_rounded = to})) == ErrorCode::unsupported);
}

}  // namespace tutti::kernels::cuda
