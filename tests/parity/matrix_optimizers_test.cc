// The optimizers whose unit is the matrix: steps against double precision or by their shape, the
// same bits on all paths.
#include "kernels/ops/optimizers/adafactor.h"
#include "kernels/ops/optimizers/muon.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

constexpr int kSteps = 4;

Floats gradient_of(int step, Index size) {
  return draw(size, 100 + static_cast<std::uint64_t>(step));
}

struct Shape {
  Index rows, columns;
};

const AdafactorSettings kSettings{
    .rate = 0.05, .beta2 = 0.9, .clip = 0.7, .decay = 0.1, .factor = 0.5F};

// The weights after kSteps, which their hashes are required to be of, and the states behind them.
Floats adafactor_steps(const OpContext& ctx, const Shape& s, const AdafactorSettings& settings) {
  Floats weight = draw(s.rows * s.columns, 1);
  Floats row(s.rows == 1 ? 0U : static_cast<std::size_t>(s.rows));
  Floats column(static_cast<std::size_t>(s.columns));
  std::vector<Hash128> hashes(static_cast<std::size_t>(grid_blocks(s.rows * s.columns)));
  for (int step = 1; step <= kSteps; ++step) {
    const Floats g = gradient_of(step, s.rows * s.columns);
    REQUIRE(adafactor_update(ctx, {settings, matrix(weight, s.rows, s.columns),
                                   matrix(g, s.rows, s.columns), row, column, hashes}));
  }
  std::vector<Hash128> again(hashes.size());
  REQUIRE(hash_blocks(ctx, weight, again));
  REQUIRE(again == hashes);
  weight.insert(weight.end(), row.begin(), row.end());
  weight.insert(weight.end(), column.begin(), column.end());
  return weight;
}

std::span<const float> weights_of(const Floats& all, const Shape& s) {
  return std::span(all).first(static_cast<std::size_t>(s.rows * s.columns));
}
std::span<const float> states_of(const Floats& all, const Shape& s) {
  return std::span(all).subspan(weights_of(all, s).size());
}

double root_mean_square(const Table& x) {
  double squares = 0.0;
  for (const double value : x.data) squares += value * value;
  return std::sqrt(squares / static_cast<double>(x.data.size()));
}

// g becomes u; the states move.
void exact_update(Table& g, std::vector<double>& row, std::vector<double>& column, double beta2) {
  const auto rows = static_cast<Index>(row.size());
  const auto columns = static_cast<Index>(column.size());
  double rows_mean = 0.0;
  for (double& state : row) state *= beta2;
  for (double& state : column) state *= beta2;
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < columns; ++c) {
      const double square = (1.0 - beta2) * g.at(r, c) * g.at(r, c);
      row[static_cast<std::size_t>(r)] += square / static_cast<double>(columns);
      column[static_cast<std::size_t>(c)] += square / static_cast<double>(rows);
    }
    rows_mean += row[static_cast<std::size_t>(r)] / static_cast<double>(rows);
  }
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < columns; ++c) {
      const double share = rows == 1 ? 1.0 : row[static_cast<std::size_t>(r)] / rows_mean;
      g.at(r, c) /= std::sqrt(share * column[static_cast<std::size_t>(c)]);
    }
  }
}

Table adafactor_exact(const Shape& s, const AdafactorSettings& settings) {
  Table w(matrix(draw(s.rows * s.columns, 1), s.rows, s.columns));
  std::vector<double> row(static_cast<std::size_t>(s.rows));
  std::vector<double> column(static_cast<std::size_t>(s.columns));
  for (int step = 1; step <= kSteps; ++step) {
    Table g(matrix(gradient_of(step, s.rows * s.columns), s.rows, s.columns));
    for (double& value : g.data) value *= static_cast<double>(settings.factor);
    exact_update(g, row, column, settings.beta2);
    double rate = settings.rate;
    if (settings.size_min > 0.0) rate *= std::max(settings.size_min, root_mean_square(w));
    const double along = rate / std::max(1.0, root_mean_square(g) / settings.clip);
    for (std::size_t i = 0; i < w.data.size(); ++i) {
      w.data[i] = w.data[i] * (1.0 - rate * settings.decay) - along * g.data[i];
    }
  }
  return w;
}

