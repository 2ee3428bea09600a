// Products by quantised weights: a layer of GPT-2's and one of a 7B model, and in some formats one
// of the demo's. Few rows are a share of the memory ceiling, as each run reads another image of the
// weight from memory; many are one of the int8 ceiling, or of the fp32 one where the format has no
// integers. The demo's weight stays in a cache.
//
// PyTorch multiplies by int8 with a scale for each output, and by groups of 4-bit codes; its rows
// are of bf16, which is what it is fast with.
#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/ops/product.h"
#include "kernels/ops/weights/product_grouped.h"
#include "kernels/ops/weights/product_int8.h"
#include "kernels/ops/weights/product_quantised_nn.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "ops/bench/kernels_cases.h"
#include "ops/bench/kernels_operands.h"
#include "ops/bench/kernels_shapes.h"
#include "ops/bench/peers/kernels_peers.h"

namespace tutti::bench {

using kernels::FloatBuffer;
using kernels::Index;
using kernels::QuantisedWeight;
using kernels::WeightFormat;

namespace {

// Weights in f32, which cases of one layer share: made when the first of them asks.
class Layer {
 public:
  Layer(const Bench& bench, Index outputs, Index inputs)
      : bench_(bench), outputs_(outputs), inputs_(inputs) {}
  Index outputs() const { return outputs_; }
  Index inputs() const { return inputs_; }
  kernels::ConstMatrix weight() {
    if (weight_.size() == 0) weight_ = numbers(bench_, outputs_ * inputs_, 1);
    return weight_.matrix(outputs_, inputs_);
  }
  QuantisedWeight in(WeightFormat format) { return *quantise_weight(bench_.ctx, format, weight()); }

 private:
  const Bench& bench_;
  Index outputs_, inputs_;
  FloatBuffer weight_;
};

// Of a layer that a cache holds all cases have one image, and no share of what memory gives.
Index images_of(const QuantisedWeight& weight) {
  const bool cached = 4.0 * static_cast<double>(weight.outputs() * weight.inputs()) < kCachedBytes;
  return cached ? 1 : sets_beyond_caches(static_cast<double>(weight.bytes()));
}

// Images of one weight, one after the other.
class Images {
 public:
  explicit Images(const QuantisedWeight& weight)
      : copies_(weight.image(), weight.bytes(), images_of(weight)) {
    for (Index i = 0; i < copies_.count(); ++i) {
      views_.push_back(QuantisedWeight::view(weight.format(), weight.outputs(), weight.inputs(),
                                             copies_.next()));
    }
  }
  const QuantisedWeight* next() { return &views_[turns_.next()]; }
  Index count() const { return copies_.count(); }

