// Numbers that are not finite, and huge ones: what they reach they spoil, on all paths alike; what
// does not depend on them keeps its bits.
#include <algorithm>
#include <functional>
#include <limits>
#include <string_view>

#include "kernels/ops/adamw.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/optimizers/adafactor.h"
#include "kernels/ops/optimizers/adamw8.h"
#include "kernels/ops/optimizers/lion.h"
#include "kernels/ops/optimizers/muon.h"
#include "kernels/ops/optimizers/schedule_free.h"
#include "kernels/ops/optimizers/sgd.h"
#include "kernels/ops/product.h"
#include "kernels/ops/product_bf16.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/rotary.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

// Says what is left out where the suite runs on a GPU (kernels/ops/without_cuda.txt).
bool is_on_device(const char* why) {
  if (single().device != nullptr) WARN("skipped: " << why);
  return single().device != nullptr;
}

// A NaN, both infinities, numbers whose products overflow, one below the normal range; far enough
// from each other to lie in different rows.
Floats spoiled(Index count, std::uint64_t stream) {
  Floats values = draw(count, stream);
  if (count < 8) return values;
  values[1] = kNan;
  values[size_of(count / 4)] = kInfinity;
  values[size_of(count / 3)] = -kInfinity;
  values[size_of(count / 2)] = 3e38F;
  values[size_of(count / 2) + 1] = -3e38F;
  values[size_of(count - 1)] = 0x1p-140F;
  return values;
}

bool is_finite(std::span<const float> row) {
  for (const float value : row) {
    if (!std::isfinite(value)) return false;
  }
  return true;
}

struct Shape {
  Index m, n, k;
};
// One row, few, and both kinds of tiles.
const Shape kShapes[] = {{1, 70, 33}, {4, 20, 64}, {9, 70, 40}, {70, 33, 20}};

// Element (row, k) of the left operand and (k, column) of the right one, by kind.
struct Operands {
  Index m, n, k;
  bool left_turned, right_turned;
  const Floats* left;
  const Floats* right;
  float left_at(Index row, Index i) const {
    return (*left)[size_of(left_turned ? i * m + row : row * k + i)];
  }
  float right_at(Index i, Index column) const {
    return (*right)[size_of(right_turned ? column * k + i : i * n + column)];
  }
  Floats chains() const {
    Floats result(size_of(m * n));
    for (Index r = 0; r < m; ++r) {
      for (Index c = 0; c < n; ++c) {
        result[size_of(r * n + c)] = reference::chain(
            0.0F, k, [&](Index i) { return left_at(r, i); },
            [&](Index i) { return right_at(i, c); });
      }
    }
    return one_nan(std::move(result));
  }
  // Whether these are the sums of some order: one that has an infinity or a NaN among its terms is
  // what they make, one whose partial sums may leave fp32 may be anything.
  bool are_sums(const Floats& result) const {
    for (Index r = 0; r < m; ++r) {
      for (Index c = 0; c < n; ++c) {
        double sum = 0.0;
        double magnitude = 0.0;
        for (Index i = 0; i < k; ++i) {
          const double term =
              static_cast<double>(left_at(r, i)) * static_cast<double>(right_at(i, c));
          sum += term;
          magnitude += std::abs(term);
        }
        const auto value = static_cast<double>(result[size_of(r * n + c)]);
        const bool overflows = std::isfinite(magnitude) &&
                               magnitude > static_cast<double>(std::numeric_limits<float>::max());
        const bool fits = std::isfinite(magnitude)
                              ? std::abs(value - sum) <= tolerance(k, magnitude)
                          : std::isnan(sum) ? std::isnan(value)
                                            : value == sum || std::isnan(value);
        if (fits || overflows) continue;
        UNSCOPED_INFO("row " << r << ", column " << c << ": " << value << " and " << sum);
        return false;
      }
    }
    return true;
  }
};

// As same_sums, of numbers that may not be finite.
bool same_products(const Floats& result, const Operands& of) {
  return continues_chains() ? same_bits(result, of.chains()) : of.are_sums(result);
}

Floats widened(const Floats& values) {
  std::vector<Bf16> halves(values.size());
  REQUIRE(to_bf16(single(), values, halves));
  Floats wide(values.size());
  REQUIRE(from_bf16(single(), halves, wide));
  return wide;
}

}  // namespace

