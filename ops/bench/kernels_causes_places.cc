// What misses of ops are made of that are not products: the same op with its operands in the second
// cache and from memory, which says whether arithmetic or memory bounds it, and parts of attention
// and of the loss beside the whole.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/loss/row_log_sum.h"
#include "kernels/cpu/product/pack.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/elementwise/dropout.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/elementwise/softmax.h"
#include "kernels/ops/product.h"
#include "kernels/ops/product_batched.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/silu_gate.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "ops/bench/kernels_cases.h"
#include "ops/bench/kernels_operands.h"
#include "ops/bench/kernels_shapes.h"

namespace tutti::bench {

using kernels::FloatBuffer;
using kernels::Index;
using kernels::Matrix;

namespace {

// Rows of a run, of which a second cache holds two to read and two to write, and runs of a sample.
constexpr Index kPieceRows = 32;
constexpr Index kPieceColumns = 768;
constexpr int kPieces = 8;

// Pieces of one buffer in turns: what is read stays as it was made.
class Place {
 public:
  Place(const Bench& bench, Index count)
      : in_(numbers(bench, count * kPiece, 1)), out_(count * kPiece), turns_(count) {}

  Matrix in() { return piece(in_); }
  Matrix out() { return piece(out_); }

 private:
  static constexpr Index kPiece = kPieceRows * kPieceColumns;
  Matrix piece(const FloatBuffer& buffer) {
    return {buffer.data() + static_cast<Index>(turns_.next()) * kPiece, kPieceRows, kPieceColumns};
  }

  FloatBuffer in_, out_;
  Turns turns_;
};

using RowOp = std::function<void(Place&)>;

struct Places {
  const Bench& bench;
  Place cache;
  Place memory;

  explicit Places(const Bench& b)
      : bench(b),
        cache(b, 2),
        memory(b, sets_beyond_caches(4.0 * static_cast<double>(kPieceRows * kPieceColumns))) {}

