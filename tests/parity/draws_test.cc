// Elementary functions, random draws and sampling.
#include <algorithm>
#include <limits>

#include "kernels/ops/math.h"
#include "kernels/ops/random.h"
#include "kernels/ops/sampling.h"
#include "tests/parity/harness.h"
#include "tests/support/larger.h"

namespace tutti::kernels::parity {
namespace {

// The distance to the 64-bit-mantissa result, in units of the last place of a double.
double ulps(double actual, long double exact) {
  const double nearest = static_cast<double>(exact);
  const double unit = std::nextafter(std::abs(nearest), 1e308) - std::abs(nearest);
  return static_cast<double>(std::abs(static_cast<long double>(actual) - exact) /
                             static_cast<long double>(unit));
}

struct Range {
  double low, high;
};

template <class Ours, class Exact>
double worst(const Range& range, const Ours& ours, const Exact& exact) {
  double largest = 0.0;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const double x = range.low + (range.high - range.low) * random_uniform({3, 3}, i);
    largest = test::larger(largest, ulps(ours(x), exact(static_cast<long double>(x))));
  }
  return largest;
}

}  // namespace

TEST_CASE("math: exp, log, sine and cosine are within two units in the last place") {
  const auto exact_exp = [](long double x) { return std::exp(x); };
  const auto exact_log = [](long double x) { return std::log(x); };
  const auto exact_sin = [](long double x) { return std::sin(x); };
  const auto exact_cos = [](long double x) { return std::cos(x); };
  const auto ours_exp = [](double x) { return kernels::exp(x); };
  const auto ours_log = [](double x) { return kernels::log(x); };
  const auto ours_sin = [](double x) { return kernels::sin(x); };
  const auto ours_cos = [](double x) { return kernels::cos(x); };
  for (const Range& range : {Range{-1, 1}, Range{-700, 700}, Range{-1e-9, 1e-9}}) {
    REQUIRE(worst(range, ours_exp, exact_exp) < 2.0);
  }
  for (const Range& range :
       {Range{0.5, 2}, Range{0.99, 1.01}, Range{1e-300, 1e-290}, Range{1, 1e300}}) {
    REQUIRE(worst(range, ours_log, exact_log) < 2.0);
  }
  for (const Range& range : {Range{-1, 1}, Range{-10, 10}, Range{0, 131072}, Range{1e7, 1e8}}) {
    REQUIRE(worst(range, ours_sin, exact_sin) < 2.0);
    REQUIRE(worst(range, ours_cos, exact_cos) < 2.0);
  }
}

TEST_CASE("math: powers and tanh") {
  for (std::uint64_t i = 0; i < 2000; ++i) {
    const double x = 1e-3 + 1e6 * random_uniform({3, 4}, i);
    const double y = 8.0 * random_uniform({3, 5}, i) - 4.0;
    const long double exact = std::pow(static_cast<long double>(x), static_cast<long double>(y));
    REQUIRE(ulps(kernels::power(x, y), exact) < 16.0);
    const double t = 6.0 * random_uniform({3, 6}, i) - 3.0;
    const long double exact_tanh = std::tanh(static_cast<long double>(t));
    REQUIRE(std::abs(static_cast<long double>(kernels::tanh(t)) - exact_tanh) < 0x1p-51L);
  }
  REQUIRE(kernels::power(0.9, 10U) == Approx(0.3486784401).epsilon(1e-14));
  REQUIRE(kernels::power(2.0, 0U) == 1.0);
}

TEST_CASE("math: the ends of the ranges") {
  const double infinity = std::numeric_limits<double>::infinity();
  REQUIRE(kernels::exp(0.0) == 1.0);
  REQUIRE(kernels::exp(-infinity) == 0.0);
  REQUIRE(kernels::exp(800.0) == infinity);
  REQUIRE(kernels::log(1.0) == 0.0);
  REQUIRE(kernels::log(0.0) == -infinity);
  REQUIRE(std::isnan(kernels::log(-1.0)));
  REQUIRE(kernels::sin(0.0) == 0.0);
  REQUIRE(kernels::cos(0.0) == 1.0);
  REQUIRE(std::isnan(kernels::sin(infinity)));
  REQUIRE(std::isnan(kernels::exp(std::nan(""))));
}