TEST_CASE("not finite: fp32 products are still the chain, with and without an image") {
  for (const Shape& s : kShapes) {
    const Floats x = spoiled(s.m * s.k, 1);
    const Floats w = spoiled(s.n * s.k, 2);
    INFO(s.m << " x " << s.n << " x " << s.k);
    const auto run = [&](auto op, ConstMatrix left, ConstMatrix right, const PackedWeight* image) {
      return on_all_paths([&](const OpContext& ctx) {
        Floats out(size_of(s.m * s.n));
        REQUIRE(op(
            ctx, {.left = left, .right = right, .output = matrix(out, s.m, s.n), .packed = image}));
        return one_nan(std::move(out));
      });
    };
    const auto packed = pack_weight(single(), matrix(w, s.n, s.k));
    REQUIRE(packed);
    const Operands nt{s.m, s.n, s.k, false, true, &x, &w};
    const ConstMatrix rows = matrix(x, s.m, s.k);
    CHECK(same_products(run(product_nt, rows, matrix(w, s.n, s.k), nullptr), nt));
    CHECK(same_products(run(product_nt, rows, matrix(w, s.n, s.k), &*packed), nt));
    CHECK(same_products(run(product_nn, rows, matrix(w, s.k, s.n), nullptr),
                        {s.m, s.n, s.k, false, false, &x, &w}));
    CHECK(same_products(run(product_tn, matrix(x, s.k, s.m), matrix(w, s.k, s.n), nullptr),
                        {s.m, s.n, s.k, true, false, &x, &w}));
  }
}

TEST_CASE("not finite: sums by shards") {
  if (is_on_device("no GPU adds shards in its products")) return;
  const Index tokens = 40;
  const Floats left = spoiled(tokens * 9, 1);
  const Floats right = draw(tokens * 70, 2);
  const std::vector<Index> ends = {5, 5, 20, tokens};
  const Floats sharded = on_all_paths([&](const OpContext& ctx) {
    Floats out(9 * 70);
    REQUIRE(product_tn_shards(ctx, {.left = matrix(left, tokens, 9),
                                    .right = matrix(right, tokens, 70),
                                    .output = matrix(out, 9, 70),
                                    .ends = ends}));
    return one_nan(std::move(out));
  });
  const auto piece = [&](Index first, Index count) {
    Floats out(9 * 70);
    REQUIRE(product_tn(single(), {.left = matrix(left, tokens, 9).row_range(first, count),
                                  .right = matrix(right, tokens, 70).row_range(first, count),
                                  .output = matrix(out, 9, 70)}));
    return out;
  };
  Floats low = piece(0, 5);
  const Floats third = piece(5, 15);
  const Floats fourth = piece(20, 20);
  for (std::size_t i = 0; i < low.size(); ++i) low[i] += third[i] + fourth[i];
  CHECK(same_bits(sharded, one_nan(std::move(low))));
}

TEST_CASE("not finite: sums of columns") {
  const Index tokens = 40;
  const Floats left = spoiled(tokens * 9, 1);
  const Floats sums = on_all_paths([&](const OpContext& ctx) {
    Floats out(9);
    REQUIRE(column_sums(ctx, {.x = matrix(left, tokens, 9), .output = out.data()}));
    return one_nan(std::move(out));
  });
  Floats expected(9);
  for (std::size_t i = 0; i < left.size(); ++i) expected[i % 9] += left[i];
  CHECK(same_bits(sums, one_nan(std::move(expected))));
}

TEST_CASE("not finite: bf16 products are the chain; native ones spoil their own rows only") {
  if (is_on_device("a GPU rounds inside its products")) return;
  struct Form {
    Result<> (*op)(const OpContext&, const Bf16Product&);
    bool left_turned, right_turned;
  };
  for (const Form& form : {Form{product_bf16_nt, false, true}, Form{product_bf16_nn, false, false},
                           Form{product_bf16_tn, true, false}}) {
    for (const Shape& s : kShapes) {
      const Floats x = spoiled(s.m * s.k, 1);
      const Floats w = draw(s.n * s.k, 2);
      std::vector<Bf16> left(x.size());
      std::vector<Bf16> right(w.size());
      REQUIRE(to_bf16(single(), x, left));
      REQUIRE(to_bf16(single(), w, right));
      const auto run = [&](const OpContext& ctx, Bf16Arithmetic arithmetic) {
        const auto oriented = [](const std::vector<Bf16>& data, Index rows, Index columns,
                                 bool turned) {
          return turned ? Bf16Matrix(data.data(), columns, rows)
                        : Bf16Matrix(data.data(), rows, columns);
        };
        Floats out(size_of(s.m * s.n));
        REQUIRE(form.op(ctx, {.left = oriented(left, s.m, s.k, form.left_turned),
                              .right = oriented(right, s.k, s.n, form.right_turned),
                              .output = matrix(out, s.m, s.n),
                              .arithmetic = arithmetic}));
        return one_nan(std::move(out));
      };
      const Floats wide_x = widened(x);
      const Floats wide_w = widened(w);
      const Floats chains =
          Operands{s.m, s.n, s.k, form.left_turned, form.right_turned, &wide_x, &wide_w}.chains();
      CHECK(same_bits(
          on_all_paths([&](const OpContext& ctx) { return run(ctx, Bf16Arithmetic::widened); }),
          chains));
      for (const Bf16Arithmetic arithmetic : {Bf16Arithmetic::native, Bf16Arithmetic::tiles}) {
        if (!has_bf16(arithmetic)) continue;
        const Floats native = run(single(), arithmetic);
        for (Index r = 0; r < s.m; ++r) {
          Floats row;
          for (Index k = 0; k < s.k; ++k) {
            row.push_back(x[size_of(form.left_turned ? k * s.m + r : r * s.k + k)]);
          }
          const std::span out = std::span(native).subspan(size_of(r * s.n), size_of(s.n));
          const bool huge = std::any_of(row.begin(), row.end(), [](float v) { return v > 1e38F; });
          if (is_finite(row) && !huge) CHECK(is_finite(out));
          if (std::any_of(row.begin(), row.end(), [](float v) { return std::isnan(v); })) {
            for (const float value : out) CHECK(std::isnan(value));
          }
        }
      }
    }
  }
}

