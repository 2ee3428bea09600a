// The loss and the plain log-softmax.
#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/ops/cross_entropy.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

struct Case {
  Index rows, width, vocabulary;
};
const Case kCases[] = {{1, 8, 3}, {37, 24, 101}, {530, 16, 70}};

struct Inputs {
  explicit Inputs(const Case& c_)
      : c(c_), hidden(draw(c.rows * c.width, 1)), weight(draw(c.vocabulary * c.width, 2)) {
    for (Index r = 0; r < c.rows; ++r) {
      targets.push_back(r % 7 == 3 ? -1 : static_cast<std::int32_t>(r * 31 % c.vocabulary));
    }
  }
  ConstMatrix hidden_rows() const { return matrix(hidden, c.rows, c.width); }
  ConstMatrix weight_rows() const { return matrix(weight, c.vocabulary, c.width); }

  Case c;
  Floats hidden, weight;
  std::vector<std::int32_t> targets;
};

struct Outcome {
  Floats losses, dhidden, dweight;
  double sum = 0.0;
  std::int64_t count = 0;
};

void run(const OpContext& ctx, const Inputs& in, Index first, Index rows, Outcome& out) {
  const Case& c = in.c;
  REQUIRE(linear_cross_entropy(
      ctx,
      {.hidden = in.hidden_rows().row_range(first, rows),
       .weight = in.weight_rows(),
       .targets = std::span(in.targets)
                      .subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows)),
       .losses = out.losses.data() + first,
       .loss_sum = &out.sum,
       .target_count = &out.count,
       .dhidden = matrix(out.dhidden, c.rows, c.width).row_range(first, rows),
       .dweight = matrix(out.dweight, c.vocabulary, c.width)}));
}

Outcome fresh(const Inputs& in) {
  return {Floats(in.targets.size()), Floats(in.hidden.size()), Floats(in.weight.size())};
}

}  // namespace

TEST_CASE("cross entropy: losses, sums and gradients, the same bits on all paths and in pieces") {
  Golden golden("linear cross entropy");
  for (const Case& c : kCases) {
    const Inputs in(c);
    double sum = 0.0;
    std::int64_t count = 0;
    const Floats all = on_all_paths(golden, [&](const OpContext& ctx) {
      Outcome out = fresh(in);
      run(ctx, in, 0, c.rows, out);
      Outcome pieces = fresh(in);
      run(ctx, in, 0, c.rows / 3, pieces);
      run(ctx, in, c.rows / 3, c.rows - c.rows / 3, pieces);
      // Rows of a matrix may lie otherwise than all of them, and a library sums them otherwise
      // then.
      REQUIRE(same_sums(pieces.losses, out.losses));
      REQUIRE(same_sums(pieces.dhidden, out.dhidden));
      REQUIRE(same_sums(pieces.dweight, out.dweight));
      REQUIRE((pieces.sum == out.sum || (!continues_chains() && pieces.sum == Approx(out.sum))));
      REQUIRE(pieces.count == out.count);
      sum = out.sum;
      count = out.count;
      out.losses.insert(out.losses.end(), out.dhidden.begin(), out.dhidden.end());
      out.losses.insert(out.losses.end(), out.dweight.begin(), out.dweight.end());
      return out.losses;
    });
    const Table hidden(in.hidden_rows());
    const Table weight(in.weight_rows());
    const auto loss = [&](const Table& h, const Table& w) {
      double total = 0.0;
      for (const double l : reference::cross_entropy(h, w, in.targets)) total += l;
      return total;
    };
    Table expected(1, c.rows);
    expected.data = reference::cross_entropy(hidden, weight, in.targets);
    const auto rows = static_cast<std::size_t>(c.rows);
    const double off = mean_tolerance(c.width + c.vocabulary);
    REQUIRE(largest_difference(std::span(all).first(rows), expected) <=
            tolerance(c.width + c.vocabulary, largest_magnitude(expected) + 4.0));
    REQUIRE(sum == Approx(loss(hidden, weight)).epsilon(off));
    REQUIRE(count == c.rows - (c.rows + 3) / 7);
    REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(t, weight); },
                            .at = hidden,
                            .gradient = std::span(all).subspan(rows, in.hidden.size())}) < off);
    REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(hidden, t); },
                            .at = weight,
                            .gradient = std::span(all).last(in.weight.size())}) < off);
  }
  golden.check();
}