void require_exact(const Shape& s, const AdafactorSettings& settings, const Floats& all) {
  REQUIRE(largest_difference(weights_of(all, s), adafactor_exact(s, settings)) <=
          tolerance(4 * (s.rows + s.columns), 2.0));
}

// x made nearly orthogonal as muon.h says, in double precision.
Table exact_orthogonal(Table x, int iterations) {
  for (int i = 0; i < iterations; ++i) {
    const bool tall = x.rows > x.columns;
    const Index few = std::min(x.rows, x.columns);
    const auto at = [&](Index a, Index b) { return tall ? x.at(b, a) : x.at(a, b); };
    const Index many = std::max(x.rows, x.columns);
    Table gram(few, few);
    for (Index a = 0; a < few; ++a) {
      for (Index b = 0; b < few; ++b) {
        for (Index k = 0; k < many; ++k) gram.at(a, b) += at(a, k) * at(b, k);
      }
    }
    Table polynomial(few, few);
    for (Index a = 0; a < few; ++a) {
      for (Index b = 0; b < few; ++b) {
        double square = 0.0;
        for (Index k = 0; k < few; ++k) square += gram.at(a, k) * gram.at(k, b);
        polynomial.at(a, b) = -4.775 * gram.at(a, b) + 2.0315 * square;
      }
    }
    Table next(x.rows, x.columns);
    for (Index r = 0; r < x.rows; ++r) {
      for (Index c = 0; c < x.columns; ++c) {
        double sum = 3.4445 * x.at(r, c);
        for (Index k = 0; k < few; ++k) {
          sum += tall ? x.at(r, k) * polynomial.at(k, c) : polynomial.at(r, k) * x.at(k, c);
        }
        next.at(r, c) = sum;
      }
    }
    x = next;
  }
  return x;
}

const MuonSettings kMuon{.rate = 0.5, .momentum = 0.9, .decay = 0.1, .factor = 0.5F};

Floats muon_steps(const OpContext& ctx, const Shape& s, const MuonSettings& settings) {
  Floats weight = draw(s.rows * s.columns, 1);
  Floats velocity(weight.size());
  std::vector<Hash128> hashes(static_cast<std::size_t>(grid_blocks(s.rows * s.columns)));
  for (int step = 1; step <= kSteps; ++step) {
    const Floats g = gradient_of(step, s.rows * s.columns);
    REQUIRE(
        muon_update(ctx, {settings, matrix(weight, s.rows, s.columns), matrix(g, s.rows, s.columns),
                          matrix(velocity, s.rows, s.columns), hashes}));
  }
  std::vector<Hash128> again(hashes.size());
  REQUIRE(hash_blocks(ctx, weight, again));
  REQUIRE(again == hashes);
  weight.insert(weight.end(), velocity.begin(), velocity.end());
  return weight;
}

Table muon_exact(const Shape& s, const MuonSettings& settings) {
  Table w(matrix(draw(s.rows * s.columns, 1), s.rows, s.columns));
  Table velocity(s.rows, s.columns);
  const double aspect = static_cast<double>(s.rows) / static_cast<double>(s.columns);
  for (int step = 1; step <= kSteps; ++step) {
    Table u(matrix(gradient_of(step, s.rows * s.columns), s.rows, s.columns));
    double squares = 0.0;
    for (std::size_t i = 0; i < u.data.size(); ++i) {
      const double g = u.data[i] * static_cast<double>(settings.factor);
      velocity.data[i] = settings.momentum * velocity.data[i] + g;
      u.data[i] = g + settings.momentum * velocity.data[i];
      squares += u.data[i] * u.data[i];
    }
    for (double& value : u.data) value /= std::sqrt(squares) + 1e-7;
    const Table x = exact_orthogonal(u, settings.iterations);
    for (std::size_t i = 0; i < w.data.size(); ++i) {
      w.data[i] = w.data[i] * (1.0 - settings.rate * settings.decay) -
                  settings.rate * std::sqrt(std::max(1.0, aspect)) * x.data[i];
    }
  }
  return w;
}

