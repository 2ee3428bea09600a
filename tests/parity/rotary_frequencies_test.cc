// Rotary frequencies of every scaling, against their published formulas.
#include "kernels/ops/rotary.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

double plain_frequency(const RotaryFrequencies& args, std::size_t i) {
  return std::pow(args.theta, -2.0 * static_cast<double>(i) / static_cast<double>(args.width));
}

// How far a frequency may lie from its formula, of which it is `value`. Its exponent is below one
// and rounded once, which moves theta^exponent by ln(theta) units; power, reciprocal and scaling
// are own steps. A blend that is rounded moves what is blended by units of the plain frequency.
double frequency_tolerance(double theta, double value, double blended = 0.0) {
  return tolerance(static_cast<Index>(std::ceil(std::log(theta))), value) + kUnit * blended;
}

}  // namespace

// What Python gives, in double precision, for the formula of Peng et al. 2023 (3.2 and 3.4) with
// the ramp over dimensions that their code has: of frequency i < width / 2,
//   turns(t) = width * log(length / (2 pi t)) / (2 log(theta))
//   blend = clamp((i - floor(turns(32))) / (ceil(turns(1)) - floor(turns(32))), 0, 1)
//   theta^(-2 i / width) * (1 - blend + blend / factor)
TEST_CASE("rotary: YaRN's frequencies are those of its published formula") {
  struct Case {
    RotaryFrequencies args;
    std::vector<std::pair<std::size_t, double>> expected;
    double attention;  // 0.1 log(factor) + 1
  };
  const Case cases[] = {
      {{.width = 64,
        .theta = 10000.0,
        .scaling = YarnScaling{.factor = 4.0F, .original_max_position = 4096}},
       {{0, 1.0},
        {10, 0.0562341325},
        {11, 0.0397367859},
        {16, 0.00653846154},
        {22, 0.000547162895},
        {23, 0.000333380358},
        {31, 3.33380358e-05}},
       1.138629436111989},
      {{.width = 128,
        .theta = 1e6,
        .scaling = YarnScaling{.factor = 40.0F, .original_max_position = 32768}},
       {{0, 1.0},
        {23, 0.00697830585},
        {24, 0.00530089396},
        {31, 0.000671566318},
        {39, 1.81731041e-05},
        {40, 4.44569853e-06},
        {63, 3.1023444e-08}},
       1.3688879454113936},
      {{.width = 64,
        .theta = 150000.0,
        .scaling = YarnScaling{.factor = 32.0F, .original_max_position = 4096}},
       {{8, 0.0508132748},
        {9, 0.0316207523},
        {13, 0.00406955471},
        {17, 0.000227947796},
        {18, 3.83088124e-05},
        {31, 3.02351143e-07}},
       1.3465735902799727},
  };
  for (const Case& c : cases) {
    const std::vector<float> frequencies = rotary_frequencies(c.args);
    for (const auto& [i, value] : c.expected) {
      INFO("width " << c.args.width << ", frequency " << i);
      const double plain = plain_frequency(c.args, i);
      CHECK(std::abs(static_cast<double>(frequencies[i]) - value) <=
            frequency_tolerance(c.args.theta, value, plain) + 5e-9 * value);  // nine digits
    }
    CHECK(std::abs(static_cast<double>(rotary_attention_factor(c.args)) - c.attention) <=
          rounding_tolerance(kUnit, 1, c.attention));
  }
}

TEST_CASE("rotary: linear, dynamic and YaRN scalings slow what they should") {
  const RotaryFrequencies plain{.width = 64, .theta = 10000.0};
  const std::vector<float> kept = rotary_frequencies(plain);
  RotaryFrequencies args = plain;
  args.scaling = LinearScaling{.factor = 4.0F};
  const std::vector<float> linear = rotary_frequencies(args);
  for (std::size_t i = 0; i < kept.size(); ++i) REQUIRE(linear[i] == kept[i] / 4.0F);
  REQUIRE(rotary_attention_factor(args) == 1.0F);

  args.scaling = DynamicScaling{.factor = 2.0F, .original_max_position = 2048, .length = 2048};
  REQUIRE(rotary_frequencies(args) == kept);
  args.scaling = DynamicScaling{.factor = 2.0F, .original_max_position = 2048, .length = 8192};
  const std::vector<float> dynamic = rotary_frequencies(args);
  // theta grows by 7^(64/62), so the last frequency, theta^(-62/64), shrinks by 7.
  REQUIRE(dynamic[0] == 1.0F);
  const double slowest = plain_frequency(plain, 31) / 7.0;
  REQUIRE(std::abs(static_cast<double>(dynamic[31]) - slowest) <=
          frequency_tolerance(plain.theta * std::pow(7.0, 64.0 / 62.0), slowest));

  args.scaling = YarnScaling{.factor = 4.0F, .original_max_position = 4096};
  const std::vector<float> yarn = rotary_frequencies(args);
  // Dimensions with 32 turns and with one in 4,096 positions: 10.46 and 22.51 of 32.
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (i <= 10) REQUIRE(yarn[i] == kept[i]);
    if (i >= 23) REQUIRE(yarn[i] == kept[i] / 4.0F);
    if (i > 10 && i < 23) REQUIRE((yarn[i] < kept[i] && yarn[i] > kept[i] / 4.0F));
  }
  REQUIRE(rotary_attention_factor(args) == static_cast<float>(0.1 * std::log(4.0) + 1.0));
}

// The formula of transformers' _compute_llama3_parameters for Llama 3.2 1B (head width 64, theta
// 500000, factor 32).
TEST_CASE("rotary: Llama 3's scaling keeps short waves, slows long ones and blends between") {
  const RotaryFrequencies plain{.width = 64, .theta = 500000.0};
  RotaryFrequencies scaled = plain;
  scaled.scaling = Llama3Scaling{.factor = 32.0F};
  const std::vector<float> a = rotary_frequencies(plain);
  const std::vector<float> b = rotary_frequencies(scaled);
  REQUIRE(a[0] == 1.0F);
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double frequency = plain_frequency(plain, i);
    const double own = frequency_tolerance(plain.theta, frequency);
    REQUIRE(std::abs(static_cast<double>(a[i]) - frequency) <= own);
    const double wave = 6.283185307179586 / frequency;
    if (wave < 8192.0 / 4) {
      REQUIRE(b[i] == a[i]);
    } else if (wave > 8192.0) {
      REQUIRE(b[i] == a[i] / 32.0F);
    } else {
      const double smooth = (8192.0 / wave - 1.0) / 3.0;
      const double blended = (1.0 - smooth) * frequency / 32.0 + smooth * frequency;
      // 8192 / wave is up to 4 and errs as the frequency, so the blend by 4/3 of that at most.
      REQUIRE(std::abs(static_cast<double>(b[i]) - blended) <= (1.0 + 4.0 / 3.0) * own);
    }
  }
}

}  // namespace tutti::kernels::parity