TEST_CASE("not finite: exact activations by quantised weights are the product by their values") {
  const Floats weight = draw(40 * 256, 1);
  const Floats x = spoiled(9 * 256, 2);
  for (const WeightFormat format : kWeightFormats) {
    INFO(to_string(format));
    const auto packed = quantise_weight(single(), format, matrix(weight, 40, 256));
    REQUIRE(packed);
    Floats values(weight.size());
    std::vector<std::byte> row(row_bytes(format, 256));
    for (std::size_t o = 0; o < 40; ++o) {
      REQUIRE(quantise_row(format, std::span(weight).subspan(o * 256, 256), row));
      REQUIRE(dequantise_row(format, row, std::span(values).subspan(o * 256, 256)));
    }
    for (const Index rows : {1, 3, 9}) {
      const Floats result = on_all_paths([&](const OpContext& ctx) {
        Floats out(size_of(rows * 40));
        REQUIRE(product_quantised(ctx, {.left = matrix(x, 9, 256).row_range(0, rows),
                                        .right = &*packed,
                                        .output = matrix(out, rows, 40),
                                        .activations = Activations::exact}));
        return one_nan(std::move(out));
      });
      CHECK(same_bits(result, Operands{rows, 40, 256, false, true, &x, &values}.chains()));
    }
  }
}

namespace {

// Outputs of a row op over good rows alone and with bad ones among them: row r of `bad` is spoiled.
constexpr Index kRows = 6;
constexpr Index kColumns = 37;

// Row 1 holds a NaN, row 2 an infinity, row 4 numbers whose squares overflow.
Floats with_bad_rows(std::uint64_t stream) {
  Floats x = draw(kRows * kColumns, stream);
  x[size_of(kColumns) + 5] = kNan;
  x[size_of(2 * kColumns) + 6] = kInfinity;
  for (Index c = 0; c < kColumns; ++c) x[size_of(4 * kColumns + c)] *= 3e38F;
  return x;
}

std::span<const float> row_of(const Floats& rows, Index row) {
  return std::span(rows).subspan(size_of(row * kColumns), size_of(kColumns));
}

// Rows 0, 3 and 5 of both are the same, and row 1 is NaN.
void require_bad_rows_alone(const Floats& bad, const Floats& good) {
  for (const Index row : {0, 3, 5}) CHECK(same_bits(row_of(bad, row), row_of(good, row)));
  for (const float value : row_of(bad, 1)) CHECK(std::isnan(value));
}

}  // namespace

