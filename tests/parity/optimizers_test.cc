// The optimizers beside AdamW: steps against double precision, the same bits on all paths.
#include "kernels/ops/optimizers/adafactor.h"
#include "kernels/ops/optimizers/adamw8.h"
#include "kernels/ops/optimizers/lion.h"
#include "kernels/ops/optimizers/muon.h"
#include "kernels/ops/optimizers/schedule_free.h"
#include "kernels/ops/optimizers/sgd.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

const Index kSizes[] = {0, 1, 17, 65536 + 1003};
constexpr int kSteps = 4;

Floats gradient_of(int step, Index size) {
  return draw(size, 100 + static_cast<std::uint64_t>(step));
}

// What a test keeps per element, in double: the weight and up to two states.
struct Exact {
  double weight = 0.0, a = 0.0, b = 0.0;
};

// Runs kSteps of an op on all paths and of `exact` beside it, and compares the weights. `run` gives
// the weights after all steps.
template <class Run, class Step>
void compare(const char* name, const Run& run, const Step& exact) {
  Golden golden(name);
  for (const Index size : kSizes) {
    const Floats start = draw(size, 1);
    const Floats weights =
        on_all_paths(golden, [&](const OpContext& ctx) { return run(ctx, start); });
    Table expected(1, size);
    for (std::size_t i = 0; i < start.size(); ++i) {
      Exact e{static_cast<double>(start[i])};
      e.b = e.weight;  // schedule-free's base
      for (int step = 1; step <= kSteps; ++step) {
        const double u = random_uniform({7, 100 + static_cast<std::uint64_t>(step)}, i) * 2.0 - 1.0;
        exact(e, static_cast<double>(static_cast<float>(u)), step);
      }
      expected.data[i] = e.weight;
    }
    REQUIRE(largest_difference(weights, expected) <= tolerance(20 * kSteps, 2.0));
  }
  golden.check();
}

std::vector<Hash128> hashes_for(Index size) {
  return std::vector<Hash128>(static_cast<std::size_t>(grid_blocks(size)));
}

void require_hashes(const Floats& weight, const std::vector<Hash128>& hashes) {
  std::vector<Hash128> expected(hashes.size());
  REQUIRE(hash_blocks(single(), weight, expected));
  REQUIRE(hashes == expected);
}

}  // namespace

TEST_CASE("sgd: momentum, Nesterov's form and decay agree with double precision") {
  for (const SgdSettings::Form form : {SgdSettings::Form::plain, SgdSettings::Form::nesterov}) {
    const SgdSettings settings{
        .rate = 0.1, .momentum = 0.9, .form = form, .decay = 0.01, .factor = 0.5F};
    const bool nesterov = form == SgdSettings::Form::nesterov;
    compare(
        nesterov ? "sgd, nesterov" : "sgd",
        [&](const OpContext& ctx, Floats weight) {
          Floats velocity(weight.size());
          const auto size = static_cast<Index>(weight.size());
          std::vector<Hash128> hashes = hashes_for(size);
          for (int step = 1; step <= kSteps; ++step) {
            const Floats gradient = gradient_of(step, size);
            REQUIRE(sgd_update(ctx, {settings, weight, gradient, velocity, hashes}));
          }
          require_hashes(weight, hashes);
          return weight;
        },
        [&](Exact& e, double gradient, int) {
          const double g = gradient * 0.5 + 0.01 * e.weight;
          e.a = 0.9 * e.a + g;
          e.weight -= 0.1 * (nesterov ? g + 0.9 * e.a : e.a);
        });
  }
}

TEST_CASE("lion: steps by the sign alone") {
  const LionSettings settings{.rate = 0.01, .decay = 0.1, .factor = 2.0F};
  compare(
      "lion",
      [&](const OpContext& ctx, Floats weight) {
        Floats momentum(weight.size());
        const auto size = static_cast<Index>(weight.size());
        std::vector<Hash128> hashes = hashes_for(size);
        for (int step = 1; step <= kSteps; ++step) {
          REQUIRE(lion_update(ctx, {settings, weight, gradient_of(step, size), momentum, hashes}));
        }
        require_hashes(weight, hashes);
        return weight;
      },
      [&](Exact& e, double gradient, int) {
        const double g = gradient * 2.0;
        const double u = 0.9 * e.a + 0.1 * g;
        e.weight = e.weight * (1.0 - 0.01 * 0.1) - 0.01 * (u > 0.0 ? 1.0 : (u < 0.0 ? -1.0 : 0.0));
        e.a = 0.99 * e.a + 0.01 * g;
      });
}

