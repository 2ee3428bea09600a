// As nonfinite_test.cc, for ops by element and by row, and batches of products: what is not finite,
// or huge, stays where it belongs, on all paths alike.
#include <functional>
#include <limits>

#include "kernels/ops/add.h"
#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/elementwise/clear.h"
#include "kernels/ops/elementwise/dropout.h"
#include "kernels/ops/elementwise/softmax.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/optimizers/schedule_free.h"
#include "kernels/ops/product_batched.h"
#include "kernels/ops/silu_gate.h"
#include "tests/parity/harness.h"
#include "tests/parity/sweeps/lacking.h"

namespace tutti::kernels::parity {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr Index kRows = 6;
constexpr Index kColumns = 37;
constexpr auto kSize = static_cast<std::size_t>(kRows * kColumns);

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

bool one_of(std::size_t place, std::initializer_list<std::size_t> places) {
  return std::find(places.begin(), places.end(), place) != places.end();
}

// Elements that are not finite, or so large that two of them overflow.
constexpr std::size_t kNanAt = 40;
constexpr std::size_t kInfinityAt = 77;
constexpr std::size_t kHugeAt = 150;

Floats spoiled(std::uint64_t stream) {
  Floats x = draw(kRows * kColumns, stream);
  x[kNanAt] = kNan;
  x[kInfinityAt] = kInfinity;
  x[kHugeAt] = 3e38F;
  return x;
}

using RowOp = std::function<Result<>(const OpContext&, ConstMatrix x, Matrix y)>;

Floats run(const RowOp& op, const Floats& x) {
  return on_all_paths([&](const OpContext& ctx) {
    Floats y(x.size());
    REQUIRE(op(ctx, matrix(x, kRows, kColumns), matrix(y, kRows, kColumns)));
    return one_nan(std::move(y));
  });
}

// A NaN stays one, or becomes the zero that the op's contract says, and elements beside the spoiled
// ones are as they were.
enum class NanGives { nan, zero };
void require_elements_alone(const RowOp& op, NanGives gives = NanGives::nan) {
  const Floats good = run(op, draw(kRows * kColumns, 1));
  const Floats bad = run(op, spoiled(1));
  CHECK(std::isnan(bad[kNanAt]) == (gives == NanGives::nan));
  if (gives == NanGives::zero) CHECK(bad[kNanAt] == 0.0F);
  for (std::size_t i = 0; i < bad.size(); ++i) {
    if (!one_of(i, {kNanAt, kInfinityAt, kHugeAt})) REQUIRE(bad[i] == good[i]);
  }
}

std::span<const float> row_of(const Floats& rows, std::size_t row) {
  return std::span(rows).subspan(row * size_of(kColumns), size_of(kColumns));
}

}  // namespace

TEST_CASE("not finite: sums of elements are what fp32 makes of them") {
  const Floats a = spoiled(1);
  Floats b = draw(kRows * kColumns, 2);
  b[kInfinityAt] = -kInfinity;
  b[kHugeAt] = 3e38F;
  const Floats sum = on_all_paths([&](const OpContext& ctx) {
    Floats out = a;
    REQUIRE(add_into(ctx, out, b));
    return one_nan(std::move(out));
  });
  const Floats tree = on_all_paths([&](const OpContext& ctx) {
    Floats out(kSize);
    const std::span<const float> parts[] = {a, b, {}, b};
    REQUIRE(tree_sum(ctx, {parts, out}));
    return one_nan(std::move(out));
  });
  for (std::size_t i = 0; i < kSize; ++i) {
    const float added = a[i] + b[i];
    const float all = added + b[i];
    REQUIRE((std::isnan(added) ? std::isnan(sum[i]) : sum[i] == added));
    REQUIRE((std::isnan(all) ? std::isnan(tree[i]) : tree[i] == all));
  }
  CHECK(std::isnan(sum[kNanAt]));
  CHECK(std::isnan(sum[kInfinityAt]));
  CHECK(sum[kHugeAt] == kInfinity);
}

