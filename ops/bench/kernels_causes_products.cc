// What misses of products are made of: packing and conversion alone, and as many multiply-adds by
// tiles whose operands are in the second cache, beside the whole. What of the whole these leave is
// edges and waiting for what comes from farther away. By few rows (7b 64 nn) the parts are more
// than the whole: the first tile packs a panel beside its chains, and is bound by the longer of
// both.
#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/cpu/product/pack.h"
#include "kernels/cpu/product/pack_bf16.h"
#include "kernels/cpu/product/product_call.h"
#include "kernels/cpu/product/rounded.h"
#include "kernels/ops/cpu_path.h"
#include "kernels/ops/product.h"
#include "kernels/ops/product_bf16.h"
#include "kernels/tensor/rounding.h"
#include "ops/bench/kernels_cases.h"
#include "ops/bench/kernels_shapes.h"

namespace tutti::bench {

using kernels::ConstMatrix;
using kernels::FloatBuffer;
using kernels::Index;
using kernels::Matrix;
using kernels::Stretches;

namespace {

// As kernels/cpu/product/product.cc has them: a packed operand's floats at most, and rows up to
// which panels are packed one by one.
constexpr Index kPackedMax = Index{1} << 21;
constexpr Index kPackedRows = 256;
// Rows of a left operand that are copied together, and whole tiles of six and of nine.
constexpr Index kCopiedRows = 144;

bool is_wide() { return to_string(kernels::cpu_path()).starts_with("avx512"); }

// Of products of many rows.
struct PanelTile {
  Index rows, columns;
};
PanelTile tile_in_use() {
  if (!is_wide()) return {6, 16};
  return kernels::first_cache_ways() < 9 ? PanelTile{6, 64} : PanelTile{9, 48};
}

struct Parts {
  kernels::ProductForm form;
  ConstMatrix left, right;
  Matrix output;

  Index rows() const { return output.rows; }
  Index depth() const { return form == kernels::ProductForm::tn ? left.rows : left.columns; }
  bool right_inside() const { return form == kernels::ProductForm::nt; }
};

// All of the right operand: of many rows as much as is packed at once, of few a panel at a time, to
// the same place.
void pack_right(const Parts& o, float* to) {
  const bool many = o.rows() > kPackedRows;
  const Index width = many ? tile_in_use().columns : is_wide() ? 64 : 16;
  const Index most =
      many ? Stretches::kDepthMax
           : std::clamp<Index>(196608 / (o.rows() + 2 * width), 256, Stretches::kDepthMax);
  const Stretches stretches(o.depth(), most);
  const Index columns = o.output.columns;
  const Index panels = (columns + width - 1) / width;
  Index used = 0;
  for (Index i = 0; i < panels * stretches.count; ++i) {
    const kernels::Stretch k = stretches.at(many ? i / panels : i % stretches.count);
    const Index column = (many ? i % panels : i / stretches.count) * width;
    const Index count = std::min(width, columns - column);
    if (!many || used + width * k.depth > kPackedMax) used = 0;
    float* const panel = to + used;
    used += width * k.depth;
    if (o.right_inside()) {
      pack_panel_transposed(o.right.row_range(column, count).column_range(k.first, k.depth), width,
                            panel);
    } else {
      pack_panel_straight(o.right.row_range(k.first, k.depth).column_range(column, count), width,
                          panel);
    }
  }
}

// A left operand whose rows are k, and fall together.
bool is_copied(const Parts& o) {
  return o.form == kernels::ProductForm::tn && o.left.stride % (is_wide() ? 256 : 64) == 0;
}
void copy_left(const Parts& o, float* to) {
  const Index copied = kernels::second_cache_bytes() / 4 / (96 * Index{sizeof(float)});
  const Stretches stretches(o.depth(), std::clamp<Index>(copied, 256, Stretches::kDepthMax));
  for (Index row = 0; row < o.rows(); row += kCopiedRows) {
    const Index rows = std::min(kCopiedRows, o.rows() - row);
    for (Index s = 0; s < stretches.count; ++s) {
      const kernels::Stretch k = stretches.at(s);
      copy_tiles(o.left.row_range(k.first, k.depth).column_range(row, rows), tile_in_use().rows,
                 to);
    }
  }
}

// Tiles of many rows by a right operand that is read where it lies: nothing is packed, and all is
// in the second cache.
class CachedTiles {
 public:
  explicit CachedTiles(const Bench& bench)
      : bench_(bench),
        columns_(is_wide() ? 2 * tile_in_use().columns : 16),
        left_(numbers(bench, kRows * kDepth, 1)),
        right_(numbers(bench, kDepth * columns_, 2)),
        output_(kRows * columns_) {}