// The squares of what so many iterations of the polynomial make of singular values from a
// five-hundredth of the norm up to all of it.
struct Range {
  double low = 1e300;
  double high = 0.0;
};
Range squares_of_polynomial(int iterations) {
  Range range;
  for (int i = 2; i <= 1000; ++i) {
    double s = i / 1000.0;
    for (int n = 0; n < iterations; ++n) {
      const double square = s * s;
      s *= 3.4445 + square * (-4.775 + square * 2.0315);
    }
    range = {std::min(range.low, s * s), std::max(range.high, s * s)};
  }
  return range;
}

// An iteration has three products, and multiplies what x was off by at most 3.9: the largest slope
// of its polynomial where singular values are, [0, 1.2]. In an element the error of x as a whole is
// taken, whose rows have a length of 1.2 at most.
double muon_tolerance(const Shape& s, const MuonSettings& settings) {
  const Index terms = std::max(s.rows, s.columns) + 2 * std::min(s.rows, s.columns);
  const double aspect = static_cast<double>(s.rows) / static_cast<double>(s.columns);
  double growth = 0.0;
  for (int i = 0; i < settings.iterations; ++i) growth = 3.9 * growth + 1.0;
  return kSteps * settings.rate * std::sqrt(std::max(1.0, aspect)) * tolerance(terms, 1.2 * growth);
}

}  // namespace

TEST_CASE("adafactor: a matrix and a vector agree with double precision") {
  Golden golden("adafactor");
  Golden states("adafactor, states");
  for (const Shape& s : {Shape{1, 1}, Shape{1, 70}, Shape{13, 37}, Shape{70, 33}}) {
    const Floats all =
        on_all_paths([&](const OpContext& ctx) { return adafactor_steps(ctx, s, kSettings); });
    golden.add(weights_of(all, s));
    states.add(states_of(all, s));
    require_exact(s, kSettings, all);
  }
  golden.check();
  states.check();
}

TEST_CASE("adafactor: matrices of several tiles and grid blocks, and a step relative to the size") {
  AdafactorSettings relative = kSettings;
  for (const double size_min : {0.0, 1e-3, 4.0}) {
    relative.size_min = size_min;
    for (const Shape& s : {Shape{1, 1030}, Shape{300, 2}, Shape{200, 515}}) {
      INFO(s.rows << " x " << s.columns << ", " << size_min);
      require_exact(s, relative, on_all_paths([&](const OpContext& ctx) {
                      return adafactor_steps(ctx, s, relative);
                    }));
    }
  }
}

TEST_CASE("adafactor: a gradient in a band of a wider matrix gives the same bits") {
  const Shape s{70, 130};
  const Floats wide = draw(s.rows * (s.columns + 7), 3);
  Floats narrow;
  for (Index r = 0; r < s.rows; ++r) {
    const auto row = wide.begin() + r * (s.columns + 7) + 5;
    narrow.insert(narrow.end(), row, row + s.columns);
  }
  const auto run = [&](ConstMatrix gradient) {
    Floats weight = draw(s.rows * s.columns, 1);
    Floats row(static_cast<std::size_t>(s.rows));
    Floats column(static_cast<std::size_t>(s.columns));
    REQUIRE(adafactor_update(
        single(), {kSettings, matrix(weight, s.rows, s.columns), gradient, row, column}));
    return weight;
  };
  REQUIRE(same_bits(run(matrix(narrow, s.rows, s.columns)),
                    run(matrix(wide, s.rows, s.columns + 7).column_range(5, s.columns))));
}

TEST_CASE("adafactor: the comparison catches a step that is not clipped") {
  const Shape s{13, 37};
  AdafactorSettings wrong = kSettings;
  wrong.clip = 100.0;
  const Floats all = adafactor_steps(single(), s, wrong);
  REQUIRE(largest_difference(weights_of(all, s), adafactor_exact(s, kSettings)) >
          100.0 * tolerance(4 * (s.rows + s.columns), 2.0));
}

