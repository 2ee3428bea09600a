// Weights of a softmax that are next to nothing: below 2^-80 they pass nothing back, so that far
// keys, and tokens that nobody expects, meet no denormal number (decision 0103).
#include <xmmintrin.h>

#include <algorithm>

#include "kernels/ops/cross_entropy.h"
#include "tests/parity/attention_cases.h"

namespace tutti::kernels::parity {
namespace {

// exp(-s) is 1.05 of 2^-80 for the one, 0.95 for the other.
constexpr float kJustCounts = 55.40F;
constexpr float kJustFaint = 55.50F;

// Whether arithmetic of this thread has read a denormal number meanwhile.
class DenormalWatch {
 public:
  DenormalWatch() { _mm_setcsr(_mm_getcsr() & ~kRead); }
  bool met() const { return (_mm_getcsr() & kRead) != 0; }

 private:
  static constexpr unsigned kRead = 0x2;
};

// dq, dk, dv of two tokens of one head, of which the second weighs the first by exp(-s).
Floats of_two_tokens(const OpContext& ctx, float s) {
  AttentionShape shape = shape_of(1, 1, 8);
  shape.scale = 1.0F;
  Inputs in({shape, {0, 2}});
  std::fill(in.q.begin(), in.q.end(), 0.0F);
  std::fill(in.k.begin(), in.k.end(), 0.0F);
  in.q[8] = 1.0F;
  in.k[0] = -s;
  Floats dout(16, 1.0F);
  std::fill_n(dout.begin(), 8, 0.0F);
  return backward(ctx, in, forward(ctx, in), dout);
}

struct Gradients {
  Floats dhidden, dweight;
};

struct Head {
  Index rows, width, vocabulary;
  Floats hidden, weight;
};

Gradients gradients_of(const OpContext& ctx, const Head& head, float scale,
                       LinearCrossEntropy::Memory memory) {
  Gradients result{Floats(head.hidden.size()), Floats(head.weight.size())};
  std::vector<std::int32_t> targets;
  for (Index r = 0; r < head.rows; ++r) {
    targets.push_back(static_cast<std::int32_t>(r * 331 % head.vocabulary));
  }
  Floats losses(targets.size());
  REQUIRE(linear_cross_entropy(ctx, {.hidden = matrix(head.hidden, head.rows, head.width),
                                     .weight = matrix(head.weight, head.vocabulary, head.width),
                                     .targets = targets,
                                     .losses = losses.data(),
                                     .dhidden = matrix(result.dhidden, head.rows, head.width),
                                     .dweight = matrix(result.dweight, head.vocabulary, head.width),
                                     .scale = scale,
                                     .memory = memory}));
  return result;
}

// dweight[v][0] of three tokens whose logits are 0, -s and -70, of which the first is the target.
Floats of_three_logits(const OpContext& ctx, float s, float scale) {
  Head head{1, 8, 3, Floats(8, 0.0F), Floats(24, 0.0F)};
  head.hidden[0] = 1.0F;
  head.weight[8] = -s;
  head.weight[16] = -70.0F;
  const Floats all = gradients_of(ctx, head, scale, LinearCrossEntropy::Memory::rows).dweight;
  return {all[0], all[8], all[16]};
}

}  // namespace

TEST_CASE("faint weights: a key whose weight is below 2^-80 has no gradient, one above has") {
  const auto at = [](float s) {
    return on_all_paths([&](const OpContext& ctx) { return of_two_tokens(ctx, s); });
  };
  constexpr std::size_t kKeys = 16;
  constexpr std::size_t kValues = 32;
  const Floats counts = at(kJustCounts);
  REQUIRE(std::abs(counts[kValues] / std::exp(-kJustCounts) - 1.0F) < 1e-5F);
  REQUIRE(counts[kKeys] != 0.0F);
  const Floats faint = at(kJustFaint);
  for (std::size_t i = 0; i < 8; ++i) {
    REQUIRE(faint[kKeys + i] == 0.0F);
    REQUIRE(faint[kValues + i] == 0.0F);
    REQUIRE(faint[kValues + 8 + i] == 1.0F);
  }
}

TEST_CASE("faint weights: a token whose probability is below 2^-80 has no gradient at any scale") {
  for (const float scale : {1.0F, 1024.0F, 0x1p-10F}) {
    const auto at = [scale](float s) {
      return on_all_paths([&](const OpContext& ctx) { return of_three_logits(ctx, s, scale); });
    };
    const Floats counts = at(kJustCounts);
    REQUIRE(std::abs(counts[1] / (scale * std::exp(-kJustCounts)) - 1.0F) < 1e-5F);
    REQUIRE(counts[2] == 0.0F);
    const Floats faint = at(kJustFaint);
    REQUIRE(faint[1] == 0.0F);
    REQUIRE(faint[2] == 0.0F);
  }
}

TEST_CASE("faint weights: attention's gradients under steep slopes meet no denormal number") {
  static const Floats slopes = {0.5F, 0.125F};
  AttentionShape shape = shape_of(2, 2, 32);
  shape.slopes = slopes.data();
  Golden golden("attention backward, faint weights");
  for (const AttentionMask mask : {AttentionMask::causal, AttentionMask::full}) {
    shape.mask = mask;
    const Inputs in({shape, {0, 768}});
    const Forward f = forward(single(), in);
    const Floats dout = draw(in.c.tokens() * in.c.wide(), 4);
    on_all_paths(golden, [&](const OpContext& ctx) {
      const DenormalWatch watch;
      Floats result = backward(ctx, in, f, dout);
      REQUIRE_FALSE(watch.met());
      return result;
    });
  }
  golden.check();
}

TEST_CASE("faint weights: the gradients of far logits meet no denormal number") {
  constexpr Index kRows = 16;
  constexpr Index kWidth = 64;
  constexpr Index kVocabulary = 2 * kVocabularyBlock;
  Head head{kRows, kWidth, kVocabulary, draw(kRows * kWidth, 1), draw(kVocabulary * kWidth, 2)};
  // Logits of a deviation of 21, as a 7B model's would be of such numbers.
  for (float& x : head.hidden) x *= 8.0F;
  Golden golden("linear cross entropy, faint weights");
  for (const auto memory : {LinearCrossEntropy::Memory::rows, LinearCrossEntropy::Memory::blocks}) {
    on_all_paths(golden, [&](const OpContext& ctx) {
      const DenormalWatch watch;
      Gradients result = gradients_of(ctx, head, 1.0F, memory);
      REQUIRE_FALSE(watch.met());
      Floats& all = result.dhidden;
      all.insert(all.end(), result.dweight.begin(), result.dweight.end());
      return all;
    });
  }
  golden.check();
}

TEST_CASE("faint weights: a denormal factor is seen, and a product that is one is not yet") {
  volatile float small = 0x1p-120F;
  volatile float smaller = 0x1p-10F;
  const DenormalWatch watch;
  volatile float product = small * smaller;
  REQUIRE_FALSE(watch.met());
  product = product * smaller;
  REQUIRE(watch.met());
}

}  // namespace tutti::kernels::parity