// From the paper's test vectors (Random123, kat_vectors: philox4x32 10).
TEST_CASE("random: Philox gives its published words") {
  REQUIRE(random_words({0, 0}, 0) ==
          std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  REQUIRE(random_words({0xffffffffffffffff, 0xffffffffffffffff}, 0xffffffffffffffff) ==
          std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  REQUIRE(random_words({0x299f31d0a4093822, 0x0370734413198a2e}, 0x85a308d3243f6a88) ==
          std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random: normal numbers have their moments, and a part of a tensor has the tensor's") {
  Golden golden("fill normal");
  const Floats z = on_all_paths(golden, [](const OpContext& ctx) {
    Floats out(200001);
    REQUIRE(fill_normal(ctx, {.key = {1, purpose_of("w")}, .out = out}));
    return out;
  });
  double mean = 0.0;
  double square = 0.0;
  double fourth = 0.0;
  for (const float value : z) {
    const auto v = static_cast<double>(value);
    mean += v;
    square += v * v;
    fourth += v * v * v * v;
  }
  const auto n = static_cast<double>(z.size());
  REQUIRE(std::abs(mean / n) < 0.01);
  REQUIRE(square / n == Approx(1.0).epsilon(0.01));
  REQUIRE(fourth / n == Approx(3.0).epsilon(0.03));
  Floats part(1000);
  REQUIRE(fill_normal(single(), {.key = {1, purpose_of("w")}, .first_index = 4567, .out = part}));
  REQUIRE(same_bits(part, std::span(z).subspan(4567, 1000)));
  Floats other(1000);
  REQUIRE(fill_normal(single(), {.key = {1, purpose_of("v")}, .first_index = 4567, .out = other}));
  REQUIRE(other != part);
  golden.check();
}

TEST_CASE("random: uniform numbers stay in their range") {
  Floats u(10000);
  REQUIRE(fill_uniform(single(), {.key = {1, 2}, .low = -3.0, .high = 5.0, .out = u}));
  const auto [low, high] = std::minmax_element(u.begin(), u.end());
  REQUIRE(*low >= -3.0F);
  REQUIRE(*low < -2.9F);
  REQUIRE(*high <= 5.0F);
  REQUIRE(*high > 4.9F);
}

TEST_CASE("sampling: greedy takes the largest, the lower index of equals, never a NaN") {
  const Floats logits = {1.0F, 5.0F, std::nanf(""), 5.0F, -2.0F};
  REQUIRE(argmax(logits) == 1);
  Sampler sampler;
  REQUIRE(sampler.sample(logits, {.temperature = 0.0}, 0) == 1);
  REQUIRE(sampler.sample(logits, {.top_k = 1}, 0) == 1);
  REQUIRE(sampler.sample(logits, {.top_p = 1e-9}, 0) == 1);
}

TEST_CASE("sampling: draws follow the probabilities and repeat for a seed and position") {
  const Floats logits = {0.0F, std::log(2.0F), std::log(5.0F), std::log(2.0F)};
  Sampler sampler;
  std::vector<int> counts(4);
  for (std::uint64_t position = 0; position < 20000; ++position) {
    ++counts[static_cast<std::size_t>(sampler.sample(logits, {.seed = 9}, position))];
  }
  const double expected[] = {0.1, 0.2, 0.5, 0.2};
  for (std::size_t i = 0; i < 4; ++i)
    REQUIRE(counts[i] / 20000.0 == Approx(expected[i]).margin(0.015));
  Sampler fresh;
  for (std::uint64_t position = 100; position > 0; --position) {
    REQUIRE(fresh.sample(logits, {.seed = 9}, position) ==
            sampler.sample(logits, {.seed = 9}, position));
  }
}

TEST_CASE("sampling: top-k and top-p keep the head of the distribution only") {
  Floats logits(1000);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>((i * 389) % 1000) * 0.01F;
  }
  Sampler sampler;
  std::vector<std::size_t> order(1000);
  for (std::size_t i = 0; i < 1000; ++i) order[i] = i;
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  const auto rank = [&](std::int32_t token) {
    return std::find(order.begin(), order.end(), static_cast<std::size_t>(token)) - order.begin();
  };
  double total = 0.0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit));
  double mass = 0.0;
  std::ptrdiff_t head = 0;
  while (mass < 0.8 * total)
    mass += std::exp(static_cast<double>(logits[order[static_cast<std::size_t>(head++)]]));
  std::ptrdiff_t last_by_k = 0;
  std::ptrdiff_t last_by_p = 0;
  for (std::uint64_t position = 0; position < 3000; ++position) {
    last_by_k = std::max(last_by_k, rank(sampler.sample(logits, {.top_k = 7}, position)));
    last_by_p = std::max(last_by_p, rank(sampler.sample(logits, {.top_p = 0.8}, position)));
  }
  REQUIRE(last_by_k == 6);
  REQUIRE(last_by_p < head);
  REQUIRE(last_by_p > head - 10);
}