TEST_CASE("cross entropy: rows from the vocabulary on, all zero, change no bit and stay zero") {
  for (const Case& c : kCases) {
    for (const Index padded : {c.vocabulary, c.vocabulary + 1, c.vocabulary + 61}) {
      INFO(c.vocabulary << " rows as " << padded);
      Inputs in(c);
      in.weight.resize(static_cast<std::size_t>(padded * c.width));  // zeros behind the rows
      const auto loss = [&](const OpContext& ctx, Index rows_there) {
        Outcome out = fresh(in);
        REQUIRE(linear_cross_entropy(ctx, {.hidden = in.hidden_rows(),
                                           .weight = in.weight_rows(),
                                           .targets = in.targets,
                                           .losses = out.losses.data(),
                                           .dhidden = matrix(out.dhidden, c.rows, c.width),
                                           .dweight = matrix(out.dweight, c.vocabulary, c.width),
                                           .smoothing = 0.1F,
                                           .padded = rows_there}));
        const auto rest =
            std::span(out.dweight).subspan(static_cast<std::size_t>(c.vocabulary * c.width));
        CHECK(std::all_of(rest.begin(), rest.end(), [](float x) { return x == 0.0F; }));
        out.losses.insert(out.losses.end(), out.dhidden.begin(), out.dhidden.end());
        out.losses.insert(out.losses.end(), out.dweight.begin(), out.dweight.end());
        return out.losses;
      };
      const Floats plain = on_all_paths([&](const OpContext& ctx) { return loss(ctx, 0); });
      const Floats with = on_all_paths([&](const OpContext& ctx) { return loss(ctx, padded); });
      CHECK(same_sums(with, plain));  // a library may sum otherwise for another number of rows
    }
  }
  const Inputs in({5, 8, 3});
  Floats losses(5);
  CHECK_FALSE(linear_cross_entropy(single(), {.hidden = in.hidden_rows(),
                                              .weight = in.weight_rows(),
                                              .targets = in.targets,
                                              .losses = losses.data(),
                                              .padded = 2}));
}

TEST_CASE("cross entropy: the gradient check catches a mean that was taken for a sum") {
  const Inputs in({37, 24, 101});
  Outcome out = fresh(in);
  run(single(), in, 0, 37, out);
  for (float& value : out.dhidden) value /= 32.0F;
  const auto loss = [&](const Table& h) {
    double total = 0.0;
    for (const double l : reference::cross_entropy(h, Table(in.weight_rows()), in.targets)) {
      total += l;
    }
    return total;
  };
  REQUIRE(gradient_error({.loss = loss, .at = Table(in.hidden_rows()), .gradient = out.dhidden}) >
          1e3 * mean_tolerance(24 + 101));
}

TEST_CASE(
    "cross entropy: a target outside of the vocabulary is refused before anything is written") {
  Inputs in({5, 8, 3});
  in.targets[4] = 3;
  Outcome out = fresh(in);
  const auto refused = linear_cross_entropy(single(), {.hidden = in.hidden_rows(),
                                                       .weight = in.weight_rows(),
                                                       .targets = in.targets,
                                                       .losses = out.losses.data()});
  REQUIRE_FALSE(refused);
  REQUIRE(refused.error().code == ErrorCode::invalid_argument);
  REQUIRE(out.losses == Floats(5));
}

namespace {

Floats log_softmax_of(Golden& golden, const Floats& x, Index rows, Index columns) {
  return on_all_paths(golden, [&](const OpContext& ctx) {
    Floats out(x.size());
    REQUIRE(log_softmax(ctx, matrix(x, rows, columns), matrix(out, rows, columns)));
    Floats in_place = x;
    REQUIRE(log_softmax(ctx, matrix(in_place, rows, columns), matrix(in_place, rows, columns)));
    REQUIRE(same_bits(in_place, out));
    return out;
  });
}

Floats logits(Index count, std::uint64_t stream) {
  Floats x = draw(count, stream);
  for (float& value : x) value *= 30.0F;
  return x;
}

// The sum's relative error is its logarithm's absolute one; the result is rounded once more.
double log_softmax_tolerance(Index columns, const Table& expected) {
  return tolerance(columns, 1.0) + tolerance(1, largest_magnitude(expected));
}

}  // namespace