  // `operands`: matrices that the op reads and writes.
  void row(const char* name, int operands, const RowOp& op) {
    const auto all = [&op](Place& place) {
      for (int i = 0; i < kPieces; ++i) op(place);
    };
    const double bytes = 4.0 * static_cast<double>(kPieces * kPieceRows * kPieceColumns);
    bench_beside(bench,
                 cause_case(fmt::format("{} {} of {}x{} in the second cache", name, kPieces,
                                        kPieceRows, kPieceColumns),
                            0.0, bytes * operands),
                 [&] { all(cache); }, {{"from memory", [&] { all(memory); }}});
  }
};

void bench_norm_places(Places& places) {
  const kernels::OpContext& ctx = places.bench.ctx;
  const FloatBuffer weight = numbers(places.bench, kPieceColumns, 3);
  const FloatBuffer dweight(kPieceColumns);
  const FloatBuffer mean(kPieceRows);
  const FloatBuffer inverse(kPieceRows);
  places.row("layer norm forward", 2, [&](Place& p) {
    TUTTI_ASSERT(layer_norm_forward(ctx, {.x = p.in(),
                                          .weight = weight.data(),
                                          .bias = weight.data(),
                                          .y = p.out(),
                                          .mean = mean.data(),
                                          .inverse = inverse.data()}));
  });
  places.row("layer norm backward", 3, [&](Place& p) {
    TUTTI_ASSERT(layer_norm_backward(ctx, {.dy = p.in(),
                                           .x = p.in(),
                                           .weight = weight.data(),
                                           .mean = mean.data(),
                                           .inverse = inverse.data(),
                                           .dx = p.out(),
                                           .dweight = dweight.data()}));
  });
  places.row("rms norm forward", 2, [&](Place& p) {
    TUTTI_ASSERT(rms_norm_forward(
        ctx, {.x = p.in(), .weight = weight.data(), .y = p.out(), .inverse = inverse.data()}));
  });
  places.row("rms norm backward", 3, [&](Place& p) {
    TUTTI_ASSERT(rms_norm_backward(ctx, {.dy = p.in(),
                                         .x = p.in(),
                                         .weight = weight.data(),
                                         .inverse = inverse.data(),
                                         .dx = p.out(),
                                         .dweight = dweight.data()}));
  });
}

void bench_row_places(const Bench& bench) {
  using kernels::Activation;
  const kernels::OpContext& ctx = bench.ctx;
  Places places(bench);
  for (const auto& [kind, name] :
       {std::pair{Activation::gelu, "gelu"}, std::pair{Activation::gelu_tanh, "gelu tanh"}}) {
    places.row(fmt::format("{} forward", name).c_str(), 2, [&](Place& p) {
      TUTTI_ASSERT(activation_forward(ctx, {kind, p.in(), p.out()}));
    });
    places.row(fmt::format("{} backward", name).c_str(), 3, [&](Place& p) {
      TUTTI_ASSERT(activation_backward(ctx, {kind, p.in(), p.in(), p.out()}));
    });
  }
  places.row("silu gate forward", 3, [&](Place& p) {
    TUTTI_ASSERT(silu_gate_forward(ctx, {.gate = p.in(), .up = p.in(), .y = p.out()}));
  });
  places.row("silu gate backward", 5, [&](Place& p) {
    TUTTI_ASSERT(silu_gate_backward(
        ctx, {.dy = p.in(), .gate = p.in(), .up = p.in(), .dgate = p.out(), .dup = p.out()}));
  });
  places.row("dropout", 2, [&](Place& p) {
    TUTTI_ASSERT(dropout(ctx, {{1, 2}, 0, 0.1, p.in(), p.out()}));
  });
  places.row("softmax forward", 2, [&](Place& p) {
    TUTTI_ASSERT(softmax_forward(ctx, {p.in(), p.out()}));
  });
  places.row("softmax backward", 3, [&](Place& p) {
    TUTTI_ASSERT(softmax_backward(ctx, {p.in(), p.in(), p.out()}));
  });
  bench_norm_places(places);
}

// One row and four by GPT-2's weight from memory, and by a twelfth of it in the second cache,
// twelve times. There a row's time is that of making numbers of codes and of its arithmetic, four
// rows' that of the first once and of the second four times.
void bench_image_places(const Bench& bench, kernels::WeightFormat format) {
  constexpr Index kOutputs = 3072;
  constexpr Index kInputs = 768;
  constexpr Index kParts = 12;
  const FloatBuffer weight = numbers(bench, kOutputs * kInputs, 1);
  const auto quantised = [&](Index outputs) {
    return *quantise_weight(bench.ctx, format, weight.matrix(outputs, kInputs));
  };
  const kernels::QuantisedWeight whole = quantised(kOutputs);
  const kernels::QuantisedWeight part = quantised(kOutputs / kParts);
  Copies copies(whole.image(), whole.bytes());
  const FloatBuffer x = numbers(bench, 4 * kInputs, 2);
  const FloatBuffer y(4 * kOutputs);
  const auto product = [&](Index rows, const kernels::QuantisedWeight& right) {
    const kernels::Activations activations = kernels::has_integer_codes(format)
                                                 ? kernels::Activations::int8
                                                 : kernels::Activations::exact;
    TUTTI_ASSERT(product_quantised(bench.ctx, {.left = x.matrix(rows, kInputs),
                                               .right = &right,
                                               .output = y.matrix(rows, right.outputs()),
                                               .activations = activations}));
  };
  const double stored = static_cast<double>(kOutputs * kernels::row_bytes(format, kInputs));
  for (const Index rows : {1, 4}) {
    Case c = cause_case(fmt::format("quantised {} {}x{} rows {}, from memory", to_string(format),
                                    kOutputs, kInputs, rows),
                        2.0 * static_cast<double>(rows * kOutputs * kInputs), stored);
    c.sets = copies.count();
    bench_beside(
        bench, c,
        [&] {
          product(rows, kernels::QuantisedWeight::view(format, kOutputs, kInputs, copies.next()));
        },
        {{"in the second cache", [&] {
            for (Index i = 0; i < kParts; ++i) product(rows, part);
          }}});
  }
}

struct Heads {
  Index samples, tokens, heads;
  static constexpr Index kWidth = 64;