TEST_CASE("not finite: gradients of gates, and dropout, spoil their own elements only") {
  const Floats other = draw(kRows * kColumns, 2);
  const Floats third = draw(kRows * kColumns, 3);
  const ConstMatrix up = matrix(other, kRows, kColumns);
  const ConstMatrix dy = matrix(third, kRows, kColumns);
  Floats unused(kSize);
  const Matrix rest = matrix(unused, kRows, kColumns);
  for (const Activation kind :
       {Activation::gelu, Activation::gelu_tanh, Activation::silu, Activation::relu}) {
    INFO("kind " << static_cast<int>(kind));
    const NanGives of_input = kind == Activation::relu ? NanGives::zero : NanGives::nan;
    require_elements_alone([&](const OpContext& ctx, ConstMatrix x, Matrix y) {
      return gate_backward(ctx, {kind, x, up, dy, y, rest});
    });
    require_elements_alone(
        [&](const OpContext& ctx, ConstMatrix x, Matrix y) {
          return gate_backward(ctx, {kind, dy, x, up, rest, y});
        },
        of_input);
    require_elements_alone(
        [&](const OpContext& ctx, ConstMatrix x, Matrix y) {
          return activation_backward(ctx, {kind, dy, x, y});
        },
        of_input);
    require_elements_alone(
        [&](const OpContext& ctx, ConstMatrix x, Matrix y) {
          return gate_forward(ctx, {kind, x, up, y});
        },
        of_input);
  }
  require_elements_alone([&](const OpContext& ctx, ConstMatrix x, Matrix y) {
    return silu_gate_backward(ctx, {.dy = x, .gate = up, .up = dy, .dgate = y, .dup = rest});
  });
  require_elements_alone([&](const OpContext& ctx, ConstMatrix x, Matrix y) {
    return silu_gate_backward(ctx, {.dy = dy, .gate = up, .up = x, .dgate = y, .dup = rest});
  });
  // Kept elements are scaled, a NaN among them too; dropped ones are zeros whatever they were.
  const auto dropped = [&](const Floats& x) {
    return run(
        [](const OpContext& ctx, ConstMatrix from, Matrix to) {
          return dropout(ctx, {{1, 2}, 0, 0.5, from, to});
        },
        x);
  };
  const Floats ones = dropped(Floats(kSize, 1.0F));
  const Floats bad = dropped(Floats(kSize, kNan));
  const Floats huge = dropped(Floats(kSize, 3e38F));
  for (std::size_t i = 0; i < kSize; ++i) {
    REQUIRE(std::isnan(bad[i]) == (ones[i] != 0.0F));
    REQUIRE(huge[i] == (ones[i] != 0.0F ? kInfinity : 0.0F));
  }
}

TEST_CASE("not finite: softmax's gradient spoils its own rows only") {
  const Floats x = draw(kRows * kColumns, 1);
  const Floats y = run(
      [](const OpContext& ctx, ConstMatrix from, Matrix to) {
        return softmax_forward(ctx, {from, to});
      },
      x);
  const auto gradient = [&](const Floats& dy) {
    return run(
        [&](const OpContext& ctx, ConstMatrix from, Matrix to) {
          return softmax_backward(ctx, {from, matrix(y, kRows, kColumns), to});
        },
        dy);
  };
  const Floats good = gradient(draw(kRows * kColumns, 2));
  Floats dy = draw(kRows * kColumns, 2);
  dy[size_of(kColumns) + 3] = kNan;
  dy[size_of(3 * kColumns) + 4] = -kInfinity;
  for (Index c = 0; c < kColumns; ++c) dy[size_of(4 * kColumns + c)] = 3e37F;
  const Floats bad = gradient(dy);
  for (const std::size_t row : {0U, 2U, 5U}) CHECK(same_bits(row_of(bad, row), row_of(good, row)));
  for (const std::size_t row : {1U, 3U}) {
    for (const float value : row_of(bad, row)) CHECK_FALSE(std::isfinite(value));
  }
  for (const float value : row_of(bad, 4)) CHECK(std::isfinite(value));
}