TEST_CASE("schedule-free adamw: y, z and their average agree with double precision") {
  compare(
      "schedule-free adamw",
      [&](const OpContext& ctx, Floats weight) {
        Floats base = weight;
        Floats second(weight.size());
        const auto size = static_cast<Index>(weight.size());
        for (int step = 1; step <= kSteps; ++step) {
          const ScheduleFreeSettings s{.rate = 0.01,
                                       .decay = 0.1,
                                       .correction2 = 1.0 - std::pow(0.999, step),
                                       .average = 1.0 / step};
          REQUIRE(schedule_free_update(ctx, {s, weight, gradient_of(step, size), base, second}));
        }
        Floats average(weight.size());
        REQUIRE(schedule_free_average(ctx, {0.9, weight, base, average}));
        for (std::size_t i = 0; i < weight.size(); ++i) {
          const double y =
              0.1 * static_cast<double>(base[i]) + 0.9 * static_cast<double>(average[i]);
          REQUIRE(std::abs(y - static_cast<double>(weight[i])) < 1e-6);
        }
        return weight;
      },
      [&](Exact& e, double g, int step) {
        const double average = 1.0 / step;
        e.a = 0.999 * e.a + 0.001 * g * g;
        const double d =
            g / (std::sqrt(e.a / (1.0 - std::pow(0.999, step))) + 1e-8) + 0.1 * e.weight;
        const double y =
            e.weight + average * (e.b - e.weight) - 0.01 * (1.0 - 0.9 * (1.0 - average)) * d;
        e.b -= 0.01 * d;
        e.weight = y;
      });
}

TEST_CASE("adamw with 8-bit states: near the fp32 one, the same bits on all paths, zeros stay") {
  Golden golden("adamw, 8-bit states");
  for (const Index size : {0, 1, 2047, 65536 + 1003}) {
    const Floats start = draw(size, 1);
    const auto settings_of = [](int step) {
      return AdamWSettings{.rate = 1e-2,
                           .beta2 = 0.99,
                           .decay = 0.1,
                           .correction1 = 1.0 - std::pow(0.9, step),
                           .correction2 = 1.0 - std::pow(0.99, step)};
    };
    const Floats weights = on_all_paths(golden, [&](const OpContext& ctx) {
      Floats weight = start;
      const auto blocks = static_cast<std::size_t>(state8_blocks(size));
      std::vector<std::int8_t> first(start.size());
      std::vector<std::uint8_t> second(start.size());
      Floats first_scales(blocks);
      Floats second_scales(blocks);
      std::vector<Hash128> hashes = hashes_for(size);
      for (int step = 1; step <= kSteps; ++step) {
        REQUIRE(adamw8_update(ctx, {settings_of(step), weight, gradient_of(step, size), first,
                                    second, first_scales, second_scales, hashes}));
      }
      require_hashes(weight, hashes);
      return weight;
    });
    Floats exact = start;
    Floats first(start.size());
    Floats second(start.size());
    for (int step = 1; step <= kSteps; ++step) {
      REQUIRE(adamw_update(single(),
                           {settings_of(step), exact, gradient_of(step, size), first, second}));
    }
    double sum = 0.0;
    for (std::size_t i = 0; i < start.size(); ++i) {
      sum += std::abs(static_cast<double>(weights[i]) - static_cast<double>(exact[i]));
    }
    // A hundredth of the four steps of 0.01 that were made.
    if (size > 0) REQUIRE(sum / static_cast<double>(size) < 4e-4);
  }
  golden.check();
}

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

TEST_CASE("optimizers: lengths that differ are refused and nothing is written") {
  Floats five(5, 1.0F);
  Floats six(6, 1.0F);
  std::vector<std::int8_t> codes(5);
  std::vector<std::uint8_t> bytes(5);
  REQUIRE_FALSE(sgd_update(single(), {{}, five, six, five}));
  REQUIRE_FALSE(lion_update(single(), {{}, five, five, six}));
  REQUIRE_FALSE(schedule_free_update(single(), {{}, five, five, six, five}));
  REQUIRE_FALSE(schedule_free_average(single(), {0.9, five, six, five}));
  REQUIRE_FALSE(adamw8_update(single(), {{}, five, five, codes, bytes, {}, {}}));
  REQUIRE_FALSE(adafactor_update(single(), {{}, matrix(six, 2, 3), matrix(six, 2, 3), {}, five}));
  REQUIRE_FALSE(
      muon_update(single(), {{}, matrix(six, 2, 3), matrix(six, 3, 2), matrix(six, 2, 3)}));
  REQUIRE(five == Floats(5, 1.0F));
  REQUIRE(six == Floats(6, 1.0F));
}

}  // namespace tutti::kernels::parity