  Index rows() const { return samples * tokens; }
  // Blocks of 64 queries by 64 keys that have a pair that counts.
  Index blocks() const {
    const Index side = tokens / 64;
    return samples * heads * side * (side + 1) / 2;
  }
};

// Attention of heads whose rows lie side by side, as a layer has them, and of each head alone, its
// rows one after the other.
class AttentionParts {
 public:
  AttentionParts(const Bench& bench, const Heads& h) : bench_(bench), h_(h) {
    for (std::size_t i = 0; i < 4; ++i) in_[i] = numbers(bench, size(), i + 1);
    for (FloatBuffer& out : out_) out = FloatBuffer(size());
    lse_ = FloatBuffer(h.rows() * h.heads);
    for (Index s = 0; s <= h.samples; ++s) {
      offsets_.push_back(static_cast<std::int32_t>(s * h.tokens));
    }
  }

  void together(bool backward) { run(h_.heads, h_.samples, 0, backward); }
  void each(bool backward) {
    for (Index head = 0; head < h_.heads; ++head) {
      run(1, h_.samples, head * h_.rows() * Heads::kWidth, backward);
    }
  }
  void one_again(bool backward) {
    for (Index i = 0; i < h_.heads * h_.samples; ++i) run(1, 1, 0, backward);
  }
  // Sixteen thousand scores a time of what lies in the first two caches.
  void scores() {
    for (Index done = 0; done < h_.blocks(); done += 4) {
      TUTTI_ASSERT(product_batched(bench_.ctx, {.form = kernels::ProductForm::nt,
                                                .count = 4,
                                                .left = in_[0].matrix(64, 64),
                                                .left_step = 64 * 64,
                                                .right = in_[1].matrix(64, 64),
                                                .right_step = 64 * 64,
                                                .output = out_[0].matrix(64, 64),
                                                .output_step = 64 * 64}));
    }
  }
  void exponentials() {
    for (Index done = 0; done < h_.blocks(); done += 4) {
      TUTTI_ASSERT(softmax_forward(bench_.ctx, {in_[0].matrix(64, 256), out_[0].matrix(64, 256)}));
    }
  }
  // Queries and keys, where they lie in a layer's rows.
  void turning() {
    for (const FloatBuffer* from : {&in_[0], &in_[1]}) {
      const Matrix rows = from->matrix(h_.rows(), h_.heads * Heads::kWidth);
      for (Index head = 0; head < h_.heads; ++head) {
        for (Index row = 0; row < h_.rows(); row += 64) {
          transpose_into(rows.row_range(row, 64).column_range(head * Heads::kWidth, Heads::kWidth),
                         turned_.data(), 64);
        }
      }
    }
  }

 private:
  Index size() const { return h_.rows() * h_.heads * Heads::kWidth; }
  void run(Index heads, Index samples, Index first, bool backward) {
    const kernels::AttentionShape shape{
        .heads = heads, .kv_heads = heads, .head_width = Heads::kWidth, .scale = 0.125F};
    const auto rows = [&](const FloatBuffer& buffer) {
      return Matrix(buffer.data() + first, samples * h_.tokens, heads * Heads::kWidth);
    };
    const auto offsets = std::span(offsets_).first(static_cast<std::size_t>(samples) + 1);
    if (!backward) {
      TUTTI_ASSERT(attention_forward(bench_.ctx, {.shape = shape,
                                                  .q = rows(in_[0]),
                                                  .k = rows(in_[1]),
                                                  .v = rows(in_[2]),
                                                  .sample_offsets = offsets,
                                                  .out = rows(out_[0]),
                                                  .lse = lse_.data()}));
      return;
    }
    TUTTI_ASSERT(attention_backward(bench_.ctx, {.shape = shape,
                                                 .q = rows(in_[0]),
                                                 .k = rows(in_[1]),
                                                 .v = rows(in_[2]),
                                                 .out = rows(out_[0]),
                                                 .dout = rows(in_[3]),
                                                 .lse = lse_.data(),
                                                 .sample_offsets = offsets,
                                                 .dq = rows(out_[1]),
                                                 .dk = rows(out_[2]),
                                                 .dv = rows(out_[3])}));
  }

