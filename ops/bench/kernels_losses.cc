// Linear + cross-entropy at the demo's head, at GPT-2's and at a 7B model's, beside PyTorch and
// beside the products that it is made of: the ratio is the products' time over the loss's.
#include <fmt/core.h>

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

class Head {
 public:
  Head(const Bench& bench, Index rows, Index width, Index vocabulary)
      : bench_(bench),
        rows_(rows),
        width_(width),
        vocabulary_(vocabulary),
        hidden_(numbers(bench, rows * width, 1)),
        weight_(numbers(bench, vocabulary * width, 2)),
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

  // Logits of all rows, then what they would hand on.
  void product() {
    if (logits_.size() == 0) logits_ = FloatBuffer(rows_ * vocabulary_);
    TUTTI_ASSERT(product_nt(bench_.ctx, {.left = hidden_.matrix(rows_, width_),
                                         .right = weight_.matrix(vocabulary_, width_),
                                         .output = logits_.matrix(rows_, vocabulary_)}));
  }
  void three_products() {
    product();
    TUTTI_ASSERT(product_nn(bench_.ctx, {.left = logits_.matrix(rows_, vocabulary_),
                                         .right = weight_.matrix(vocabulary_, width_),
                                         .output = dhidden_.matrix(rows_, width_)}));
    TUTTI_ASSERT(product_tn(bench_.ctx, {.left = logits_.matrix(rows_, vocabulary_),
                                         .right = hidden_.matrix(rows_, width_),
                                         .output = dweight_.matrix(vocabulary_, width_)}));
  }
  double product_flops() const { return 2.0 * static_cast<double>(rows_ * width_ * vocabulary_); }

 private:
  const Bench& bench_;
  Index rows_, width_, vocabulary_;
  FloatBuffer hidden_, weight_, dhidden_, dweight_, losses_, logits_;
  std::vector<std::int32_t> targets_;
};

// GPT-2's logits as they are, and padded to whole tiles (train.pad_vocabulary).
void bench_heads(const Bench& bench) {
  constexpr Index kRows = 1024;
  constexpr Index kWidth = 768;
  for (const Index outputs : {50257, 50304}) {
    const Case c{.name = fmt::format("gpt2 head nt {}x{}x{}", kRows, outputs, kWidth),
                 .flops = 2.0 * static_cast<double>(kRows * kWidth * outputs)};
    if (!wanted(bench, c.name)) continue;
    const FloatBuffer hidden = numbers(bench, kRows * kWidth, 1);
    const FloatBuffer head = numbers(bench, outputs * kWidth, 2);
    const FloatBuffer logits(kRows * outputs);
    bench_beside(bench, c, fmt::format("product nt {} {} {}", kRows, outputs, kWidth), [&] {
      TUTTI_ASSERT(product_nt(bench.ctx, {.left = hidden.matrix(kRows, kWidth),
                                          .right = head.matrix(outputs, kWidth),
                                          .output = logits.matrix(kRows, outputs)}));
    });
  }
}

}  // namespace

void bench_losses(const Bench& bench) {
  bench_heads(bench);
  struct Model {
    const char* name;
    Index rows, width, vocabulary;
    bool quick = true;
  };
  using Memory = kernels::LinearCrossEntropy::Memory;
  for (const Model& m : {Model{"demo", 2048, 192, 2048}, Model{"gpt2", 1024, 768, 50257},
                         Model{"7b", 256, 4096, 32000, false}}) {
    if (!m.quick && !takes_its_time(bench)) continue;
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
      bench_beside(bench, inference, run_forward, {{"the product alone", [&] { head.product(); }}});
      bench_beside(bench, step, run_training, {{"three products", [&] { head.three_products(); }}});
      if (memory == Memory::blocks) continue;
      bench_beside(bench, inference, "linear_cross_entropy " + shape + " forward", run_forward);
      bench_beside(bench, step, "linear_cross_entropy " + shape + " training", run_training);
    }
  }
}

}  // namespace tutti::bench