TEST_CASE("not finite: norms and their gradients spoil their own rows only") {
  const Floats weight = draw(kColumns, 2);
  const Floats dy = draw(kRows * kColumns, 3);
  const auto rows = [](const auto& data) { return matrix(data, kRows, kColumns); };
  const auto rms = [&](const Floats& x) {
    return on_all_paths([&](const OpContext& ctx) {
      Floats out(2 * x.size());
      Floats inverse(kRows);
      const Matrix y(out.data(), kRows, kColumns);
      REQUIRE(rms_norm_forward(
          ctx, {.x = rows(x), .weight = weight.data(), .y = y, .inverse = inverse.data()}));
      REQUIRE(rms_norm_backward(ctx, {.dy = rows(dy),
                                      .x = rows(x),
                                      .weight = weight.data(),
                                      .inverse = inverse.data(),
                                      .dx = {out.data() + x.size(), kRows, kColumns}}));
      return one_nan(std::move(out));
    });
  };
  const auto layer = [&](const Floats& x) {
    return on_all_paths([&](const OpContext& ctx) {
      Floats out(2 * x.size());
      Floats mean(kRows);
      Floats inverse(kRows);
      REQUIRE(layer_norm_forward(ctx, {.x = rows(x),
                                       .weight = weight.data(),
                                       .y = {out.data(), kRows, kColumns},
                                       .mean = mean.data(),
                                       .inverse = inverse.data()}));
      REQUIRE(layer_norm_backward(ctx, {.dy = rows(dy),
                                        .x = rows(x),
                                        .weight = weight.data(),
                                        .mean = mean.data(),
                                        .inverse = inverse.data(),
                                        .dx = {out.data() + x.size(), kRows, kColumns}}));
      return one_nan(std::move(out));
    });
  };
  for (const auto& norm :
       {std::function<Floats(const Floats&)>(rms), std::function<Floats(const Floats&)>(layer)}) {
    const Floats bad = norm(with_bad_rows(1));
    const Floats good = norm(draw(kRows * kColumns, 1));
    const auto half = static_cast<std::ptrdiff_t>(bad.size() / 2);
    for (const std::ptrdiff_t part : {std::ptrdiff_t{0}, half}) {
      require_bad_rows_alone({bad.begin() + part, bad.begin() + part + half},
                             {good.begin() + part, good.begin() + part + half});
    }
  }
  // Where the sum of squares overflows, x / rms(x) is what remains of it: zero, not a NaN.
  const Floats huge = rms(with_bad_rows(1));
  for (const float value : row_of(huge, 4)) CHECK(value == 0.0F);
}

TEST_CASE("not finite: a row's loss and gradient are its own; large logits are no trouble") {
  const Floats weight = draw(50 * kColumns, 2);
  const std::vector<std::int32_t> targets = {0, 1, 2, 3, 4, 49};
  using Memory = LinearCrossEntropy::Memory;
  const auto run = [&](const Floats& hidden, Memory memory) {
    return on_all_paths([&](const OpContext& ctx) {
      Floats out(kRows + hidden.size());
      REQUIRE(linear_cross_entropy(ctx, {.hidden = matrix(hidden, kRows, kColumns),
                                         .weight = matrix(weight, 50, kColumns),
                                         .targets = targets,
                                         .losses = out.data(),
                                         .dhidden = {out.data() + kRows, kRows, kColumns},
                                         .memory = memory}));
      return one_nan(std::move(out));
    });
  };
  Floats hidden = draw(kRows * kColumns, 1);
  const Floats good = run(hidden, Memory::rows);
  hidden[size_of(kColumns) + 5] = kNan;
  for (Index c = 0; c < kColumns; ++c) hidden[size_of(4 * kColumns + c)] *= 1e30F;
  for (const Memory memory : {Memory::rows, Memory::blocks}) {
    const Floats bad = run(hidden, memory);
    CHECK(std::isnan(bad[1]));
    CHECK(std::isfinite(bad[4]));
    const Floats gradient(bad.begin() + kRows, bad.end());
    require_bad_rows_alone(gradient, {good.begin() + kRows, good.end()});
    CHECK(is_finite(row_of(gradient, 4)));
    for (const std::size_t row : {0U, 3U, 5U}) CHECK(bad[row] == good[row]);
  }
}

TEST_CASE("not finite: rotary spoils pairs, nothing else") {
  const std::vector<float> frequencies = rotary_frequencies({.width = 16});
  const std::vector<std::int32_t> positions = {3, 70};
  Floats cosine(2 * 8);
  Floats sine(2 * 8);
  REQUIRE(rotary_angles(single(), {.positions = positions,
                                   .frequencies = frequencies,
                                   .cosine = matrix(cosine, 2, 8),
                                   .sine = matrix(sine, 2, 8)}));
  const auto run = [&](const Floats& x) {
    return on_all_paths([&](const OpContext& ctx) {
      Floats out = x;
      REQUIRE(rotary_apply(ctx, {.x = matrix(out, 2, 32),
                                 .head_width = 16,
                                 .cosine = matrix(cosine, 2, 8),
                                 .sine = matrix(sine, 2, 8)}));
      return one_nan(std::move(out));
    });
  };
  const Floats good = run(draw(64, 1));
  Floats x = draw(64, 1);
  x[1] = kNan;
  x[34] = kInfinity;
  x[16] = 3e38F;
  const Floats bad = run(x);
  for (std::size_t i = 0; i < 64; ++i) {
    if (i == 1 || i == 9) {
      CHECK(std::isnan(bad[i]));
    } else if (i == 34 || i == 42) {
      CHECK_FALSE(std::isfinite(bad[i]));
    } else if (i != 16 && i != 24) {
      CHECK(bad[i] == good[i]);
    }
  }
}

