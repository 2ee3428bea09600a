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

}  // namespace

TEST_CASE("adafactor: a matrix and a vector agree with double precision") {
  Golden golden("adafactor");
  struct Shape {
    Index rows, columns;
  };
  for (const Shape& s : {Shape{1, 1}, Shape{1, 70}, Shape{13, 37}, Shape{70, 33}}) {
    const Floats start = draw(s.rows * s.columns, 1);
    const bool vector = s.rows == 1;
    const AdafactorSettings settings{
        .rate = 0.05, .beta2 = 0.9, .clip = 0.7, .decay = 0.1, .factor = 0.5F};
    const Floats weights = on_all_paths(golden, [&](const OpContext& ctx) {
      Floats weight = start;
      Floats row(vector ? 0U : static_cast<std::size_t>(s.rows));
      Floats column(static_cast<std::size_t>(s.columns));
      for (int step = 1; step <= kSteps; ++step) {
        const Floats g = gradient_of(step, s.rows * s.columns);
        REQUIRE(adafactor_update(ctx, {settings, matrix(weight, s.rows, s.columns),
                                       matrix(g, s.rows, s.columns), row, column}));
      }
      return weight;
    });
    Table w(matrix(start, s.rows, s.columns));
    std::vector<double> row(static_cast<std::size_t>(s.rows));
    std::vector<double> column(static_cast<std::size_t>(s.columns));
    for (int step = 1; step <= kSteps; ++step) {
      Table g(matrix(gradient_of(step, s.rows * s.columns), s.rows, s.columns));
      for (double& value : g.data) value *= 0.5;
      double rows_mean = 0.0;
      for (Index r = 0; r < s.rows; ++r) {
        double mean = 0.0;
        for (Index c = 0; c < s.columns; ++c)
          mean += g.at(r, c) * g.at(r, c) / static_cast<double>(s.columns);
        double& state = row[static_cast<std::size_t>(r)];
        state = 0.9 * state + 0.1 * mean;
        rows_mean += state / static_cast<double>(s.rows);
      }
      for (Index c = 0; c < s.columns; ++c) {
        double mean = 0.0;
        for (Index r = 0; r < s.rows; ++r)
          mean += g.at(r, c) * g.at(r, c) / static_cast<double>(s.rows);
        double& state = column[static_cast<std::size_t>(c)];
        state = 0.9 * state + 0.1 * mean;
      }
      double squares = 0.0;
      for (Index r = 0; r < s.rows; ++r) {
        for (Index c = 0; c < s.columns; ++c) {
          const double share = vector ? 1.0 : row[static_cast<std::size_t>(r)] / rows_mean;
          g.at(r, c) /= std::sqrt(share * column[static_cast<std::size_t>(c)]);
          squares += g.at(r, c) * g.at(r, c);
        }
      }
      const double rms = std::sqrt(squares / static_cast<double>(s.rows * s.columns));
      for (std::size_t i = 0; i < w.data.size(); ++i) {
        w.data[i] = w.data[i] * (1.0 - 0.05 * 0.1) - 0.05 / std::max(1.0, rms / 0.7) * g.data[i];
      }
    }
    REQUIRE(largest_difference(weights, w) <= tolerance(4 * (s.rows + s.columns), 2.0));
  }
  golden.check();
  const Floats x = {3.0F, -4.0F};
  REQUIRE(root_mean_square(single(), matrix(x, 1, 2)) == Approx(std::sqrt(12.5)));
}

TEST_CASE("muon: its steps are nearly orthogonal, the same bits on all paths, either way up") {
  Golden golden("muon");
  struct Shape {
    Index rows, columns;
  };
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
    // With a step of 1, what was subtracted is X: its rows (or columns) have lengths between 0.6
    // and 1.3, as the iteration's polynomial keeps singular values, and lie nearly at right angles.
    const double scale =
        std::sqrt(std::max(1.0, static_cast<double>(s.rows) / static_cast<double>(s.columns)));
    const Index few = std::min(s.rows, s.columns);
    const auto x = [&](Index i, Index j) {  // i of the shorter side
      const Index at = s.rows <= s.columns ? i * s.columns + j : j * s.columns + i;
      return (static_cast<double>(start[static_cast<std::size_t>(at)]) -
              static_cast<double>(weights[static_cast<std::size_t>(at)])) /
             scale;
    };
    for (Index a = 0; a < few; ++a) {
      for (Index b = 0; b <= a; ++b) {
        double sum = 0.0;
        for (Index j = 0; j < std::max(s.rows, s.columns); ++j) sum += x(a, j) * x(b, j);
        if (a == b) REQUIRE((sum > 0.35 && sum < 1.7));
        if (a != b) REQUIRE(std::abs(sum) < 0.55);
      }
    }
  }
  golden.check();
}

// More than a grid block, so that hashes are of several, the last of them short.
TEST_CASE("matrix optimizers: the hashes of a step are those of the weights that it leaves") {
  constexpr Index kRows = 300;
  constexpr Index kColumns = 500;
  const Floats start = draw(kRows * kColumns, 1);
  const Floats gradient = draw(kRows * kColumns, 2);
  const auto blocks = static_cast<std::size_t>(grid_blocks(kRows * kColumns));
  REQUIRE(blocks == 3);
  const auto require_hashes = [&](const auto& update) {
    on_all_paths([&](const OpContext& ctx) {
      Floats weight = start;
      std::vector<Hash128> hashes(blocks);
      REQUIRE(update(ctx, matrix(weight, kRows, kColumns), hashes));
      std::vector<Hash128> expected(blocks);
      REQUIRE(hash_blocks(ctx, weight, expected));
      for (std::size_t block = 0; block < blocks; ++block) {
        REQUIRE(hashes[block] == expected[block]);
      }
      REQUIRE_FALSE(same_bits(weight, start));
      return weight;
    });
  };
  require_hashes([&](const OpContext& ctx, Matrix weight, std::span<Hash128> hashes) {
    Floats row(kRows);
    Floats column(kColumns);
    return adafactor_update(ctx,
                            {{}, weight, matrix(gradient, kRows, kColumns), row, column, hashes});
  });
  require_hashes([&](const OpContext& ctx, Matrix weight, std::span<Hash128> hashes) {
    Floats velocity(start.size());
    return muon_update(
        ctx,
        {{}, weight, matrix(gradient, kRows, kColumns), matrix(velocity, kRows, kColumns), hashes});
  });
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
