// Products by quantised weights: a layer of GPT-2's and one of a 7B model. Few rows are a share of
// the memory ceiling, as each run reads another image of the weight from memory; many are one of
// the int8 ceiling, or of the fp32 one where the format has no integers.
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

QuantisedWeight quantised(const Bench& bench, WeightFormat format, Index outputs, Index inputs,
                          const FloatBuffer& weight) {
  return *quantise_weight(bench.ctx, format, weight.matrix(outputs, inputs));
}

// Images of one weight, one after the other.
class Images {
 public:
  explicit Images(const QuantisedWeight& weight) : copies_(weight.image(), weight.bytes()) {
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

void bench_format(const Bench& bench, WeightFormat format, Index outputs, Index inputs) {
  const std::string text = fmt::format("{} {}x{}", to_string(format), outputs, inputs);
  const std::string ratio = "four rows over one, " + text;
  constexpr Index kRows[] = {1, 2, 4, 8, 16, 32, 64, 512};
  const auto name_of = [&](Index rows) { return fmt::format("quantised {} rows {}", text, rows); };
  // What the format stores: an image that has more of it takes its share.
  const double stored =
      static_cast<double>(outputs) * static_cast<double>(kernels::row_bytes(format, inputs));
  if (!wanted(bench, ratio) &&
      std::ranges::none_of(kRows, [&](Index rows) { return wanted(bench, name_of(rows)); })) {
    return;
  }
  const FloatBuffer weight = numbers(bench, outputs * inputs, 1);
  const QuantisedWeight packed = quantised(bench, format, outputs, inputs, weight);
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
  for (const Index rows : kRows) {
    if (rows > 64 && format != WeightFormat::int8_channel) continue;
    if ((rows == 2 || rows == 8 || rows == 32) && !takes_its_time(bench)) continue;
    Case c = product_case(name_of(rows), {"", rows, outputs, inputs});
    if (rows <= kFewRows) {
      c.bytes = stored;
      c.sets = images.count();
    } else {
      c.ceiling = exact ? bench.peak_gflops : bench.int8_gops;
    }
    const bool few = rows <= kFewRows;
    bench_beside(bench, c, "", [&] { product(rows, few ? images.next() : &packed); });
  }
  bench_beside(
      bench, {.name = ratio, .bytes = stored, .sets = images.count(), .bench = "kernels/product"},
      [&] { product(4, images.next()); }, {{"one row", [&] { product(1, images.next()); }}});
}

// The gradient to the inputs of such a layer, beside that of the weight in f32.
void bench_nn(const Bench& bench, const Shape& s) {
  FloatBuffer weight;
  for (const WeightFormat format : kernels::kWeightFormats) {
    const Case c =
        product_case(fmt::format("quantised nn {} {}", to_string(format), size_of(s)), s);
    if (!wanted(bench, c.name)) continue;
    if (weight.size() == 0) weight = numbers(bench, s.n * s.k, 1);
    const FloatBuffer dy = numbers(bench, s.m * s.n, 2);
    const FloatBuffer dx(s.m * s.k);
    const QuantisedWeight packed = quantised(bench, format, s.n, s.k, weight);
    bench_beside(bench, c,
                 [&] {
                   TUTTI_ASSERT(product_quantised_nn(bench.ctx, {.left = dy.matrix(s.m, s.n),
                                                                 .right = &packed,
                                                                 .output = dx.matrix(s.m, s.k)}));
                 },
                 {{"f32 weight", [&] {
                     TUTTI_ASSERT(product_nn(bench.ctx, {.left = dy.matrix(s.m, s.n),
                                                         .right = weight.matrix(s.n, s.k),
                                                         .output = dx.matrix(s.m, s.k)}));
                   }}});
  }
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
void bench_bf16_rows(const Bench& bench, WeightFormat format, const Shape& s) {
  Case c =
      product_case(fmt::format("quantised by bf16 rows, {} {}", to_string(format), size_of(s)), s);
  const kernels::Activations activations = activations_of(format);
  const bool exact = activations == kernels::Activations::exact;
  c.ceiling = exact ? bench.peak_gflops : bench.int8_gops;
  if (!wanted(bench, c.name)) return;
  const FloatBuffer weight = numbers(bench, s.n * s.k, 1);
  const QuantisedWeight packed = quantised(bench, format, s.n, s.k, weight);
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

// Experts of a mixture, as many rows each, beside a product for each of them. Each run reads other
// weights from memory.
void bench_grouped(const Bench& bench, WeightFormat format, Index groups, const Shape& s) {
  Case c =
      product_case(fmt::format("grouped {} {} by {}", to_string(format), groups, size_of(s)), s);
  if (!wanted(bench, c.name)) return;
  const FloatBuffer weight = numbers(bench, s.n * s.k, 1);
  const QuantisedWeight packed = quantised(bench, format, s.n, s.k, weight);
  Images images(packed);
  c.flops *= static_cast<double>(groups);
  c.bytes = static_cast<double>(groups) * static_cast<double>(packed.bytes());
  c.sets = std::max<Index>(1, images.count() / groups);
  const FloatBuffer x = numbers(bench, groups * s.m * s.k, 2);
  const FloatBuffer y(groups * s.m * s.n);
  const kernels::Activations activations = activations_of(format);
  std::vector<const QuantisedWeight*> rights(static_cast<std::size_t>(groups));
  std::vector<Index> ends;
  for (Index g = 1; g <= groups; ++g) ends.push_back(g * s.m);
  const auto others = [&] {
    for (const QuantisedWeight*& right : rights) right = images.next();
  };
  bench_beside(
      bench, c,
      [&] {
        others();
        TUTTI_ASSERT(product_quantised_grouped(bench.ctx, {.left = x.matrix(groups * s.m, s.k),
                                                           .rights = rights,
                                                           .ends = ends,
                                                           .output = y.matrix(groups * s.m, s.n),
                                                           .activations = activations}));
      },
      {{"one by one", [&] {
          others();
          for (Index g = 0; g < groups; ++g) {
            TUTTI_ASSERT(product_quantised(
                bench.ctx, {.left = x.matrix(groups * s.m, s.k).row_range(g * s.m, s.m),
                            .right = rights[static_cast<std::size_t>(g)],
                            .output = y.matrix(groups * s.m, s.n).row_range(g * s.m, s.m),
                            .activations = activations}));
          }
        }}});
}

// Rows that were rounded before by an int8 weight, beside the product that rounds them itself and
// beside oneDNN.
void bench_int8(const Bench& bench, Index outputs, Index inputs) {
  for (const Index rows : {1, 4, 64, 512}) {
    const Shape s{"", rows, outputs, inputs};
    Case c = product_case("int8 product " + size_of(s), s);
    c.ceiling = bench.int8_gops;
    if (!wanted(bench, c.name)) continue;
    const FloatBuffer weight = numbers(bench, outputs * inputs, 1);
    const QuantisedWeight packed =
        quantised(bench, WeightFormat::int8_channel, outputs, inputs, weight);
    Images images(packed);
    const bool few = rows <= kFewRows;
    if (few) {
      c.bytes = static_cast<double>(packed.bytes());
      c.sets = images.count();
    }
    const auto right = [&] { return few ? images.next() : &packed; };
    const FloatBuffer x = numbers(bench, rows * inputs, 2);
    const FloatBuffer y(rows * outputs);
    const Int8Rows left = int8_rows(bench, x.matrix(rows, inputs));
    const Int8Rows theirs = int8_rows(bench, weight.matrix(outputs, inputs));
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
  for (const WeightFormat format : kernels::kWeightFormats) {
    bench_format(bench, format, 3072, 768);
    bench_format(bench, format, 11008, 4096);
  }
  // A 7B model's head, in formats that files have it in.
  for (const WeightFormat format : {WeightFormat::q8_0, WeightFormat::q6_k}) {
    if (takes_its_time(bench)) bench_format(bench, format, 32000, 4096);
  }
  bench_nn(bench, {"", 512, 3072, 768});
  bench_int8(bench, 11008, 4096);
  for (const WeightFormat format : {WeightFormat::bf16, WeightFormat::q8_0, WeightFormat::q4_k}) {
    for (const Index rows : {1, 64, 1024}) bench_bf16_rows(bench, format, {"", rows, 3072, 768});
    for (const Index rows : {1, 4, 32}) bench_grouped(bench, format, 8, {"", rows, 3072, 768});
  }
}

}  // namespace tutti::bench
