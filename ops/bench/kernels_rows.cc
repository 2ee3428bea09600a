// Row ops and conversions over 25 million numbers, each run from other memory, as a share of the
// memory ceiling and beside PyTorch where it has them; and those of the demo's layers, which lie in
// a cache.
#include <fmt/core.h>

#include <string>
#include <vector>

#include "kernels/ops/add.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/elementwise/bf16.h"
#include "kernels/ops/elementwise/dropout.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/elementwise/softmax.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/ops/product.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/rotary.h"
#include "kernels/ops/silu_gate.h"
#include "kernels/tensor/op_counters.h"
#include "ops/bench/kernels_cases.h"
#include "ops/bench/kernels_operands.h"

namespace tutti::bench {

using kernels::Activation;
using kernels::FloatBuffer;
using kernels::Index;
using kernels::Matrix;

namespace {

// Bytes of an element that an op reads and writes.
struct Traffic {
  double read, written;
};

// Where operands lie; of what lies in a cache there is no share.
enum class Place { memory, cache };

class Rows {
 public:
  Rows(const Bench& bench, Operands& operands, Index rows, Index columns,
       Place place = Place::memory)
      : bench_(bench), operands_(operands), rows_(rows), columns_(columns), place_(place) {}

  void row(const std::string& name, const std::string& torch_case, const Traffic& traffic,
           const Run& run) {
    const double size = static_cast<double>(rows_ * columns_);
    const double bytes = (traffic.read + traffic.written) * size;
    bench_beside(bench_,
                 {.name = fmt::format("{} {}x{}", name, rows_, columns_),
                  .bytes = bytes,
                  .written = traffic.written * size,
                  .sets = place_ == Place::memory ? sets_beyond_caches(bytes) : 1},
                 torch_case.empty() ? "" : fmt::format("{} {} {}", torch_case, rows_, columns_),
                 run);
  }
  // A matrix to read and one to write, others each time.
  Matrix in() { return operands_.in().matrix(rows_, columns_); }
  Matrix out() { return operands_.out().matrix(rows_, columns_); }
  std::span<float> in_span() { return span(operands_.in()); }
  std::span<float> out_span() { return span(operands_.out()); }

  const Bench& bench() const { return bench_; }
  Index rows() const { return rows_; }
  Index columns() const { return columns_; }

 private:
  std::span<float> span(const FloatBuffer& buffer) const {
    return buffer.span().first(static_cast<std::size_t>(rows_ * columns_));
  }

