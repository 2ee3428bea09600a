// The optimizer step, the hash of weights and the norm: all on the grid of 65,536 elements.
#include <xxhash.h>

#include <cstring>

#include "kernels/ops/adamw.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/ops/math.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

struct State {
  explicit State(Index size)
      : weight(draw(size, 1)),
        gradient(draw(size, 2)),
        first(static_cast<std::size_t>(size)),
        second(static_cast<std::size_t>(size)),
        hashes(static_cast<std::size_t>(grid_blocks(size))) {}
  Floats weight, gradient, first, second;
  std::vector<Hash128> hashes;
};

AdamWSettings settings_at(unsigned step) {
  return {.rate = 1e-2,
          .beta1 = 0.9,
          .beta2 = 0.95,
          .epsilon = 1e-8,
          .decay = 0.1,
          .correction1 = 1.0 - power(0.9, step),
          .correction2 = 1.0 - power(0.95, step),
          .factor = 0.5F};
}

void step(const OpContext& ctx, State& s, unsigned number) {
  REQUIRE(adamw_update(ctx, {.settings = settings_at(number),
                             .weight = s.weight,
                             .gradient = s.gradient,
                             .first = s.first,
                             .second = s.second,
                             .hashes = s.hashes}));
}

// The same formula in double precision, one element.
struct Exact {
  double weight, first = 0.0, second = 0.0;
  void step(double gradient, unsigned number) {
    const AdamWSettings s = settings_at(number);
    const double g = gradient * static_cast<double>(s.factor);
    weight *= 1.0 - s.rate * s.decay;
    first = s.beta1 * first + (1.0 - s.beta1) * g;
    second = s.beta2 * second + (1.0 - s.beta2) * g * g;
    weight -= s.rate * (first / s.correction1) / (std::sqrt(second / s.correction2) + s.epsilon);
  }
};

}  // namespace

TEST_CASE("adamw: five steps agree with double precision, and hash what they leave") {
  Golden golden("adamw");
  Golden states("adamw, states");
  for (const Index size : {1, 17, 65536, 65536 + 1003}) {
    const Floats all = on_all_paths([&](const OpContext& ctx) {
      State s(size);
      for (unsigned number = 1; number <= 5; ++number) step(ctx, s, number);
      std::vector<Hash128> again(s.hashes.size());
      REQUIRE(hash_blocks(ctx, s.weight, again));
      REQUIRE(again == s.hashes);
      s.weight.insert(s.weight.end(), s.first.begin(), s.first.end());
      s.weight.insert(s.weight.end(), s.second.begin(), s.second.end());
      return s.weight;
    });
    const State start(size);
    golden.add(std::span(all).first(start.weight.size()));
    states.add(std::span(all).subspan(start.weight.size()));
    for (std::size_t i = 0; i < start.weight.size(); i += 97) {
      Exact exact{static_cast<double>(start.weight[i])};
      for (unsigned number = 1; number <= 5; ++number) {
        exact.step(static_cast<double>(start.gradient[i]), number);
      }
      REQUIRE(std::abs(static_cast<double>(all[i]) - exact.weight) <= tolerance(20, 1.0));
      const auto state = [&](std::size_t of) {
        return static_cast<double>(all[of * start.weight.size() + i]);
      };
      REQUIRE(std::abs(state(1) - exact.first) <= tolerance(20, 1.0));
      REQUIRE(std::abs(state(2) - exact.second) <= tolerance(20, 1.0));
    }
  }
  golden.check();
  states.check();
}

TEST_CASE("adamw: the comparison catches a step without bias correction") {
  State s(100);
  AdamWSettings wrong = settings_at(1);
  wrong.correction1 = 1.0;
  REQUIRE(adamw_update(single(), {.settings = wrong,
                                  .weight = s.weight,
                                  .gradient = s.gradient,
                                  .first = s.first,
                                  .second = s.second}));
  Exact exact{static_cast<double>(State(100).weight[0])};
  exact.step(static_cast<double>(s.gradient[0]), 1);
  REQUIRE(std::abs(static_cast<double>(s.weight[0]) - exact.weight) > tolerance(20, 1.0));
}

TEST_CASE("adamw: states of another length are refused") {
  State s(100);
  s.second.resize(99);
  const auto refused = adamw_update(single(), {.settings = settings_at(1),
                                               .weight = s.weight,
                                               .gradient = s.gradient,
                                               .first = s.first,
                                               .second = s.second});
  REQUIRE_FALSE(refused);
  REQUIRE(refused.error().code == ErrorCode::invalid_argument);
}

TEST_CASE("weight hash: blocks of the grid, combined in order, one flipped bit shows") {
  Floats values = draw(65536 * 2 + 5, 1);
  std::vector<Hash128> hashes(3);
  REQUIRE(hash_blocks(single(), values, hashes));
  const XXH128_hash_t second = XXH3_128bits(values.data() + 65536, 65536 * sizeof(float));
  REQUIRE(hashes[1] == Hash128{second.high64, second.low64});
  const Hash128 whole = combine_hashes(hashes);
  REQUIRE(to_string(whole).size() == 32);
  std::swap(hashes[0], hashes[1]);
  REQUIRE_FALSE(combine_hashes(hashes) == whole);
  values[70000] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(values[70000]) ^ 1U);
  REQUIRE(hash_blocks(single(), values, hashes));
  REQUIRE_FALSE(combine_hashes(hashes) == whole);
}

TEST_CASE("weight hash: the text is the number, most significant digit first") {
  REQUIRE(to_string(Hash128{0x0123456789abcdefULL, 0xf}) == "0123456789abcdef000000000000000f");
  // XXH3-128 of nothing, as the reference implementation prints it.
  REQUIRE(to_string(combine_hashes({})) == "99aa06d3014798d86001c324468d497f");
}

TEST_CASE("square sums: double precision, the same bits on all paths, non-finite numbers show") {
  Golden golden("square sums");
  Floats values = draw(65536 + 77, 1);
  const auto sums = [&](const OpContext& ctx) {
    std::vector<double> out(2);
    REQUIRE(square_sums(ctx, values, out));
    return out;
  };
  const Floats bits = on_all_paths(golden, [&](const OpContext& ctx) {
    const std::vector<double> out = sums(ctx);
    Floats halves(4);
    std::memcpy(halves.data(), out.data(), 16);
    return halves;
  });
  std::vector<double> found(2);
  std::memcpy(found.data(), bits.data(), 16);
  double exact = 0.0;
  for (std::size_t i = 65536; i < values.size(); ++i) {
    exact += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  }
  REQUIRE(std::abs(found[1] - exact) <= double_tolerance(77 / 16, exact));
  REQUIRE(ordered_sum(found) == found[0] + found[1]);
  for (const float spoiled : {std::numeric_limits<float>::infinity(), std::nanf(""), 3e38F}) {
    values[3] = spoiled;
    on_all_paths([&](const OpContext& ctx) {
      const std::vector<double> out = sums(ctx);
      REQUIRE(std::isfinite(out[0]) == std::isfinite(spoiled));
      REQUIRE(out[1] == found[1]);
      return Floats{};
    });
  }
  golden.check();
}

}  // namespace tutti::kernels::parity