 private:
  Copies copies_;
  std::vector<QuantisedWeight> views_;
  Turns turns_{copies_.count()};
};

// As PyTorch is asked for a product of some rows; empty: it has none.
std::string torch_quantised(WeightFormat format, const Shape& s) {
  const bool wanted_rows = s.m == 1 || s.m == 4 || s.m == 64;
  const char* const name = format == WeightFormat::int8_channel ? "int8pack"
                           : format == WeightFormat::int4_group ? "int4pack"
                                                                : nullptr;
  if (name == nullptr || !wanted_rows) return {};
  return fmt::format("product_{} {} {} {}", name, s.m, s.n, s.k);
}

void bench_format(const Bench& bench, WeightFormat format, Layer& layer,
                  const std::vector<Index>& counts) {
  const Index outputs = layer.outputs();
  const Index inputs = layer.inputs();
  const std::string text = fmt::format("{} {}x{}", to_string(format), outputs, inputs);
  const std::string ratio = "four rows over one, " + text;
  const auto name_of = [&](Index rows) { return fmt::format("quantised {} rows {}", text, rows); };
  // What the format stores: an image that has more of it takes its share.
  const double stored =
      static_cast<double>(outputs) * static_cast<double>(kernels::row_bytes(format, inputs));
  if (!wanted(bench, ratio) &&
      std::ranges::none_of(counts, [&](Index rows) { return wanted(bench, name_of(rows)); })) {
    return;
  }
  const QuantisedWeight packed = layer.in(format);
  Images images(packed);
  const bool exact = !kernels::has_integer_codes(format);
  const FloatBuffer x = numbers(bench, 512 * inputs, 2);
  const FloatBuffer y(512 * outputs);
  const auto product = [&](Index rows, const QuantisedWeight* right) {
    TUTTI_ASSERT(product_quantised(bench.ctx, {.left = x.matrix(rows, inputs),
                                               .right = right,
                                               .output = y.matrix(rows, outputs),
                                               .activations = exact ? kernels::Activations::exact
                                                                    : kernels::Activations::int8}));
  };
  for (const Index rows : counts) {
    if (rows > 64 && format != WeightFormat::int8_channel) continue;
    const Shape s{"", rows, outputs, inputs};
    Case c = product_case(name_of(rows), s);
    const bool few = rows <= kFewRows && images.count() > 1;
    if (few) {
      c.bytes = stored;
      c.sets = images.count();
    } else {
      c.ceiling = exact ? bench.peak_gflops : bench.int8_gops;
    }
    bench_beside(bench, c, torch_quantised(format, s),
                 [&] { product(rows, few ? images.next() : &packed); });
  }
  if (images.count() == 1) return;
  bench_beside(
      bench, {.name = ratio, .bytes = stored, .sets = images.count(), .bench = "kernels/product"},
      [&] { product(4, images.next()); }, {{"one row", [&] { product(1, images.next()); }}});
}

// The gradient to the inputs of such a layer, beside that of the weight in f32.
void bench_nn(const Bench& bench, WeightFormat format, Layer& layer, Index rows) {
  const Shape s{"", rows, layer.outputs(), layer.inputs()};
  const Case c = product_case(fmt::format("quantised nn {} {}", to_string(format), size_of(s)), s);
  if (!wanted(bench, c.name)) return;
  const FloatBuffer dy = numbers(bench, s.m * s.n, 2);
  const FloatBuffer dx(s.m * s.k);
  const QuantisedWeight packed = layer.in(format);
  bench_beside(bench, c,
               [&] {
                 TUTTI_ASSERT(product_quantised_nn(bench.ctx, {.left = dy.matrix(s.m, s.n),
                                                               .right = &packed,
                                                               .output = dx.matrix(s.m, s.k)}));
               },
               {{"f32 weight", [&] {
                   TUTTI_ASSERT(product_nn(bench.ctx, {.left = dy.matrix(s.m, s.n),
                                                       .right = layer.weight(),
                                                       .output = dx.matrix(s.m, s.k)}));
                 }}});
}

struct Int8Rows {
  std::vector<std::int8_t> codes;
  FloatBuffer scales;
};

Int8Rows int8_rows(const Bench& bench, kernels::ConstMatrix x) {
  Int8Rows rows{std::vector<std::int8_t>(static_cast<std::size_t>(x.rows * x.columns)),
                FloatBuffer(x.rows)};
  TUTTI_ASSERT(to_int8_rows(bench.ctx, {.x = x,
                                        .codes = {rows.codes.data(), x.rows, x.columns},
                                        .scales = rows.scales.matrix(x.rows, 1)}));
  return rows;
}

// What a server asks for.
kernels::Activations activations_of(WeightFormat format) {
  return kernels::has_integer_codes(format) ? kernels::Activations::int8
                                            : kernels::Activations::exact;
}

// Activations in bf16, beside the same widened by the caller, and beside fp32 ones.
void bench_bf16_rows(const Bench& bench, WeightFormat format, Layer& layer, Index rows) {
  const Shape s{"", rows, layer.outputs(), layer.inputs()};
  Case c =
      product_case(fmt::format("quantised by bf16 rows, {} {}", to_string(format), size_of(s)), s);
  const kernels::Activations activations = activations_of(format);
  const bool exact = activations == kernels::Activations::exact;
  c.ceiling = exact ? bench.peak_gflops : bench.int8_gops;
  if (!wanted(bench, c.name)) return;
  const QuantisedWeight packed = layer.in(format);
  const FloatBuffer x = numbers(bench, s.m * s.k, 2);
  const FloatBuffer wide(s.m * s.k);
  std::vector<kernels::Bf16> halves(static_cast<std::size_t>(s.m * s.k));
  TUTTI_ASSERT(to_bf16(bench.ctx, x.span(), halves));
  const FloatBuffer y(s.m * s.n);
  const kernels::QuantisedProduct fp32{.left = wide.matrix(s.m, s.k),
                                       .right = &packed,
                                       .output = y.matrix(s.m, s.n),
                                       .activations = activations};
  kernels::QuantisedProduct narrow = fp32;
  narrow.left = {};
  narrow.narrow_left = {halves.data(), s.m, s.k};
  bench_beside(bench, c, [&] { TUTTI_ASSERT(product_quantised(bench.ctx, narrow)); },
               {{"widened by the caller",
                 [&] {
                   TUTTI_ASSERT(from_bf16(bench.ctx, halves, wide.span()));
                   TUTTI_ASSERT(product_quantised(bench.ctx, fp32));
                 }},
                {"fp32 rows", [&] { TUTTI_ASSERT(product_quantised(bench.ctx, fp32)); }}});
}

// Eight experts of a mixture, as many rows each, beside a product for each of them. Each run reads
// other weights from memory.
void bench_grouped(const Bench& bench, WeightFormat format, Layer& layer, Index rows) {
  constexpr Index kExperts = 8;
  const Shape s{"", rows, layer.outputs(), layer.inputs()};
  Case c =
      product_case(fmt::format("grouped {} {} by {}", to_string(format), kExperts, size_of(s)), s);
  if (!wanted(bench, c.name)) return;
  const QuantisedWeight packed = layer.in(format);
  Images images(packed);
  c.flops *= static_cast<double>(kExperts);
  c.bytes = static_cast<double>(kExperts) * static_cast<double>(packed.bytes());
  c.sets = std::max<Index>(1, images.count() / kExperts);
  const FloatBuffer x = numbers(bench, kExperts * s.m * s.k, 2);
  const FloatBuffer y(kExperts * s.m * s.n);
  const kernels::Activations activations = activations_of(format);
  c.ceiling = activations == kernels::Activations::exact ? bench.peak_gflops : bench.int8_gops;
  std::vector<const QuantisedWeight*> rights(static_cast<std::size_t>(kExperts));
  std::vector<Index> ends;
  for (Index g = 1; g <= kExperts; ++g) ends.push_back(g * s.m);
  const auto others = [&] {
    for (const QuantisedWeight*& right : rights) right = images.next();
  };
  bench_beside(
      bench, c,
      [&] {
        others();
        TUTTI_ASSERT(product_quantised_grouped(bench.ctx, {.left = x.matrix(kExperts * s.m, s.k),
                                                           .rights = rights,
                                                           .ends = ends,
                                                           .output = y.matrix(kExperts * s.m, s.n),
                                                           .activations = activations}));
      },
      {{"one by one", [&] {
          others();
          for (Index g = 0; g < kExperts; ++g) {
            TUTTI_ASSERT(product_quantised(
                bench.ctx, {.left = x.matrix(kExperts * s.m, s.k).row_range(g * s.m, s.m),
                            .right = rights[static_cast<std::size_t>(g)],
                            .output = y.matrix(kExperts * s.m, s.n).row_range(g * s.m, s.m),
                            .activations = activations}));
          }
        }}});
}

// Rows that were rounded before by an int8 weight, beside the product that rounds them itself and
// beside oneDNN.
void bench_int8(const Bench& bench, Layer& layer, const std::vector<Index>& counts) {
  const Index outputs = layer.outputs();
  const Index inputs = layer.inputs();
  for (const Index rows : counts) {
    const Shape s{"", rows, outputs, inputs};
    Case c = product_case("int8 product " + size_of(s), s);
    c.ceiling = bench.int8_gops;
    if (!wanted(bench, c.name)) continue;
    const QuantisedWeight packed = layer.in(WeightFormat::int8_channel);
    Images images(packed);
    const bool few = rows <= kFewRows && images.count() > 1;
    if (few) {
      c.bytes = static_cast<double>(packed.bytes());
      c.sets = images.count();
    }
    const auto right = [&] { return few ? images.next() : &packed; };
    const FloatBuffer x = numbers(bench, rows * inputs, 2);
    const FloatBuffer y(rows * outputs);
    const Int8Rows left = int8_rows(bench, x.matrix(rows, inputs));
    const Int8Rows theirs = int8_rows(bench, layer.weight());
    bench_beside(
        bench, c,
        [&] {
          TUTTI_ASSERT(product_int8(bench.ctx, {.codes = {left.codes.data(), rows, inputs},
                                                .scales = left.scales.matrix(rows, 1),
                                                .right = right(),
                                                .output = y.matrix(rows, outputs)}));
        },
        {{"rounding its rows",
          [&] {
            TUTTI_ASSERT(product_quantised(bench.ctx, {.left = x.matrix(rows, inputs),
                                                       .right = right(),
                                                       .output = y.matrix(rows, outputs)}));
          }},
         {"onednn", in_turns(c.sets, [&] {
            return onednn_int8_product({.m = rows,
                                        .n = outputs,
                                        .k = inputs,
                                        .left = left.codes.data(),
                                        .right = theirs.codes.data(),
                                        .scales = theirs.scales.span(),
                                        .output = y.data()});
          })}});
  }
}

}  // namespace

void bench_quantised(const Bench& bench) {
  Layer demo(bench, 192, 512);
  Layer gpt2(bench, 3072, 768);
  Layer large(bench, 11008, 4096);
  for (const WeightFormat format : kernels::kWeightFormats) {
    bench_format(bench, format, gpt2, {1, 2, 4, 8, 16, 32, 64, 512});
    bench_format(bench, format, large, {1, 2, 4, 8, 16, 32, 64, 512});
    bench_nn(bench, format, gpt2, 512);
  }
  // What servers have most.
  for (const WeightFormat format :
       {WeightFormat::int8_channel, WeightFormat::q8_0, WeightFormat::q4_k}) {
    bench_format(bench, format, demo, {1, 64});
    bench_nn(bench, format, demo, 256);
    bench_nn(bench, format, large, 64);
  }
  // A 7B model's head, in formats that files have it in.
  Layer head(bench, 32000, 4096);
  for (const WeightFormat format : {WeightFormat::q8_0, WeightFormat::q6_k}) {
    if (takes_its_time(bench)) bench_format(bench, format, head, {1, 4, 16, 64});
  }
  bench_int8(bench, demo, {1, 64});
  bench_int8(bench, gpt2, {1, 64, 512});
  bench_int8(bench, large, {1, 4, 64, 512});
  for (const WeightFormat format : {WeightFormat::bf16, WeightFormat::q8_0, WeightFormat::q4_k}) {
    for (const Index rows : {1, 64, 1024}) bench_bf16_rows(bench, format, gpt2, rows);
    for (const Index rows : {1, 4, 32}) bench_grouped(bench, format, gpt2, rows);
  }
  for (const WeightFormat format : {WeightFormat::q8_0, WeightFormat::q4_k}) {
    bench_grouped(bench, format, demo, 4);
    bench_grouped(bench, format, large, 4);
  }
}

}  // namespace tutti::bench