  const Bench& bench_;
  Operands& operands_;
  Index rows_, columns_;
  Place place_;
};

void bench_silu_gate(Rows& r) {
  const kernels::OpContext& ctx = r.bench().ctx;
  r.row("silu gate forward", "silu_gate_forward", {8, 4}, [&] {
    TUTTI_ASSERT(silu_gate_forward(ctx, {.gate = r.in(), .up = r.in(), .y = r.out()}));
  });
  r.row("silu gate backward", "silu_gate_backward", {12, 8}, [&] {
    TUTTI_ASSERT(silu_gate_backward(
        ctx, {.dy = r.in(), .gate = r.in(), .up = r.in(), .dgate = r.out(), .dup = r.out()}));
  });
}

void bench_activations(Rows& r) {
  const kernels::OpContext& ctx = r.bench().ctx;
  struct Kind {
    Activation kind;
    const char* name;
    const char* torch;
  };
  for (const Kind& k : {Kind{Activation::gelu, "gelu", "gelu"},
                        Kind{Activation::gelu_tanh, "gelu tanh", "gelu_tanh"}}) {
    r.row(std::string(k.name) + " forward", std::string(k.torch) + "_forward", {4, 4}, [&] {
      TUTTI_ASSERT(activation_forward(ctx, {k.kind, r.in(), r.out()}));
    });
    r.row(std::string(k.name) + " backward", std::string(k.torch) + "_backward", {8, 4}, [&] {
      TUTTI_ASSERT(activation_backward(ctx, {k.kind, r.in(), r.in(), r.out()}));
    });
  }
  r.row("gate forward", "gelu_gate_forward", {8, 4}, [&] {
    TUTTI_ASSERT(gate_forward(ctx, {Activation::gelu_tanh, r.in(), r.in(), r.out()}));
  });
  r.row("gate backward", "gelu_gate_backward", {12, 8}, [&] {
    TUTTI_ASSERT(
        gate_backward(ctx, {Activation::gelu_tanh, r.in(), r.in(), r.in(), r.out(), r.out()}));
  });
  bench_silu_gate(r);
}

void bench_softmax(Rows& r) {
  const kernels::OpContext& ctx = r.bench().ctx;
  r.row("softmax forward", "softmax_forward", {4, 4}, [&] {
    TUTTI_ASSERT(softmax_forward(ctx, {r.in(), r.out()}));
  });
  r.row("softmax backward", "softmax_backward", {8, 4}, [&] {
    TUTTI_ASSERT(softmax_backward(ctx, {r.in(), r.in(), r.out()}));
  });
}

void bench_log_softmax(Rows& r) {
  r.row("log softmax", "log_softmax_forward", {4, 4},
        [&] { TUTTI_ASSERT(log_softmax(r.bench().ctx, r.in(), r.out())); });
}

void bench_norms(Rows& r) {
  const kernels::OpContext& ctx = r.bench().ctx;
  const FloatBuffer weight(r.columns());
  const FloatBuffer dweight(r.columns());
  const FloatBuffer mean(r.rows());
  const FloatBuffer inverse(r.rows());
  r.row("layer norm forward", "layer_norm_forward", {4, 4}, [&] {
    TUTTI_ASSERT(layer_norm_forward(ctx, {.x = r.in(),
                                          .weight = weight.data(),
                                          .bias = weight.data(),
                                          .y = r.out(),
                                          .mean = mean.data(),
                                          .inverse = inverse.data()}));
  });
  r.row("layer norm backward", "layer_norm_backward", {8, 4}, [&] {
    TUTTI_ASSERT(layer_norm_backward(ctx, {.dy = r.in(),
                                           .x = r.in(),
                                           .weight = weight.data(),
                                           .mean = mean.data(),
                                           .inverse = inverse.data(),
                                           .dx = r.out(),
                                           .dweight = dweight.data()}));
  });
  r.row("rms norm forward", "rms_norm_forward", {4, 4}, [&] {
    TUTTI_ASSERT(rms_norm_forward(
        ctx, {.x = r.in(), .weight = weight.data(), .y = r.out(), .inverse = inverse.data()}));
  });
  r.row("rms norm backward", "rms_norm_backward", {8, 4}, [&] {
    TUTTI_ASSERT(rms_norm_backward(ctx, {.dy = r.in(),
                                         .x = r.in(),
                                         .weight = weight.data(),
                                         .inverse = inverse.data(),
                                         .dx = r.out(),
                                         .dweight = dweight.data()}));
  });
  r.row("column sums", "column_sums", {4, 0},
        [&] { TUTTI_ASSERT(column_sums(ctx, {.x = r.in(), .output = dweight.data()})); });
  bench_softmax(r);
}

// What is the same for rows of any width.
void bench_elements(Rows& r) {
  const kernels::OpContext& ctx = r.bench().ctx;
  const auto halves = [&](std::span<float> memory) {
    return std::span<kernels::Bf16>(reinterpret_cast<kernels::Bf16*>(memory.data()), memory.size());
  };
  bench_log_softmax(r);
  r.row("dropout", "dropout", {4, 4}, [&] {
    TUTTI_ASSERT(dropout(ctx, {{1, 2}, 0, 0.1, r.in(), r.out()}));
  });
  // The gradient takes the same draws.
  r.row("dropout backward", "dropout_backward", {4, 4}, [&] {
    TUTTI_ASSERT(dropout(ctx, {{1, 2}, 0, 0.1, r.in(), r.out()}));
  });
  r.row("to bf16 nearest", "to_bf16", {4, 2},
        [&] { TUTTI_ASSERT(to_bf16(ctx, r.in_span(), halves(r.out_span()))); });
  r.row("to bf16 stochastic", "", {4, 2}, [&] {
    TUTTI_ASSERT(to_bf16_stochastic(ctx, {{1, 2}, 0, r.in_span(), halves(r.out_span())}));
  });
  r.row("from bf16", "from_bf16", {2, 4},
        [&] { TUTTI_ASSERT(from_bf16(ctx, halves(r.in_span()), r.out_span())); });
  r.row("add into", "add_into", {8, 4},
        [&] { TUTTI_ASSERT(add_into(ctx, r.out_span(), r.in_span())); });
  r.row("tree sum of 4", "sum_of_4", {16, 4}, [&] {
    const std::span<const float> parts[] = {r.in_span(), r.in_span(), r.in_span(), r.in_span()};
    TUTTI_ASSERT(tree_sum(ctx, {parts, r.out_span()}));
  });
}

void bench_rotary(Rows& r, Index head_width) {
  const Index half = head_width / 2;
  const FloatBuffer cosine = numbers(r.bench(), r.rows() * half, 2);
  const FloatBuffer sine = numbers(r.bench(), r.rows() * half, 3);
  r.row(fmt::format("rotary, heads of {},", head_width), fmt::format("rotary {}", head_width),
        {4, 4}, [&] {
          TUTTI_ASSERT(rotary_apply(r.bench().ctx, {.x = r.out(),
                                                    .head_width = head_width,
                                                    .cosine = cosine.matrix(r.rows(), half),
                                                    .sine = sine.matrix(r.rows(), half)}));
        });
}

// Of the demo's layers: in a cache, as its step finds most of them.
void bench_demo_rows(const Bench& bench) {
  constexpr Index kTokens = 2048;
  Operands operands(kTokens * 512, 3);
  Rows width(bench, operands, kTokens, 192, Place::cache);
  bench_norms(width);
  bench_rotary(width, 32);
  Rows wide(bench, operands, kTokens, 512, Place::cache);
  bench_activations(wide);
  bench_elements(wide);
}

}  // namespace

void bench_large_rows(const Bench& bench) {
  constexpr Index kElements = Index{8192} * 3072;
  Operands operands(kElements);
  for (const Index width : {3072, 768, 4096}) {
    Rows rows(bench, operands, kElements / width, width);
    bench_norms(rows);
    bench_rotary(rows, width == 768 ? 64 : 128);
    if (width != 3072) continue;
    bench_activations(rows);
    bench_elements(rows);
  }
  // What else a 7B layer has, and rows of logits: of GPT-2's vocabulary, and of Llama's.
  Rows wide(bench, operands, kElements / 11008, 11008);
  bench_silu_gate(wide);
  for (const Index vocabulary : {50257, 32000}) {
    Rows logits(bench, operands, kElements / vocabulary, vocabulary);
    bench_softmax(logits);
    bench_log_softmax(logits);
  }
  bench_demo_rows(bench);
  bench_beside(bench, {.name = "op counters, 1000 calls"}, "", [] {
    for (int i = 0; i < 1000; ++i) const kernels::OpTimer timer(kernels::Op::add_into);
  });
}

}  // namespace tutti::bench
