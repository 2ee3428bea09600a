// The loss and the plain log-softmax.
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
      REQUIRE(same_bits(pieces.losses, out.losses));
      REQUIRE(same_bits(pieces.dhidden, out.dhidden));
      REQUIRE(same_sums(pieces.dweight, out.dweight));
      REQUIRE(pieces.sum == out.sum);
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
    REQUIRE(largest_difference(std::span(all).first(rows), expected) <=
            tolerance(c.width + c.vocabulary, largest_magnitude(expected) + 4.0));
    REQUIRE(sum == Approx(loss(hidden, weight)).epsilon(1e-6));
    REQUIRE(count == c.rows - (c.rows + 3) / 7);
    REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(t, weight); },
                            .at = hidden,
                            .gradient = std::span(all).subspan(rows, in.hidden.size())}) < 1e-5);
    REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(hidden, t); },
                            .at = weight,
                            .gradient = std::span(all).last(in.weight.size())}) < 1e-5);
  }
  golden.check();
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
          1e-2);
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

TEST_CASE("log softmax: exponentials sum to one, the same bits on all paths") {
  Golden golden("log softmax");
  Floats x = draw(6 * 77, 1);
  for (float& value : x) value *= 30.0F;
  const Floats y = on_all_paths(golden, [&](const OpContext& ctx) {
    Floats out(x.size());
    REQUIRE(log_softmax(ctx, matrix(x, 6, 77), matrix(out, 6, 77)));
    return out;
  });
  for (std::size_t r = 0; r < 6; ++r) {
    double sum = 0.0;
    for (std::size_t c = 0; c < 77; ++c) sum += std::exp(static_cast<double>(y[r * 77 + c]));
    REQUIRE(sum == Approx(1.0).epsilon(1e-5));
  }
  golden.check();
}

}  // namespace tutti::kernels::parity
