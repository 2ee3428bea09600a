// The optimizers beside AdamW whose unit is the element or the block: steps against double
// precision, the same bits on all paths.
#include <string>
#include <type_traits>

#include "kernels/ops/gradient_norm.h"
#include "kernels/ops/optimizers/adamw8.h"
#include "kernels/ops/optimizers/lion.h"
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

Floats joined(std::initializer_list<std::span<const float>> parts) {
  Floats all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

template <class Code>
Floats as_floats(const std::vector<Code>& codes) {
  return {codes.begin(), codes.end()};
}

// Runs kSteps of an op on all paths and of `exact` beside it, and compares the weights. `run` gives
// the weights after all steps, and the states behind them.
template <class Run, class Step>
void compare(const char* name, const Run& run, const Step& exact) {
  Golden golden(name);
  Golden states(std::string(name) + ", states");
  for (const Index size : kSizes) {
    const Floats start = draw(size, 1);
    const Floats all = on_all_paths([&](const OpContext& ctx) { return run(ctx, start); });
    const auto weights = std::span(all).first(start.size());
    golden.add(weights);
    states.add(std::span(all).subspan(start.size()));
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
  states.check();
}

std::vector<Hash128> hashes_for(Index size) {
  return std::vector<Hash128>(static_cast<std::size_t>(grid_blocks(size)));
}

// Parameters of an arena, as a step's updates take them.
struct Part {
  std::span<float> weight, first, second;
  std::span<const float> gradient;
  std::span<std::int8_t> first8;
  std::span<std::uint8_t> second8;
  std::span<float> first_scales, second_scales;
  std::span<Hash128> hashes;
  std::span<double> sums;
  double decay;
};

// More of them than a launch takes, in sizes on both sides of a grid block and of a thread block's
// threads, none of them aligned.
class Parts {
 public:
  Parts() {
    for (int i = 0; i < kCount; ++i) elements_ += size_of(i);
    weight = draw(elements_, 1);
    gradient_ = draw(elements_, 2);
    first = draw(elements_, 3);
    second = draw(elements_, 4);
    for (float& value : second) value = std::abs(value);
    const auto size = static_cast<std::size_t>(elements_);
    first8.resize(size);
    second8.resize(size);
    scales.resize(2 * kBlocksMost);
    hashes.resize(kBlocksMost);
    sums.resize(kBlocksMost);
  }

  std::vector<Part> all() {
    std::vector<Part> parts;
    std::size_t at = 0;
    std::size_t block = 0;
    std::size_t block8 = 0;
    for (int i = 0; i < kCount; ++i) {
      const auto size = static_cast<std::size_t>(size_of(i));
      const auto blocks = static_cast<std::size_t>(grid_blocks(size_of(i)));
      const auto blocks8 = static_cast<std::size_t>(state8_blocks(size_of(i)));
      const auto of = [&](auto& arena) { return std::span(arena).subspan(at, size); };
      parts.push_back({.weight = of(weight),
                       .first = of(first),
                       .second = of(second),
                       .gradient = of(gradient_),
                       .first8 = of(first8),
                       .second8 = of(second8),
                       .first_scales = std::span(scales).subspan(block8, blocks8),
                       .second_scales = std::span(scales).subspan(kBlocksMost + block8, blocks8),
                       .hashes = std::span(hashes).subspan(block, blocks),
                       .sums = std::span(sums).subspan(block, blocks),
                       .decay = i % 2 == 0 ? 0.1 : 0.0});
      at += size;
      block += blocks;
      block8 += blocks8;
    }
    return parts;
  }

  Floats everything() const {
    Floats out = joined({weight, first, second, as_floats(first8), as_floats(second8), scales});
    for (const Hash128& hash : hashes) {
      for (const std::uint64_t half : {hash.low, hash.high}) {
        for (int shift = 0; shift < 64; shift += 16)
          out.push_back(static_cast<float>(half >> shift & 0xffff));
      }
    }
    for (const double sum : sums) {
      out.push_back(static_cast<float>(sum));
      out.push_back(static_cast<float>(sum - static_cast<double>(out.back())));
    }
    return out;
  }

  Floats weight, first, second, scales;
  std::vector<std::int8_t> first8;
  std::vector<std::uint8_t> second8;
  std::vector<Hash128> hashes;
  std::vector<double> sums;

 private:
  static constexpr int kCount = 160;
  static constexpr std::size_t kBlocksMost = 250;
  static Index size_of(int i) {
    constexpr Index kSome[] = {1, 17, 0, 300, 255, 2};
    return i == 70 ? kGridBlock + 3 : kSome[i % 6];
  }

  Index elements_ = 0;
  Floats gradient_;
};

// The op over all ranges at once, against the op over each of them.
template <class Update, class RangeOf>
void compare_together(Result<> (*op)(const OpContext&, const Update&), const RangeOf& range_of) {
  Parts alone;
  for (const Part& part : alone.all()) {
    const auto range = range_of(part);
    REQUIRE(op(single(), {.ranges = {&range, 1}}));
  }
  const Floats together = on_all_paths([&](const OpContext& ctx) {
    Parts parts;
    std::vector<std::invoke_result_t<RangeOf, const Part&>> ranges;
    for (const Part& part : parts.all()) ranges.push_back(range_of(part));
    REQUIRE(op(ctx, {.ranges = ranges}));
    return parts.everything();
  });
  REQUIRE(same_bits(together, alone.everything()));
  REQUIRE_FALSE(same_bits(together, Parts().everything()));
}

void require_hashes(const Floats& weight, const std::vector<Hash128>& hashes) {
  std::vector<Hash128> expected(hashes.size());
  REQUIRE(hash_blocks(single(), weight, expected));
  REQUIRE(hashes == expected);
}

}  // namespace

TEST_CASE("sgd: momentum, Nesterov's form, neither, and decay agree with double precision") {
  struct Kind {
    const char* name;
    SgdSettings::Form form;
    double momentum;  // 0: without a velocity
  };
  for (const Kind& kind : {Kind{"sgd", SgdSettings::Form::plain, 0.9},
                           Kind{"sgd, nesterov", SgdSettings::Form::nesterov, 0.9},
                           Kind{"sgd, no momentum", SgdSettings::Form::plain, 0.0}}) {
    const SgdSettings settings{
        .rate = 0.1, .momentum = kind.momentum, .form = kind.form, .decay = 0.01, .factor = 0.5F};
    compare(
        kind.name,
        [&](const OpContext& ctx, Floats weight) {
          Floats velocity(kind.momentum > 0.0 ? weight.size() : 0);
          const auto size = static_cast<Index>(weight.size());
          std::vector<Hash128> hashes = hashes_for(size);
          for (int step = 1; step <= kSteps; ++step) {
            const Floats gradient = gradient_of(step, size);
            REQUIRE(sgd_update(ctx, {settings, weight, gradient, velocity, hashes}));
          }
          require_hashes(weight, hashes);
          return joined({weight, velocity});
        },
        [&](Exact& e, double gradient, int) {
          const double g = gradient * 0.5 + 0.01 * e.weight;
          e.a = kind.momentum * e.a + g;
          const bool nesterov = kind.form == SgdSettings::Form::nesterov;
          e.weight -= 0.1 * (nesterov ? g + 0.9 * e.a : e.a);
        });
  }
}

TEST_CASE("sgd: the comparison catches a step without momentum") {
  Floats weight(40, 1.0F);
  Floats velocity(40, 0.5F);
  const Floats gradient(40, 1.0F);
  REQUIRE(sgd_update(single(), {{.rate = 0.1, .momentum = 0.0}, weight, gradient, velocity}));
  const double exact = 1.0 - 0.1 * (0.9 * 0.5 + 1.0);
  REQUIRE(std::abs(static_cast<double>(weight[0]) - exact) > 100.0 * tolerance(20, 2.0));
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
        return joined({weight, momentum});
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
        std::vector<Hash128> hashes = hashes_for(size);
        for (int step = 1; step <= kSteps; ++step) {
          const ScheduleFreeSettings s{.rate = 0.01,
                                       .decay = 0.1,
                                       .correction2 = 1.0 - std::pow(0.999, step),
                                       .average = 1.0 / step};
          REQUIRE(schedule_free_update(ctx,
                                       {s, weight, gradient_of(step, size), base, second, hashes}));
        }
        require_hashes(weight, hashes);
        Floats average(weight.size());
        REQUIRE(schedule_free_average(ctx, {0.9, weight, base, average}));
        for (std::size_t i = 0; i < weight.size(); ++i) {
          const double y =
              0.1 * static_cast<double>(base[i]) + 0.9 * static_cast<double>(average[i]);
          REQUIRE(std::abs(y - static_cast<double>(weight[i])) <= tolerance(0, 1.0));
        }
        return joined({weight, base, second});
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

namespace {

AdamWSettings settings8_of(int step) {
  return {.rate = 1e-2,
          .beta2 = 0.99,
          .decay = 0.1,
          .correction1 = 1.0 - std::pow(0.9, step),
          .correction2 = 1.0 - std::pow(0.99, step)};
}

struct State8 {
  explicit State8(Index size)
      : weight(draw(size, 1)),
        first(weight.size()),
        second(weight.size()),
        first_scales(static_cast<std::size_t>(state8_blocks(size))),
        second_scales(first_scales.size()),
        hashes(hashes_for(size)) {}

  void step(const OpContext& ctx, int number) {
    const Floats gradient = gradient_of(number, static_cast<Index>(weight.size()));
    REQUIRE(adamw8_update(ctx, {settings8_of(number), weight, gradient, first, second, first_scales,
                                second_scales, hashes}));
  }
  // The states of element i as they are read.
  double first_of(std::size_t i) const {
    const double root = static_cast<double>(first[i]) / 127.0;
    return root * std::abs(root) * static_cast<double>(first_scales[i / kState8Block]);
  }
  double second_of(std::size_t i) const {
    const double root = static_cast<double>(second[i]) / 255.0;
    return std::pow(root, 4.0) * static_cast<double>(second_scales[i / kState8Block]);
  }

  Floats weight;
  std::vector<std::int8_t> first;
  std::vector<std::uint8_t> second;
  Floats first_scales, second_scales;
  std::vector<Hash128> hashes;
};

// Codes are the nearest: roots of states in steps of a code, but for what fp32 makes of them.
constexpr double kHalfCode = 0.5;

// The step that led from `before` to `after`, from the states as they were read.
void require_step8(const State8& before, const State8& after, int number) {
  const AdamWSettings s = settings8_of(number);
  const Floats gradient = gradient_of(number, static_cast<Index>(before.weight.size()));
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    const auto g = static_cast<double>(gradient[i]);
    const double first = s.beta1 * before.first_of(i) + (1.0 - s.beta1) * g;
    const double second = s.beta2 * before.second_of(i) + (1.0 - s.beta2) * g * g;
    const double weight =
        static_cast<double>(before.weight[i]) * (1.0 - s.rate * s.decay) -
        s.rate * (first / s.correction1) / (std::sqrt(second / s.correction2) + s.epsilon);
    REQUIRE(std::abs(static_cast<double>(after.weight[i]) - weight) <= tolerance(20, 2.0));
    const auto largest = [&](const Floats& scales) {
      return static_cast<double>(scales[i / kState8Block]);
    };
    // A root's own error is large beside a small number alone, whose code is small too.
    const double of_first = 127.0 * std::sqrt(std::abs(first) / largest(after.first_scales));
    const double of_second = 255.0 * std::pow(second / largest(after.second_scales), 0.25);
    REQUIRE(std::abs(std::copysign(of_first, first) - static_cast<double>(after.first[i])) <=
            kHalfCode + std::sqrt(tolerance(20, 1.0)) * 127.0 / std::max(1.0, of_first));
    REQUIRE(std::abs(std::max(1.0, of_second) - static_cast<double>(after.second[i])) <=
            kHalfCode + tolerance(20, 255.0));
  }
}

}  // namespace

TEST_CASE("adamw with 8-bit states: steps from the states as read, the nearest codes behind them") {
  Golden golden("adamw, 8-bit states");
  Golden states("adamw, states of 8 bits");
  for (const Index size : {0, 1, 2047, 65536 + 1003}) {
    const Floats all = on_all_paths([&](const OpContext& ctx) {
      State8 state(size);
      for (int step = 1; step <= kSteps; ++step) state.step(ctx, step);
      require_hashes(state.weight, state.hashes);
      return joined({state.weight, as_floats(state.first), as_floats(state.second),
                     state.first_scales, state.second_scales});
    });
    const auto weights = std::span(all).first(static_cast<std::size_t>(size));
    golden.add(weights);
    states.add(std::span(all).subspan(weights.size()));
    State8 state(size);
    for (int step = 1; step <= kSteps; ++step) {
      const State8 before = state;
      state.step(single(), step);
      require_step8(before, state, step);
    }
    REQUIRE(same_bits(state.weight, weights));
  }
  golden.check();
  states.check();
}

TEST_CASE("optimizers: parameters that are updated at once have the bits of each by itself") {
  compare_together<AdamWUpdate>(adamw_update, [](const Part& p) {
    return AdamWRange{{.decay = p.decay}, p.weight, p.gradient, p.first, p.second, p.hashes};
  });
  compare_together<AdamW8Update>(adamw8_update, [](const Part& p) {
    return AdamW8Range{{.decay = p.decay}, p.weight,       p.gradient,      p.first8,
                       p.second8,          p.first_scales, p.second_scales, p.hashes};
  });
  compare_together<LionUpdate>(lion_update, [](const Part& p) {
    return LionRange{{.decay = p.decay}, p.weight, p.gradient, p.first, p.hashes};
  });
  compare_together<SgdUpdate>(sgd_update, [](const Part& p) {
    return SgdRange{{.decay = p.decay}, p.weight, p.gradient, p.first, p.hashes};
  });
  compare_together<ScheduleFreeUpdate>(schedule_free_update, [](const Part& p) {
    return ScheduleFreeRange{{.decay = p.decay}, p.weight, p.gradient, p.first, p.second, p.hashes};
  });
  compare_together<HashBlocks>(hash_blocks, [](const Part& p) {
    return HashRange{p.weight, p.hashes};
  });
  compare_together<SquareSums>(square_sums, [](const Part& p) {
    return SquareRange{p.gradient, p.sums};
  });
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
  // One of a list: none is updated.
  Floats other(5, 1.0F);
  const LionRange mixed[] = {{{}, five, five, other}, {{}, six, five, six}};
  REQUIRE_FALSE(lion_update(single(), {.ranges = mixed}));
  REQUIRE(five == Floats(5, 1.0F));
  REQUIRE(six == Floats(6, 1.0F));
}

}  // namespace tutti::kernels::parity
