// Row ops, conversions and optimizers at the shapes of the demo and of GPT-2 124M, as a share of
// the memory ceiling, beside PyTorch where it has them.
#include <fmt/core.h>

#include <array>
#include <vector>

#include "kernels/ops/add.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/elementwise/bf16.h"
#include "kernels/ops/elementwise/clear.h"
#include "kernels/ops/elementwise/dropout.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/elementwise/softmax.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/ops/optimizers/adafactor.h"
#include "kernels/ops/optimizers/adamw8.h"
#include "kernels/ops/optimizers/lion.h"
#include "kernels/ops/optimizers/muon.h"
#include "kernels/ops/optimizers/schedule_free.h"
#include "kernels/ops/optimizers/sgd.h"
#include "kernels/ops/product.h"
#include "kernels/ops/random.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/silu_gate.h"
#include "kernels/tensor/op_counters.h"
#include "ops/bench/kernels_cases.h"

namespace tutti::bench {

using kernels::Activation;
using kernels::FloatBuffer;
using kernels::Index;
using kernels::Matrix;

namespace {

// Large enough that no cache of a usual machine holds it.
constexpr Index kTokens = 8192;
constexpr Index kWidth = 3072;

void beside(const Bench& bench, const std::string& name, const std::string& peer, Index bytes,
            const std::function<void()>& run) {
  bench_beside(bench,
               {.name = fmt::format("{} {}x{}", name, kTokens, kWidth),
                .peer_case = peer.empty() ? "" : fmt::format("{} {} {}", peer, kTokens, kWidth),
                .bytes = static_cast<double>(bytes * kTokens * kWidth)},
               run);
}

void bench_activations(const Bench& bench, const std::array<Matrix, 4>& m) {
  const FloatBuffer more(kTokens * kWidth);
  struct Kind {
    Activation kind;
    const char* name;
    const char* peer;
  };
  for (const Kind& k : {Kind{Activation::gelu, "gelu", "gelu"},
                        Kind{Activation::gelu_tanh, "gelu tanh", "gelu_tanh"}}) {
    beside(bench, std::string(k.name) + " forward", std::string(k.peer) + "_forward", 8, [&] {
      TUTTI_ASSERT(activation_forward(bench.ctx, {k.kind, m[0], m[1]}));
    });
    beside(bench, std::string(k.name) + " backward", std::string(k.peer) + "_backward", 12, [&] {
      TUTTI_ASSERT(activation_backward(bench.ctx, {k.kind, m[0], m[1], m[2]}));
    });
  }
  beside(bench, "gate forward", "", 12, [&] {
    TUTTI_ASSERT(gate_forward(bench.ctx, {Activation::gelu_tanh, m[0], m[1], m[2]}));
  });
  const Matrix last(more.data(), kTokens, kWidth);
  beside(bench, "gate backward", "", 20, [&] {
    TUTTI_ASSERT(gate_backward(bench.ctx, {Activation::gelu_tanh, m[0], m[1], m[2], m[3], last}));
  });
  beside(bench, "silu gate forward", "silu_gate_forward", 12, [&] {
    TUTTI_ASSERT(silu_gate_forward(bench.ctx, {.gate = m[0], .up = m[1], .y = m[2]}));
  });
  beside(bench, "silu gate backward", "silu_gate_backward", 20, [&] {
    TUTTI_ASSERT(silu_gate_backward(
        bench.ctx, {.dy = m[0], .gate = m[1], .up = m[2], .dgate = m[3], .dup = last}));
  });
}

void bench_norms(const Bench& bench, const std::array<Matrix, 4>& m) {
  const FloatBuffer weight(kWidth);
  const FloatBuffer mean(kTokens);
  const FloatBuffer inverse(kTokens);
  beside(bench, "layer norm forward", "layer_norm_forward", 8, [&] {
    TUTTI_ASSERT(layer_norm_forward(bench.ctx, {.x = m[0],
                                                .weight = weight.data(),
                                                .bias = weight.data(),
                                                .y = m[1],
                                                .mean = mean.data(),
                                                .inverse = inverse.data()}));
  });
  const FloatBuffer dweight(kWidth);
  beside(bench, "layer norm backward", "layer_norm_backward", 12, [&] {
    TUTTI_ASSERT(layer_norm_backward(bench.ctx, {.dy = m[0],
                                                 .x = m[1],
                                                 .weight = weight.data(),
                                                 .mean = mean.data(),
                                                 .inverse = inverse.data(),
                                                 .dx = m[2],
                                                 .dweight = dweight.data()}));
  });
  beside(bench, "rms norm forward", "rms_norm_forward", 8, [&] {
    TUTTI_ASSERT(rms_norm_forward(
        bench.ctx, {.x = m[0], .weight = weight.data(), .y = m[1], .inverse = inverse.data()}));
  });
  beside(bench, "rms norm backward", "rms_norm_backward", 12, [&] {
    TUTTI_ASSERT(rms_norm_backward(bench.ctx, {.dy = m[0],
                                               .x = m[1],
                                               .weight = weight.data(),
                                               .inverse = inverse.data(),
                                               .dx = m[2],
                                               .dweight = dweight.data()}));
  });
  beside(bench, "column sums", "column_sums", 4,
         [&] { TUTTI_ASSERT(column_sums(bench.ctx, {.x = m[0], .output = dweight.data()})); });
  beside(bench, "log softmax", "log_softmax_forward", 8,
         [&] { TUTTI_ASSERT(log_softmax(bench.ctx, m[0], m[1])); });
  beside(bench, "softmax forward", "softmax_forward", 8, [&] {
    TUTTI_ASSERT(softmax_forward(bench.ctx, {m[0], m[1]}));
  });
  beside(bench, "softmax backward", "softmax_backward", 12, [&] {
    TUTTI_ASSERT(softmax_backward(bench.ctx, {m[0], m[1], m[2]}));
  });
  beside(bench, "dropout", "", 8, [&] {
    TUTTI_ASSERT(dropout(bench.ctx, {{1, 2}, 0, 0.1, m[0], m[1]}));
  });
}

void bench_conversions(const Bench& bench, const std::array<Matrix, 4>& m) {
  const std::span<float> from(m[0].data, static_cast<std::size_t>(kTokens * kWidth));
  const std::span<kernels::Bf16> to(reinterpret_cast<kernels::Bf16*>(m[1].data), from.size());
  beside(bench, "to bf16 nearest", "", 6, [&] { TUTTI_ASSERT(to_bf16(bench.ctx, from, to)); });
  beside(bench, "to bf16 stochastic", "", 6, [&] {
    TUTTI_ASSERT(to_bf16_stochastic(bench.ctx, {{1, 2}, 0, from, to}));
  });
  beside(bench, "from bf16", "", 6, [&] { TUTTI_ASSERT(from_bf16(bench.ctx, to, from)); });
  const std::span<float> other(m[2].data, from.size());
  beside(bench, "add into", "", 12, [&] { TUTTI_ASSERT(add_into(bench.ctx, from, other)); });
  const std::span<const float> parts[] = {from, other, {m[3].data, from.size()}, from};
  beside(bench, "tree sum of 4", "", 16, [&] {
    TUTTI_ASSERT(tree_sum(bench.ctx, {parts, {m[1].data, from.size()}}));
  });
  std::vector<double> sums(static_cast<std::size_t>(kernels::grid_blocks(kTokens * kWidth)));
  beside(bench, "square sums", "", 4, [&] { TUTTI_ASSERT(square_sums(bench.ctx, from, sums)); });
}

void bench_optimizers(const Bench& bench, const std::array<Matrix, 4>& m) {
  const auto size = static_cast<std::size_t>(kTokens * kWidth);
  const auto span = [&](std::size_t i) { return std::span<float>(m[i].data, size); };
  std::vector<kernels::Hash128> hashes(
      static_cast<std::size_t>(kernels::grid_blocks(kTokens * kWidth)));
  const std::string count = std::to_string(size);
  const auto row = [&](const char* name, const char* peer, double bytes,
                       const std::function<void()>& run) {
    bench_beside(bench,
                 {.name = std::string(name) + " " + count,
                  .peer_case = *peer == '\0' ? "" : peer + (" " + count),
                  .bytes = bytes * static_cast<double>(size)},
                 run);
  };
  for (const bool hashed : {false, true}) {
    const std::span<kernels::Hash128> wanted =
        hashed ? std::span(hashes) : std::span<kernels::Hash128>();
    row(hashed ? "adamw with hash" : "adamw", "adamw", 28, [&] {
      TUTTI_ASSERT(adamw_update(bench.ctx, {{}, span(0), span(1), span(2), span(3), wanted}));
    });
  }
  row("sgd", "sgd", 20, [&] {
    TUTTI_ASSERT(sgd_update(bench.ctx, {{}, span(0), span(1), span(2)}));
  });
  row("lion", "", 20, [&] {
    TUTTI_ASSERT(lion_update(bench.ctx, {{}, span(0), span(1), span(2)}));
  });
  row("schedule-free", "", 28, [&] {
    TUTTI_ASSERT(schedule_free_update(bench.ctx, {{}, span(0), span(1), span(2), span(3)}));
  });
  row("schedule-free average", "", 12, [&] {
    TUTTI_ASSERT(schedule_free_average(bench.ctx, {0.9, span(0), span(1), span(2)}));
  });
  row("clear", "", 4, [&] { TUTTI_ASSERT(clear(bench.ctx, span(3))); });
  row("fill uniform", "", 4, [&] {
    TUTTI_ASSERT(
        fill_uniform(bench.ctx, {.key = {1, 1}, .low = -1.0, .high = 1.0, .out = span(3)}));
  });
  row("fill normal", "", 4, [&] {
    TUTTI_ASSERT(fill_normal(bench.ctx, {.key = {1, 1}, .out = span(3)}));
  });
  const auto blocks = kernels::state8_blocks(kTokens * kWidth);
  std::vector<std::int8_t> first(size);
  std::vector<std::uint8_t> second(size);
  const FloatBuffer scales(2 * blocks);
  row("adamw8", "", 16, [&] {
    TUTTI_ASSERT(adamw8_update(bench.ctx, {{},
                                           span(0),
                                           span(1),
                                           first,
                                           second,
                                           scales.span().first(static_cast<std::size_t>(blocks)),
                                           scales.span().last(static_cast<std::size_t>(blocks))}));
  });
  const FloatBuffer states(kTokens + kWidth);
  row("adafactor", "", 20, [&] {
    TUTTI_ASSERT(adafactor_update(
        bench.ctx, {{}, m[0], m[1], states.span().first(kTokens), states.span().last(kWidth)}));
  });
  constexpr Index kSide = 768;
  const Matrix weight(m[0].data, kSide, kSide);
  const Matrix gradient(m[1].data, kSide, kSide);
  const Matrix velocity(m[2].data, kSide, kSide);
  bench_beside(bench, {.name = "muon 768x768", .flops = 5.0 * 3.0 * 2.0 * 768.0 * 768.0 * 768.0},
               [&] {
                 TUTTI_ASSERT(muon_update(bench.ctx, {{}, weight, gradient, velocity}));
               });
}

// GPT-2's head over 1,024 tokens in both forms; forward alone, and training.
void bench_losses(const Bench& bench) {
  constexpr Index kRows = 1024;
  constexpr Index kC = 768;
  constexpr Index kVocabulary = 50257;
  using Memory = kernels::LinearCrossEntropy::Memory;
  const FloatBuffer hidden = numbers(bench, kRows * kC, 1);
  const FloatBuffer weight = numbers(bench, kVocabulary * kC, 2);
  const FloatBuffer dhidden(kRows * kC);
  const FloatBuffer dweight(kVocabulary * kC);
  const FloatBuffer losses(kRows);
  std::vector<std::int32_t> targets;
  for (std::int32_t i = 0; i < kRows; ++i) targets.push_back(i * 37 % 50257);
  kernels::LinearCrossEntropy args{.hidden = hidden.matrix(kRows, kC),
                                   .weight = weight.matrix(kVocabulary, kC),
                                   .targets = targets,
                                   .losses = losses.data()};
  const double product = 2.0 * kRows * kC * static_cast<double>(kVocabulary);
  // As it is, and padded to whole tiles (train.pad_vocabulary).
  for (const Index outputs : {kVocabulary, Index{50304}}) {
    const FloatBuffer head = numbers(bench, outputs * kC, 2);
    const FloatBuffer logits(kRows * outputs);
    bench_beside(bench,
                 {.name = fmt::format("gpt2 head nt 1024x{}x768", outputs),
                  .peer_case = fmt::format("product nt 1024 {} 768", outputs),
                  .flops = 2.0 * kRows * kC * static_cast<double>(outputs)},
                 [&] {
                   TUTTI_ASSERT(product_nt(bench.ctx, {.left = args.hidden,
                                                       .right = head.matrix(outputs, kC),
                                                       .output = logits.matrix(kRows, outputs)}));
                 });
  }
  for (const Memory memory : {Memory::rows, Memory::blocks}) {
    args.memory = memory;
    const char* const form = memory == Memory::rows ? "rows" : "blocks";
    args.dhidden = args.dweight = {};
    bench_beside(bench,
                 {.name = fmt::format("linear cross entropy forward, {}, 1024 768 50257", form),
                  .peer_case = "linear_cross_entropy 1024 768 50257 forward",
                  .flops = product},
                 [&] { TUTTI_ASSERT(linear_cross_entropy(bench.ctx, args)); });
    args.dhidden = dhidden.matrix(kRows, kC);
    args.dweight = dweight.matrix(kVocabulary, kC);
    bench_beside(bench,
                 {.name = fmt::format("linear cross entropy training, {}, 1024 768 50257", form),
                  .peer_case = "linear_cross_entropy 1024 768 50257 training",
                  .flops = 3.0 * product},
                 [&] { TUTTI_ASSERT(linear_cross_entropy(bench.ctx, args)); });
  }
}

}  // namespace

void bench_large_rows(const Bench& bench) {
  std::vector<FloatBuffer> buffers;
  for (std::uint64_t i = 0; i < 4; ++i) buffers.emplace_back(kTokens * kWidth);
  std::array<Matrix, 4> m;
  for (std::size_t i = 0; i < 4; ++i) {
    m[i] = buffers[i].matrix(kTokens, kWidth);
    for (Index j = 0; j < kTokens * kWidth; ++j) {
      m[i].data[j] = static_cast<float>(j * 7919 % 1000) * 1e-3F;
    }
  }
  bench_activations(bench, m);
  bench_norms(bench, m);
  bench_conversions(bench, m);
  bench_optimizers(bench, m);
  bench_losses(bench);
  bench_beside(bench, {.name = "op counters, 1000 calls"}, [] {
    for (int i = 0; i < 1000; ++i) const kernels::OpTimer timer(kernels::Op::add_into);
  });
}

}  // namespace tutti::bench
