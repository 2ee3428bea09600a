// Linear + cross-entropy at the demo's head, at GPT-2's and at a 7B model's, beside PyTorch and
// beside the products that it is made of: the ratio is the products' time over the loss's.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/product.h"
#include "ops/bench/kernels_cases.h"

namespace tutti::bench {

using kernels::FloatBuffer;
using kernels::Index;

namespace {

// Rows of logits at a time, where they are made row by row: 51 MB of GPT-2's.
constexpr Index kChunk = 256;

// Uniform numbers of a deviation: hidden rows of 1, as a norm leaves them, and a weight of 0.02, as
// models begin with, give logits of 0.3 to 1.3. Numbers in [-1, 1) would give those of 7B 21, and a
// softmax of them ends in denormal numbers, which no model's does (kernels/lab/denormals.md).
constexpr float kHiddenDeviation = 1.0F;
constexpr float kWeightDeviation = 0.02F;

FloatBuffer numbers_of(const Bench& bench, Index count, std::uint64_t stream, float deviation) {
  FloatBuffer drawn = numbers(bench, count, stream);
  const float factor = deviation * std::sqrt(3.0F);
  for (float& x : drawn.span()) x *= factor;
  return drawn;
}

class Head {
 public:
  Head(const Bench& bench, Index rows, Index width, Index vocabulary)
      : bench_(bench),
        rows_(rows),
        width_(width),
        vocabulary_(vocabulary),
        hidden_(numbers_of(bench, rows * width, 1, kHiddenDeviation)),
        weight_(numbers_of(bench, vocabulary * width, 2, kWeightDeviation)),
        dhidden_(rows * width),
        dweight_(vocabulary * width),
        losses_(rows) {
    for (Index i = 0; i < rows; ++i) {
      targets_.push_back(static_cast<std::int32_t>(i * 37 % vocabulary));
    }
  }

  kernels::LinearCrossEntropy forward(kernels::LinearCrossEntropy::Memory memory) const {
    return {.hidden = hidden_.matrix(rows_, width_),
            .weight = weight_.matrix(vocabulary_, width_),
            .targets = targets_,
            .losses = losses_.data(),
            .memory = memory,
            .chunk = kChunk};
  }
  kernels::LinearCrossEntropy training(kernels::LinearCrossEntropy::Memory memory) const {
    kernels::LinearCrossEntropy args = forward(memory);
    args.dhidden = dhidden_.matrix(rows_, width_);
    args.dweight = dweight_.matrix(vocabulary_, width_);
    return args;
  }

  // Logits chunk by chunk in one place, as the loss has them.
  void product() {
    for (Index row = 0; row < rows_; row += kChunk) logits_of(row);
  }
  // And behind each chunk of them what they would hand on.
  void three_products() {
    for (Index row = 0; row < rows_; row += kChunk) {
      const kernels::Matrix logits = logits_of(row);
      TUTTI_ASSERT(product_nn(bench_.ctx, {.left = logits,
                                           .right = weight_.matrix(vocabulary_, width_),
                                           .output = rows_of(dhidden_, row, logits.rows)}));
      TUTTI_ASSERT(product_tn(bench_.ctx, {.left = logits,
                                           .right = rows_of(hidden_, row, logits.rows),
                                           .output = dweight_.matrix(vocabulary_, width_),
                                           .start = row > 0 ? kernels::ChainStart::output
                                                            : kernels::ChainStart::zero}));
    }
  }
  double product_flops() const { return 2.0 * static_cast<double>(rows_ * width_ * vocabulary_); }

 private:
  kernels::Matrix rows_of(const FloatBuffer& buffer, Index first, Index count) const {
    return {buffer.data() + first * width_, count, width_};
  }
  kernels::Matrix logits_of(Index row) {
    if (logits_.size() == 0) logits_ = FloatBuffer(kChunk * vocabulary_);
    const Index count = std::min(kChunk, rows_ - row);
    const kernels::Matrix logits = logits_.matrix(count, vocabulary_);
    TUTTI_ASSERT(product_nt(bench_.ctx, {.left = rows_of(hidden_, row, count),
                                         .right = weight_.matrix(vocabulary_, width_),
                                         .output = logits}));
    return logits;
  }

  const Bench& bench_;
  Index rows_, width_, vocabulary_;
  FloatBuffer hidden_, weight_, dhidden_, dweight_, losses_, logits_;
  std::vector<std::int32_t> targets_;
};

}  // namespace

void bench_losses(const Bench& bench) {
  struct Model {
    const char* name;
    Index rows, width, vocabulary;
  };
  using Memory = kernels::LinearCrossEntropy::Memory;
  for (const Model& m : {Model{"demo", 2048, 192, 2048}, Model{"gpt2", 1024, 768, 50257},
                         Model{"7b", 128, 4096, 32000}}) {
    const std::string shape = fmt::format("{} {} {}", m.rows, m.width, m.vocabulary);
    const auto name = [&](const char* pass, Memory memory) {
      return fmt::format("{} linear cross entropy {}, {} of {} rows, {}", m.name, pass,
                         memory == Memory::rows ? "chunks" : "blocks", kChunk, shape);
    };
    if (!wanted(bench, name("forward", Memory::rows)) &&
        !wanted(bench, name("forward", Memory::blocks)) &&
        !wanted(bench, name("training", Memory::rows)) &&
        !wanted(bench, name("training", Memory::blocks))) {
      continue;
    }
    Head head(bench, m.rows, m.width, m.vocabulary);
    for (const Memory memory : {Memory::rows, Memory::blocks}) {
      const auto forward = head.forward(memory);
      const auto training = head.training(memory);
      const Case inference{.name = name("forward", memory), .flops = head.product_flops()};
      const Case step{.name = name("training", memory), .flops = 3.0 * head.product_flops()};
      const Run run_forward = [&] { TUTTI_ASSERT(linear_cross_entropy(bench.ctx, forward)); };
      const Run run_training = [&] { TUTTI_ASSERT(linear_cross_entropy(bench.ctx, training)); };
      const bool beside_torch = memory == Memory::rows;
      const auto torch = [&](const char* mode) {
        return beside_torch ? fmt::format("linear_cross_entropy {} {}", shape, mode) : "";
      };
      bench_beside(bench, inference, torch("forward"), run_forward,
                   {{"the product alone", [&] { head.product(); }}});
      bench_beside(bench, step, torch("training"), run_training,
                   {{"three products", [&] { head.three_products(); }}});
    }
  }
}

}  // namespace tutti::bench