TEST_CASE("not finite: optimizers by element spoil that element, those by matrix all of it") {
  constexpr Index kSize = 3000;
  constexpr std::size_t kBad = 77;
  const Floats start = draw(kSize, 1);
  const auto blocks = size_of(state8_blocks(kSize));
  struct Op {
    const char* name;
    bool by_element;
    std::function<Result<>(const OpContext&, Floats& weight, const Floats& gradient)> update;
  };
  const auto zeros = [] { return Floats(size_of(kSize)); };
  const Op ops[] = {
      {"sgd", true,
       [&](const OpContext& ctx, Floats& w, const Floats& g) {
         Floats velocity = zeros();
         return sgd_update(ctx, {{}, w, g, velocity});
       }},
      {"lion", true,
       [&](const OpContext& ctx, Floats& w, const Floats& g) {
         Floats momentum = zeros();
         return lion_update(ctx, {{}, w, g, momentum});
       }},
      {"adamw", true,
       [&](const OpContext& ctx, Floats& w, const Floats& g) {
         Floats first = zeros();
         Floats second = zeros();
         return adamw_update(ctx, {{}, w, g, first, second});
       }},
      {"schedule-free", true,
       [&](const OpContext& ctx, Floats& w, const Floats& g) {
         Floats base = w;
         Floats second = zeros();
         return schedule_free_update(ctx, {{}, w, g, base, second});
       }},
      {"adafactor", false,
       [&](const OpContext& ctx, Floats& w, const Floats& g) {
         Floats row(60);
         Floats column(50);
         return adafactor_update(ctx, {{}, matrix(w, 60, 50), matrix(g, 60, 50), row, column});
       }},
      {"muon", false,
       [&](const OpContext& ctx, Floats& w, const Floats& g) {
         Floats velocity = zeros();
         return muon_update(ctx,
                            {{}, matrix(w, 60, 50), matrix(g, 60, 50), matrix(velocity, 60, 50)});
       }},
  };
  for (const Op& op : ops) {
    INFO(op.name);
    const auto run = [&](float bad) {
      return on_all_paths([&](const OpContext& ctx) {
        Floats weight = start;
        Floats gradient = draw(kSize, 2);
        gradient[kBad] = bad;
        REQUIRE(op.update(ctx, weight, gradient));
        return one_nan(std::move(weight));
      });
    };
    const Floats good = run(0.5F);
    for (const float value : {kNan, kInfinity, 3e38F}) {
      Floats bad = run(value);
      if (op.by_element) {
        if (std::isnan(value)) CHECK(std::isnan(bad[kBad]));
        bad[kBad] = good[kBad];
        CHECK(same_bits(bad, good));
      } else {
        // Squares overflow, or what is added to momentum: no root or norm of the matrix is left.
        CHECK(std::none_of(bad.begin(), bad.end(), [](float w) { return std::isfinite(w); }));
      }
    }
    if (op.name == std::string_view("muon")) {
      // The norm is a sum of doubles: of what it holds one direction is left, whose step is
      // bounded.
      const Floats huge = run(1e38F);
      CHECK(is_finite(huge));
      CHECK(std::abs(huge[kBad] - start[kBad]) < 1.3F * 0.02F * std::sqrt(60.0F / 50.0F));
    }
  }
  // 8-bit states have a scale for a block: the other blocks are as they were.
  const auto eight = [&](float bad) {
    return on_all_paths([&](const OpContext& ctx) {
      Floats weight = start;
      Floats gradient = draw(kSize, 2);
      gradient[kBad] = bad;
      std::vector<std::int8_t> first(size_of(kSize));
      std::vector<std::uint8_t> second(size_of(kSize));
      Floats first_scales(blocks);
      Floats second_scales(blocks);
      REQUIRE(
          adamw8_update(ctx, {{}, weight, gradient, first, second, first_scales, second_scales}));
      return one_nan(std::move(weight));
    });
  };
  const Floats good = eight(0.5F);
  for (const float value : {kNan, kInfinity, 3e38F}) {
    const Floats bad = eight(value);
    CHECK(same_bits(std::span(bad).subspan(kState8Block), std::span(good).subspan(kState8Block)));
  }
}

}  // namespace tutti::kernels::parity