TEST_CASE("sampling: min-p keeps what is probable enough beside the most probable") {
  Sampler sampler;
  const Floats logits = {0.0F, -1.0F, -2.0F, -3.0F};  // 1, 0.37, 0.135, 0.05 of the largest
  std::vector<int> drawn(4);
  for (std::uint64_t position = 0; position < 2000; ++position) {
    ++drawn[static_cast<std::size_t>(sampler.sample(logits, {.seed = 1, .min_p = 0.2}, position))];
  }
  REQUIRE(drawn[1] > 400);
  REQUIRE(drawn[2] == 0);
  REQUIRE(drawn[3] == 0);
  REQUIRE(sampler.sample(logits, {.seed = 1, .min_p = 2.0}, 0) == 0);
}

TEST_CASE("sampling: typical keeps what surprises as much as the whole does") {
  Sampler sampler;
  // One token of weight 0.5, sixty of 0.01: the entropy, 2.92, is nearer to the surprise of the
  // many, 4.7, than to that of the one, 0.79; it comes in last.
  Floats logits(61, static_cast<float>(std::log(0.01)));
  logits[0] = static_cast<float>(std::log(0.5));
  bool first = false;
  for (std::uint64_t position = 0; position < 300; ++position) {
    REQUIRE(sampler.sample(logits, {.seed = 2, .typical_p = 0.4}, position) >= 1);
    first = first || sampler.sample(logits, {.seed = 2, .typical_p = 0.95}, position) == 0;
  }
  REQUIRE(first);
}

TEST_CASE("sampling: an infinite logit is chosen, whatever the settings; no NaN comes of it") {
  const float infinity = std::numeric_limits<float>::infinity();
  const Floats logits = {0.0F, -infinity, infinity, std::nanf(""), infinity, 1.0F};
  Sampler sampler;
  for (const SamplingSettings& settings :
       {SamplingSettings{}, SamplingSettings{.temperature = 0.1, .top_k = 3},
        SamplingSettings{.top_p = 0.5}, SamplingSettings{.min_p = 0.1},
        SamplingSettings{.typical_p = 0.5}}) {
    for (std::uint64_t position = 0; position < 20; ++position) {
      REQUIRE(sampler.sample(logits, settings, position) == 2);
    }
  }
  REQUIRE(sampler.sample(Floats(3, -infinity), {}, 0) == 0);
}

TEST_CASE("sampling: penalties count what is held, biases come last") {
  Sampler sampler;
  Floats logits = {2.0F, -2.0F, 1.0F, 0.0F};
  const std::vector<std::int32_t> seen = {1, 0, 1, 1};
  const TokenBias biases[] = {{3, 5.0F}, {-1, 9.0F}, {4, 9.0F}};
  sampler.penalise(
      logits, {.repetition = 2.0F, .frequency = 0.5F, .presence = 0.25F, .biases = biases}, seen);
  REQUIRE(logits == Floats{1.0F - 0.75F, -4.0F - 1.75F, 1.0F, 5.0F});
  sampler.penalise(logits, {}, seen);
  REQUIRE(logits == Floats{0.25F, -5.75F, 1.0F, 5.0F});
}

}  // namespace tutti::kernels::parity