TEST_CASE("log softmax: x less the logarithm of the sum of exponentials, equal bits on all paths") {
  Golden golden("log softmax");
  Golden more("log softmax, other shapes");
  for (const auto& [rows, columns] :
       {std::pair<Index, Index>{6, 77}, {1, 1}, {0, 5}, {40, 3}, {3, 4099}, {2, 9001}}) {
    INFO(rows << " x " << columns);
    const Floats x = logits(rows * columns, 1);
    const Floats y = log_softmax_of(columns == 77 ? golden : more, x, rows, columns);
    const Table expected = reference::log_softmax(Table(matrix(x, rows, columns)));
    REQUIRE(largest_difference(y, expected) <= log_softmax_tolerance(columns, expected));
  }
  golden.check();
  more.check();
}

TEST_CASE("log softmax: the comparison catches a logarithm to the base of two") {
  const Floats x = logits(77, 1);
  Floats y(77);
  REQUIRE(log_softmax(single(), matrix(x, 1, 77), matrix(y, 1, 77)));
  const Table expected = reference::log_softmax(Table(matrix(x, 1, 77)));
  const double right = largest_difference(y, expected);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = x[i] + (y[i] - x[i]) / 0.693147F;
  REQUIRE(right <= log_softmax_tolerance(77, expected));
  REQUIRE(largest_difference(y, expected) > log_softmax_tolerance(77, expected));
}

TEST_CASE("log softmax: a bad number spoils its own row, what is ruled out stays ruled out") {
  // Longer than a block of the vocabulary, so that one block can be ruled out as a whole.
  constexpr Index kColumns = kVocabularyBlock + 5;
  constexpr auto kWidth = static_cast<std::size_t>(kColumns);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Floats good = logits(9 * kColumns, 1);
  Floats bad = good;
  const auto row = [](auto& values, std::size_t r) {
    return std::span(values).subspan(r * kWidth, kWidth);
  };
  row(bad, 1)[7] = std::numeric_limits<float>::quiet_NaN();
  row(bad, 2)[kWidth - 1] = kInfinity;
  std::fill(row(bad, 3).begin(), row(bad, 3).end(), -kInfinity);
  for (const std::size_t c : {0U, 7U, 4096U}) row(bad, 4)[c] = -kInfinity;
  std::fill_n(row(bad, 5).begin(), kVocabularyBlock, -kInfinity);
  for (float& value : row(bad, 6)) value = value * 1e37F;  // up to 3e38: no overflow between them
  row(bad, 7)[0] = 3e38F;
  const auto run = [&](const Floats& x) {
    Golden none("");
    return log_softmax_of(none, x, 9, kColumns);
  };
  const Floats alone = run(good);
  const Floats y = run(bad);
  for (const std::size_t r : {0U, 8U}) CHECK(same_bits(row(y, r), row(alone, r)));
  for (const std::size_t r : {1U, 2U, 3U}) {
    INFO("row " << r);
    CHECK(std::none_of(row(y, r).begin(), row(y, r).end(),
                       [](float value) { return std::isfinite(value); }));
  }
  for (const std::size_t r : {4U, 5U, 6U, 7U}) {
    INFO("row " << r);
    const Table expected = reference::log_softmax(Table({row(bad, r).data(), 1, kColumns}));
    for (std::size_t c = 0; c < kWidth; ++c) {
      const auto value = static_cast<double>(row(y, r)[c]);
      if (std::abs(expected.data[c]) > std::numeric_limits<float>::max()) {
        REQUIRE(value == -static_cast<double>(kInfinity));
      } else {
        REQUIRE(std::abs(value - expected.data[c]) <=
                tolerance(kColumns, 1.0) + tolerance(1, std::abs(expected.data[c])));
      }
    }
  }
}

}  // namespace tutti::kernels::parity