  const Bench& bench_;
  Heads h_;
  FloatBuffer in_[4], out_[4], lse_;
  FloatBuffer turned_{64 * 64};
  std::vector<std::int32_t> offsets_;
};

void bench_attention_parts(const Bench& bench, const Heads& h) {
  const std::string sizes = fmt::format("{} {} {} {}", h.samples, h.heads, h.tokens, Heads::kWidth);
  const auto name = [&](bool backward) {
    return fmt::format("attention {} {}", backward ? "backward" : "forward", sizes);
  };
  if (!wanted(bench, name(false)) && !wanted(bench, name(true))) return;
  AttentionParts parts(bench, h);
  const double pairs = static_cast<double>(h.samples * h.heads * h.tokens * (h.tokens + 1) / 2);
  for (const bool backward : {false, true}) {
    std::vector<Other> others = {
        {"each head's rows one after the other", [&, backward] { parts.each(backward); }},
        {"one head again and again", [&, backward] { parts.one_again(backward); }}};
    if (!backward) {
      others.push_back({"one of its two products, in the second cache", [&] { parts.scores(); }});
      others.push_back({"softmax of as many scores there", [&] { parts.exponentials(); }});
      others.push_back({"queries and keys turned", [&] { parts.turning(); }});
    }
    bench_beside(
        bench,
        cause_case(name(backward),
                   (backward ? 10.0 : 4.0) * pairs * static_cast<double>(Heads::kWidth)),
        [&, backward] { parts.together(backward); }, others);
  }
}

// The loss by one chunk beside its product and its exponentials, of logits where the chunk has them
// and of one row of them again and again.
void bench_loss_parts(const Bench& bench, const char* model, Index width, Index vocabulary) {
  constexpr Index kRows = 256;
  const std::string name =
      fmt::format("{} linear cross entropy forward {} {} {}", model, kRows, width, vocabulary);
  if (!wanted(bench, name)) return;
  const FloatBuffer hidden = numbers(bench, kRows * width, 1);
  const FloatBuffer weight = numbers(bench, vocabulary * width, 2);
  const FloatBuffer losses(kRows);
  const FloatBuffer logits = numbers(bench, kRows * vocabulary, 3);
  const Matrix each = logits.matrix(kRows, vocabulary);
  std::vector<std::int32_t> targets;
  for (Index i = 0; i < kRows; ++i) {
    targets.push_back(static_cast<std::int32_t>(i * 37 % vocabulary));
  }
  const kernels::LinearCrossEntropy args{.hidden = hidden.matrix(kRows, width),
                                         .weight = weight.matrix(vocabulary, width),
                                         .targets = targets,
                                         .losses = losses.data(),
                                         .chunk = kRows};
  const kernels::Product product{.left = args.hidden, .right = args.weight, .output = each};
  double sum = 0.0;
  bench_beside(bench, cause_case(name, 2.0 * static_cast<double>(kRows * width * vocabulary)),
               [&] { TUTTI_ASSERT(linear_cross_entropy(bench.ctx, args)); },
               {{"its product", [&] { TUTTI_ASSERT(product_nt(bench.ctx, product)); }},
                {"sums of exponentials",
                 [&] {
                   for (Index row = 0; row < kRows; ++row) {
                     sum += kernels::row_log_sum(each.row(row), vocabulary);
                   }
                 }},
                {"sums of exponentials in the second cache", [&] {
                   for (Index row = 0; row < kRows; ++row) {
                     sum += kernels::row_log_sum(each.row(0), vocabulary);
                   }
                 }}});
  TUTTI_ASSERT(std::isfinite(sum));
}

}  // namespace

void bench_place_causes(const Bench& bench) {
  using kernels::WeightFormat;
  for (const WeightFormat format :
       {WeightFormat::bf16, WeightFormat::int8_channel, WeightFormat::q8_0, WeightFormat::q4_0,
        WeightFormat::q5_0, WeightFormat::q4_k, WeightFormat::int4_group, WeightFormat::nf4,
        WeightFormat::fp8_e5m2, WeightFormat::int4_zero}) {
    bench_image_places(bench, format);
  }
  for (const Heads& h : {Heads{4, 256, 12}, Heads{1, 1024, 12}, Heads{1, 4096, 2}}) {
    bench_attention_parts(bench, h);
  }
  bench_loss_parts(bench, "demo", 192, 2048);
  bench_loss_parts(bench, "gpt2", 768, 50257);
  bench_row_places(bench);
}

}  // namespace tutti::bench