TEST_CASE("muon: its steps are nearly orthogonal, the same bits on all paths, either way up") {
  Golden golden("muon");
  const Range range = squares_of_polynomial(5);
  for (const Shape& s : {Shape{16, 40}, Shape{40, 16}, Shape{5, 5}}) {
    const Floats start = draw(s.rows * s.columns, 1);
    const Floats gradient = draw(s.rows * s.columns, 2);
    const Floats weights = on_all_paths(golden, [&](const OpContext& ctx) {
      Floats weight = start;
      Floats velocity(start.size());
      REQUIRE(muon_update(ctx, {{.rate = 1.0},
                                matrix(weight, s.rows, s.columns),
                                matrix(gradient, s.rows, s.columns),
                                matrix(velocity, s.rows, s.columns)}));
      return weight;
    });
    // With a step of 1, what was subtracted is X. Squares of singular values are the eigenvalues of
    // its rows' (or columns') products with each other, which lie between them: those of a row with
    // itself between the smallest and the largest, those of two at most half of what these differ.
    const double scale =
        std::sqrt(std::max(1.0, static_cast<double>(s.rows) / static_cast<double>(s.columns)));
    const Index few = std::min(s.rows, s.columns);
    const double off = 2.0 * muon_tolerance(s, {.rate = 1.0});  // of products of lengths up to 1.2
    const auto x = [&](Index i, Index j) {                      // i of the shorter side
      const Index at = s.rows <= s.columns ? i * s.columns + j : j * s.columns + i;
      return (static_cast<double>(start[static_cast<std::size_t>(at)]) -
              static_cast<double>(weights[static_cast<std::size_t>(at)])) /
             scale;
    };
    for (Index a = 0; a < few; ++a) {
      for (Index b = 0; b <= a; ++b) {
        double sum = 0.0;
        for (Index j = 0; j < std::max(s.rows, s.columns); ++j) sum += x(a, j) * x(b, j);
        const double middle = a == b ? (range.low + range.high) / 2.0 : 0.0;
        REQUIRE(std::abs(sum - middle) <= (range.high - range.low) / 2.0 + off);
      }
    }
  }
  golden.check();
}

TEST_CASE("muon: steps agree with double precision, and hash what they leave") {
  Golden states("muon, states");
  for (const Shape& s : {Shape{1, 9}, Shape{33, 70}, Shape{70, 33}, Shape{1100, 60}}) {
    INFO(s.rows << " x " << s.columns);
    const Floats all =
        on_all_paths([&](const OpContext& ctx) { return muon_steps(ctx, s, kMuon); });
    states.add(states_of(all, s));
    REQUIRE(largest_difference(weights_of(all, s), muon_exact(s, kMuon)) <=
            muon_tolerance(s, kMuon));
  }
  states.check();
}

TEST_CASE("muon: the comparison catches another momentum") {
  const Shape s{33, 70};
  MuonSettings wrong = kMuon;
  wrong.momentum = 0.7;
  const Floats all = muon_steps(single(), s, wrong);
  REQUIRE(largest_difference(weights_of(all, s), muon_exact(s, kMuon)) >
          2.0 * muon_tolerance(s, kMuon));
}

TEST_CASE("matrix optimizers: shapes that differ are refused and nothing is written") {
  Floats five(5, 1.0F);
  Floats six(6, 1.0F);
  REQUIRE_FALSE(adafactor_update(single(), {{}, matrix(six, 2, 3), matrix(six, 2, 3), {}, five}));
  REQUIRE_FALSE(
      muon_update(single(), {{}, matrix(six, 2, 3), matrix(six, 3, 2), matrix(six, 2, 3)}));
  REQUIRE(five == Floats(5, 1.0F));
  REQUIRE(six == Floats(6, 1.0F));
}

}  // namespace tutti::kernels::parity
