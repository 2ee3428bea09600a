// The loss over a long vocabulary: its two forms of memory, smoothing, an index of one's own.
#include "kernels/ops/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

constexpr Index kRows = 11;
constexpr Index kWidth = 8;
constexpr Index kVocabulary = 2 * kVocabularyBlock + 77;
using Memory = LinearCrossEntropy::Memory;

struct Inputs {
  Inputs() : hidden(draw(kRows * kWidth, 1)), weight(draw(kVocabulary * kWidth, 2)) {
    for (float& value : hidden) value *= 4.0F;
    for (Index r = 0; r < kRows; ++r) {
      targets.push_back(r == 3 ? -100 : static_cast<std::int32_t>(r * 3001 % kVocabulary));
    }
    // A later block holds the largest logit of most rows.
    for (std::size_t c = 0; c < kWidth; ++c) weight[kVocabularyBlock * kWidth + 90 + c] *= 3.0F;
  }
  Floats hidden, weight;
  std::vector<std::int32_t> targets;
};

struct Form {
  Memory memory = Memory::rows;
  Index chunk = 0;
  float smoothing = 0.0F;
  float scale = 1.0F;
};

// Losses, dhidden, dweight, one after the other.
Floats run(const OpContext& ctx, const Inputs& in, const Form& form) {
  Floats losses(kRows);
  Floats dhidden(in.hidden.size());
  Floats dweight(in.weight.size());
  REQUIRE(linear_cross_entropy(ctx, {.hidden = matrix(in.hidden, kRows, kWidth),
                                     .weight = matrix(in.weight, kVocabulary, kWidth),
                                     .targets = in.targets,
                                     .losses = losses.data(),
                                     .dhidden = matrix(dhidden, kRows, kWidth),
                                     .dweight = matrix(dweight, kVocabulary, kWidth),
                                     .smoothing = form.smoothing,
                                     .scale = form.scale,
                                     .ignore = -100,
                                     .memory = form.memory,
                                     .chunk = form.chunk}));
  losses.insert(losses.end(), dhidden.begin(), dhidden.end());
  losses.insert(losses.end(), dweight.begin(), dweight.end());
  return losses;
}

// A target's term is as large as those of all other tokens together, which their weights' sum in
// sixteen lanes makes err.
const double kOff = mean_tolerance(kWidth + kVocabulary / 16);

double smoothed_loss(const Table& hidden, const Inputs& in, std::span<const double> weight,
                     double smoothing) {
  double total = 0.0;
  for (Index r = 0; r < kRows; ++r) {
    const std::int32_t target = in.targets[static_cast<std::size_t>(r)];
    if (target < 0) continue;
    std::vector<double> logits(static_cast<std::size_t>(kVocabulary));
    double top = -1e300;
    double mean = 0.0;
    for (std::size_t v = 0; v < logits.size(); ++v) {
      for (Index c = 0; c < kWidth; ++c) {
        logits[v] += hidden.at(r, c) * weight[v * kWidth + static_cast<std::size_t>(c)];
      }
      top = std::max(top, logits[v]);
      mean += logits[v] / static_cast<double>(kVocabulary);
    }
    double sum = 0.0;
    for (const double logit : logits) sum += std::exp(logit - top);
    total += top + std::log(sum) - (1.0 - smoothing) * logits[static_cast<std::size_t>(target)] -
             smoothing * mean;
  }
  return total;
}

}  // namespace