TEST_CASE("not finite: an embedding's rows are copied as they are, and sums go to their rows") {
  Floats table = draw(5 * kColumns, 1);
  table[size_of(2 * kColumns) + 1] = kNan;
  table[size_of(2 * kColumns) + 2] = -kInfinity;
  const std::vector<std::int32_t> tokens = {0, 2, 4, 2, 1, 3};
  const Floats rows = on_all_paths([&](const OpContext& ctx) {
    Floats out(kSize);
    REQUIRE(embedding_forward(ctx, {.table = matrix(table, 5, kColumns),
                                    .tokens = tokens,
                                    .output = matrix(out, kRows, kColumns)}));
    return out;
  });
  for (std::size_t r = 0; r < tokens.size(); ++r) {
    CHECK(same_bits(row_of(rows, r), row_of(table, size_of(tokens[r]))));
  }
  Floats dout = draw(kRows * kColumns, 2);
  const auto sums = [&] {
    return on_all_paths([&](const OpContext& ctx) {
      Floats out(size_of(5 * kColumns));
      REQUIRE(embedding_backward(ctx, {.dout = matrix(dout, kRows, kColumns),
                                       .tokens = tokens,
                                       .dtable = matrix(out, 5, kColumns)}));
      return one_nan(std::move(out));
    });
  };
  const Floats good = sums();
  dout[size_of(kColumns) + 1] = kInfinity;       // token 2
  dout[size_of(3 * kColumns) + 1] = -kInfinity;  // and again
  const Floats bad = sums();
  for (std::size_t i = 0; i < bad.size(); ++i) {
    if (i == size_of(2 * kColumns) + 1) {
      CHECK(std::isnan(bad[i]));
    } else {
      REQUIRE(bad[i] == good[i]);
    }
  }
}

TEST_CASE("not finite: the average of schedule-free spoils its own elements only") {
  const Floats weight = draw(kRows * kColumns, 2);
  require_elements_alone([&](const OpContext& ctx, ConstMatrix x, Matrix y) {
    return schedule_free_average(ctx,
                                 {0.9, weight, std::span(x.data, kSize), std::span(y.data, kSize)});
  });
}

TEST_CASE("not finite: zeros are zeros after anything, on all paths") {
  for (const Index size : {0, 1, 15, 16, 65536 + 77}) {
    const Floats result = on_all_paths([&](const OpContext& ctx) {
      Floats x(size_of(size), kNan);
      REQUIRE(clear(ctx, x));
      return x;
    });
    CHECK(same_bits(result, Floats(size_of(size))));
  }
  // Beside a span nothing is touched.
  Floats x(10, 1.0F);
  REQUIRE(clear(single(), std::span(x).subspan(3, 4)));
  CHECK(x == Floats{1, 1, 1, 0, 0, 0, 0, 1, 1, 1});
}

TEST_CASE("not finite: a batch of products is as many products, spoiled ones beside good ones") {
  constexpr Index kCount = 5;
  constexpr Index kSide = 20;
  Floats left = draw(kCount * kSide * kSide, 1);
  const Floats right = draw(kCount * kSide * kSide, 2);
  left[size_of(kSide * kSide)] = kNan;
  left[size_of(3 * kSide * kSide) + 30] = kInfinity;
  left[size_of(4 * kSide * kSide) + 50] = 3e38F;
  const auto at = [&](auto& data, Index which) {
    return matrix(data, kCount * kSide, kSide).row_range(which * kSide, kSide);
  };
  for (const ProductForm form : {ProductForm::nt, ProductForm::nn, ProductForm::tn}) {
    const auto batch = [&](const OpContext& ctx, Floats& out) {
      return product_batched(ctx, {.form = form,
                                   .count = kCount,
                                   .left = at(std::as_const(left), 0),
                                   .left_step = kSide * kSide,
                                   .right = at(right, 0),
                                   .right_step = kSide * kSide,
                                   .output = at(out, 0),
                                   .output_step = kSide * kSide});
    };
    Floats unused(left.size());
    if (is_lacking(batch(single(), unused))) return;
    const Floats all = on_all_paths([&](const OpContext& ctx) {
      Floats out(left.size());
      REQUIRE(batch(ctx, out));
      return one_nan(std::move(out));
    });
    Floats one(left.size());
    for (Index b = 0; b < kCount; ++b) {
      const Product product{
          .left = at(std::as_const(left), b), .right = at(right, b), .output = at(one, b)};
      const auto op = form == ProductForm::nt   ? product_nt
                      : form == ProductForm::nn ? product_nn
                                                : product_tn;
      REQUIRE(op(single(), product));
    }
    CHECK(same_bits(all, one_nan(std::move(one))));
  }
}

}  // namespace tutti::kernels::parity