  // So many multiply-adds, each two of `flops`.
  void run(kernels::ProductForm form, double flops) const {
    const double once = 2.0 * static_cast<double>(kRows * kDepth * columns_);
    const Matrix right = right_.matrix(kDepth, columns_);
    const Matrix output = output_.matrix(kRows, columns_);
    for (double done = 0.0; done < flops; done += once) {
      if (form == kernels::ProductForm::tn) {
        TUTTI_ASSERT(product_tn(
            bench_.ctx, {.left = left_.matrix(kDepth, kRows), .right = right, .output = output}));
      } else {
        TUTTI_ASSERT(product_nn(
            bench_.ctx, {.left = left_.matrix(kRows, kDepth), .right = right, .output = output}));
      }
    }
  }

 private:
  static constexpr Index kRows = 2 * kCopiedRows;
  static constexpr Index kDepth = 256;
  const Bench& bench_;
  Index columns_;
  FloatBuffer left_, right_, output_;
};

void bench_packing(const Bench& bench, const CachedTiles& tiles, const Shape& s,
                   kernels::ProductForm form) {
  constexpr const char* kForms[] = {"nt", "nn", "tn"};
  const bool nt = form == kernels::ProductForm::nt;
  const bool nn = form == kernels::ProductForm::nn;
  const std::string name = fmt::format("{} {} {}", s.name, kForms[nt ? 0 : nn ? 1 : 2], size_of(s));
  if (!wanted(bench, name)) return;
  const FloatBuffer inputs = numbers(bench, s.m * s.k, 1);
  const FloatBuffer weight = numbers(bench, s.n * s.k, 2);
  const FloatBuffer outputs = numbers(bench, s.m * s.n, 3);
  const Matrix x = inputs.matrix(s.m, s.k);
  const Matrix w = weight.matrix(s.n, s.k);
  const Matrix y = outputs.matrix(s.m, s.n);
  const Parts o = nt ? Parts{form, x, w, y} : nn ? Parts{form, y, w, x} : Parts{form, y, x, w};
  const FloatBuffer packed(kPackedMax);
  const FloatBuffer copied((kCopiedRows + 16) * Stretches::kDepthMax);
  std::vector<Other> parts = {
      {"the right operand packed", [&] { pack_right(o, packed.data()); }},
      {"as much by tiles in the second cache", [&] { tiles.run(form, flops_of(s)); }}};
  if (is_copied(o)) {
    parts.push_back({"the left operand copied", [&] { copy_left(o, copied.data()); }});
  }
  const kernels::Product args{.left = o.left, .right = o.right, .output = o.output};
  bench_beside(
      bench, cause_case(name, flops_of(s)),
      [&] {
        TUTTI_ASSERT(nt   ? product_nt(bench.ctx, args)
                     : nn ? product_nn(bench.ctx, args)
                          : product_tn(bench.ctx, args));
      },
      parts);
}

// Rows of a right operand that becomes floats, some at a time: into one place, or from there into
// panels.
void convert_right(const kernels::WidenedRight& right, const Shape& s, float* to) {
  constexpr Index kRows = 96;
  constexpr Index kDepth = 512;
  for (Index row = 0; row < s.n; row += kRows) {
    const Index rows = std::min(kRows, s.n - row);
    for (Index k = 0; k < s.k; k += kDepth) {
      const Index depth = std::min(kDepth, s.k - k);
      right.widen(right.data, s.k, {row, rows}, {k, depth}, {to, rows, depth, depth});
    }
  }
}

void convert_and_pack_right(const kernels::WidenedRight& right, const Shape& s, float* to) {
  constexpr Index kTogether = 64;
  alignas(64) float block[kernels::kImagePanel * kTogether];
  const Index width = tile_in_use().columns;
  for (Index row = 0; row < s.n; row += width) {
    const Index rows = std::min(width, s.n - row);
    for (Index k = 0; k < s.k; k += kTogether) {
      const Index depth = std::min(kTogether, s.k - k);
      const Matrix part(block, rows, depth, kTogether);
      right.widen(right.data, s.k, {row, rows}, {k, depth}, part);
      pack_panel_transposed(part, width, to + (row * s.k + k * width) % (kPackedMax / 2));
    }
  }
}

// bf16 operands that are widened, and fp32 ones that are rounded, beside the same product of fp32.
void bench_conversion(const Bench& bench, const Shape& s) {
  constexpr auto kWidened = kernels::Bf16Arithmetic::widened;
  const FloatBuffer left = numbers(bench, s.m * s.k, 1);
  const FloatBuffer right = numbers(bench, s.n * s.k, 2);
  const FloatBuffer output(s.m * s.n);
  const FloatBuffer packed(kPackedMax);
  std::vector<kernels::Bf16> x(static_cast<std::size_t>(s.m * s.k));
  std::vector<kernels::Bf16> w(static_cast<std::size_t>(s.n * s.k));
  TUTTI_ASSERT(to_bf16(bench.ctx, left.span(), x));
  TUTTI_ASSERT(to_bf16(bench.ctx, right.span(), w));
  const kernels::Product fp32{.left = left.matrix(s.m, s.k),
                              .right = right.matrix(s.n, s.k),
                              .output = output.matrix(s.m, s.n)};
  const kernels::Bf16Product halves{.left = {x.data(), s.m, s.k},
                                    .right = {w.data(), s.n, s.k},
                                    .output = fp32.output,
                                    .arithmetic = kWidened};
  const kernels::Workers workers(*bench.ctx.pool);
  const auto beside = [&](const char* name, const kernels::WidenedRight& from, const Run& whole,
                          const Run& left_alone) {
    std::vector<Other> parts = {
        {"fp32", [&] { TUTTI_ASSERT(product_nt(bench.ctx, fp32)); }},
        {"the right converted", [&] { convert_right(from, s, packed.data()); }},
        {"the left converted", [&] {
           kernels::ArenaScope scope(workers.op_scratch());
           left_alone();
         }}};
    // By few rows it is read where it was converted to.
    if (s.m > kPackedRows) {
      parts.push_back({"the right converted and packed",
                       [&] { convert_and_pack_right(from, s, packed.data()); }});
    }
    bench_beside(bench,
                 cause_case(fmt::format("{} {} nt {}", name, s.name, size_of(s)), flops_of(s)),
                 whole, parts);
  };
  beside(
      "bf16 widened", kernels::widened_right(halves.right),
      [&] { TUTTI_ASSERT(product_bf16_nt(bench.ctx, halves)); },
      [&] { (void)kernels::in_fp32(workers, halves.left); });
  beside(
      "rounded widened", kernels::widened_right(fp32.right),
      [&] {
        const kernels::RoundingScope rounding(kWidened);
        TUTTI_ASSERT(product_nt(bench.ctx, fp32));
      },
      [&] { (void)kernels::in_fp32(workers, fp32.left); });
}

}  // namespace

void bench_product_causes(const Bench& bench) {
  using Form = kernels::ProductForm;
  const CachedTiles tiles(bench);
  for (const Shape& s : {Shape{"gpt2 up", 1024, 3072, 768}, Shape{"gpt2 down", 1024, 768, 3072},
                         Shape{"gpt2 attention", 1024, 768, 768}}) {
    for (const Form form : {Form::nt, Form::nn, Form::tn}) bench_packing(bench, tiles, s, form);
  }
  bench_packing(bench, tiles, {"demo up", 2048, 512, 192}, Form::tn);
  bench_packing(bench, tiles, {"demo down", 2048, 192, 512}, Form::tn);
  bench_packing(bench, tiles, {"7b 64", 64, 11008, 4096}, Form::nn);
  bench_packing(bench, tiles, {"7b head", 256, 32000, 4096}, Form::nn);
  bench_conversion(bench, {"gpt2 up", 1024, 3072, 768});
  bench_conversion(bench, {"7b 64", 64, 11008, 4096});
}

}  // namespace tutti::bench