TEST_CASE("cross entropy: rows and blocks, in any chunks, give the same bits") {
  Golden golden("linear cross entropy, long vocabulary");
  const Inputs in;
  for (const float smoothing : {0.0F, 0.1F}) {
    const Floats expected = on_all_paths(golden, [&](const OpContext& ctx) {
      return run(ctx, in, {.memory = Memory::rows, .smoothing = smoothing});
    });
    for (const Form& form : {Form{Memory::rows, 4, smoothing}, Form{Memory::blocks, 0, smoothing},
                             Form{Memory::blocks, 5, smoothing}}) {
      // Of the weight's gradient a device adds finished sums, one of each chunk.
      const Floats formed = run(single(), in, form);
      const std::size_t rows = formed.size() - in.weight.size();
      REQUIRE(same_bits(std::span(formed).first(rows), std::span(expected).first(rows)));
      REQUIRE(same_sums(std::span(formed).subspan(rows), std::span(expected).subspan(rows)));
    }
    REQUIRE(expected[3] == 0.0F);
    double sum = 0.0;
    for (std::size_t r = 0; r < kRows; ++r) sum += static_cast<double>(expected[r]);
    const Table hidden(matrix(in.hidden, kRows, kWidth));
    const std::vector<double> weight(in.weight.begin(), in.weight.end());
    const auto loss = [&](const Table& h) {
      return smoothed_loss(h, in, weight, static_cast<double>(smoothing));
    };
    REQUIRE(sum == Approx(loss(hidden)).epsilon(kOff));
    REQUIRE(gradient_error({.loss = loss,
                            .at = hidden,
                            .gradient = std::span(expected).subspan(kRows, in.hidden.size())}) <
            kOff);
    // Of the weight along a direction that moves 300 of its rows: all would take a minute.
    const std::span<const float> dweight = std::span(expected).last(in.weight.size());
    Floats some;
    Table at(300, kWidth);
    for (std::size_t i = 0; i < at.data.size(); ++i) {
      const std::size_t place = (i / kWidth * 27) * kWidth + i % kWidth;
      at.data[i] = static_cast<double>(in.weight[place]);
      some.push_back(dweight[place]);
    }
    const auto of_weight = [&](const Table& moved) {
      std::vector<double> exact(in.weight.begin(), in.weight.end());
      for (std::size_t i = 0; i < moved.data.size(); ++i) {
        exact[(i / kWidth * 27) * kWidth + i % kWidth] = moved.data[i];
      }
      return smoothed_loss(hidden, in, exact, static_cast<double>(smoothing));
    };
    REQUIRE(gradient_error({.loss = of_weight, .at = at, .gradient = some}) < kOff);
  }
  golden.check();
}

TEST_CASE("cross entropy: forward only and a frozen head give the bits of the whole") {
  const Inputs in;
  for (const Memory memory : {Memory::rows, Memory::blocks}) {
    for (const float smoothing : {0.0F, 0.1F}) {
      const Floats whole = run(single(), in, {.memory = memory, .smoothing = smoothing});
      const std::span expected = std::span(whole).first(kRows + in.hidden.size());
      for (const bool frozen : {false, true}) {
        const Floats part = on_all_paths([&](const OpContext& ctx) {
          Floats out(expected.size());
          LinearCrossEntropy args{.hidden = matrix(in.hidden, kRows, kWidth),
                                  .weight = matrix(in.weight, kVocabulary, kWidth),
                                  .targets = in.targets,
                                  .losses = out.data(),
                                  .smoothing = smoothing,
                                  .ignore = -100,
                                  .memory = memory};
          if (frozen) args.dhidden = Matrix(out.data() + kRows, kRows, kWidth);
          REQUIRE(linear_cross_entropy(ctx, args));
          return out;
        });
        const std::size_t size = frozen ? expected.size() : static_cast<std::size_t>(kRows);
        CHECK(same_sums(std::span(part).first(size), expected.first(size)));
        for (const float rest : std::span(part).subspan(size)) CHECK(rest == 0.0F);
      }
    }
  }
}

TEST_CASE(
    "cross entropy: blocks find the top that each was read under, as it rises, falls, is none") {
  Inputs in;
  // Tops of the first block are above those of the second for some rows, below for others.
  for (std::size_t i = 0; i < in.weight.size(); i += 3) in.weight[i] *= 2.0F;
  const auto row = [&](std::size_t r) { return std::span(in.hidden).subspan(r * kWidth, kWidth); };
  std::ranges::fill(row(1), 0.0F);  // all logits are equal
  row(5)[2] = std::numeric_limits<float>::quiet_NaN();
  row(6)[0] = std::numeric_limits<float>::infinity();
  row(8)[7] = 1e37F;
  const auto losses_and_slopes = [&](const OpContext& ctx, Memory memory) {
    Floats out = run(ctx, in, {.memory = memory});
    out.resize(kRows + in.hidden.size());
    return out;
  };
  const Floats rows = losses_and_slopes(single(), Memory::rows);
  const Floats blocks =
      on_all_paths([&](const OpContext& ctx) { return losses_and_slopes(ctx, Memory::blocks); });
  for (std::size_t i = 0; i < rows.size(); ++i) {
    INFO(i);
    const bool none = std::isnan(rows[i]);
    CHECK(std::isnan(blocks[i]) == none);
    if (!none) CHECK(same_bits(std::span(&blocks[i], 1), std::span(&rows[i], 1)));
  }
  CHECK(std::isnan(rows[5]));
  CHECK(std::isfinite(rows[1]));
}

TEST_CASE("cross entropy: memory is of a chunk's logits, or of a block's whatever the vocabulary") {
  if (single().device != nullptr) {
    WARN("skipped: a device has memory of its own");
    return;
  }
  constexpr Index kChunk = 4;
  const Floats hidden = draw(kRows * kWidth, 1);
  const std::vector<std::int32_t> targets(kRows, 3);
  const auto held = [&](Memory memory, Index vocabulary) {
    ThreadPool pool(1);
    const Floats weight = draw(vocabulary * kWidth, 2);
    Floats losses(kRows);
    Floats dhidden(hidden.size());
    Floats dweight(weight.size());
    REQUIRE(linear_cross_entropy({.pool = &pool}, {.hidden = matrix(hidden, kRows, kWidth),
                                                   .weight = matrix(weight, vocabulary, kWidth),
                                                   .targets = targets,
                                                   .losses = losses.data(),
                                                   .dhidden = matrix(dhidden, kRows, kWidth),
                                                   .dweight = matrix(dweight, vocabulary, kWidth),
                                                   .memory = memory,
                                                   .chunk = kChunk}));
    return std::pair(pool.op_scratch().used_max(), pool.scratch(0).used_max());
  };
  constexpr std::size_t kLogits = kRows * kVocabulary * sizeof(float);
  CHECK(held(Memory::rows, kVocabulary).first < kLogits);
  CHECK(held(Memory::rows, kVocabulary).first > kLogits * kChunk / kRows);
  const auto blocks = held(Memory::blocks, kVocabularyBlock);
  CHECK(blocks.first < kLogits / 2);
  for (const Index vocabulary : {kVocabulary, Index{50257}}) {
    INFO(vocabulary);
    const auto more = held(Memory::blocks, vocabulary);
    CHECK(more.first == blocks.first);
    CHECK(more.second == blocks.second);  // of the products' panels
  }
}

TEST_CASE("cross entropy: a scale multiplies gradients exactly, and no loss") {
  const Inputs in;
  for (const float smoothing : {0.0F, 0.1F}) {
    Floats expected = run(single(), in, {.smoothing = smoothing});
    for (std::size_t i = kRows; i < expected.size(); ++i) expected[i] *= 1024.0F;
    const Floats scaled = run(single(), in, {.smoothing = smoothing, .scale = 1024.0F});
    REQUIRE(same_bits(scaled, expected));
  }
}

TEST_CASE("cross entropy: smoothing of one, a positive index to ignore are refused") {
  const Inputs in;
  Floats losses(kRows);
  LinearCrossEntropy args{.hidden = matrix(in.hidden, kRows, kWidth),
                          .weight = matrix(in.weight, kVocabulary, kWidth),
                          .targets = in.targets,
                          .losses = losses.data()};
  REQUIRE_FALSE(linear_cross_entropy(single(), args));  // -100 is no target
  args.ignore = -100;
  args.smoothing = 1.0F;
  REQUIRE_FALSE(linear_cross_entropy(single(), args));
  args.smoothing = 0.0F;
  for (const float scale : {0.0F, 3.0F, -2.0F, std::numeric_limits<float>::infinity()}) {
    args.scale = scale;
    REQUIRE_FALSE(linear_cross_entropy(single(), args));
  }
  args.scale = 1.0F;
  args.ignore = 5;
  REQUIRE_FALSE(linear_cross_entropy(single(), args));
  REQUIRE(losses == Floats(kRows));
}

}  // namespace tutti::kernels::parity
