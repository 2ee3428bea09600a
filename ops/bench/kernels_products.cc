// fp32 products beside BLIS, oneDNN and PyTorch (MKL); the tree of shards, fused ends, batches.
#include <fmt/core.h>

#include <cmath>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ops/product.h"
#include "kernels/ops/product_batched.h"
#include "kernels/ops/silu_gate.h"
#include "kernels/ops/weights/packed_weight.h"
#include "ops/bench/kernels_cases.h"
#include "ops/bench/kernels_operands.h"
#include "ops/bench/kernels_shapes.h"
#include "ops/bench/peers/kernels_peers.h"

namespace tutti::bench {

using kernels::FloatBuffer;
using kernels::Index;
using kernels::Matrix;

namespace {

constexpr const char* kKindNames[] = {"nt", "nn", "tn"};

// The three products of one linear layer, each over its own sum: ours, and for the libraries.
Run product_of(const Bench& bench, ProductKind kind, Matrix x, Matrix w, Matrix y) {
  switch (kind) {
    case ProductKind::nt:
      return [&bench, x, w, y] {
        TUTTI_ASSERT(product_nt(bench.ctx, {.left = x, .right = w, .output = y}));
      };
    case ProductKind::nn:
      return [&bench, x, w, y] {
        TUTTI_ASSERT(product_nn(bench.ctx, {.left = y, .right = w, .output = x}));
      };
    case ProductKind::tn: break;
  }
  return [&bench, x, w, y] {
    TUTTI_ASSERT(product_tn(bench.ctx, {.left = y, .right = x, .output = w}));
  };
}

PeerProduct peer_of(const Shape& s, ProductKind kind, Matrix x, Matrix w, Matrix y) {
  switch (kind) {
    case ProductKind::nt: return {kind, s.m, s.n, s.k, x.data, w.data, y.data};
    case ProductKind::nn: return {kind, s.m, s.k, s.n, y.data, w.data, x.data};
    case ProductKind::tn: break;
  }
  return {kind, s.n, s.k, s.m, y.data, x.data, w.data};
}

void bench_product(const Bench& bench, const Shape& s, ProductKind kind) {
  const char* const form = kKindNames[static_cast<int>(kind)];
  const Case c = product_case(fmt::format("{} {} {}", s.name, form, size_of(s)), s);
  if (!wanted(bench, c.name)) return;
  const FloatBuffer left = numbers(bench, s.m * s.k, 1);
  const FloatBuffer right = numbers(bench, s.n * s.k, 2);
  const FloatBuffer output(s.m * s.n);
  const Matrix x = left.matrix(s.m, s.k);
  const Matrix w = right.matrix(s.n, s.k);
  const Matrix y = output.matrix(s.m, s.n);
  const PeerProduct product = peer_of(s, kind, x, w, y);
  std::vector<Other> others;
  for (const Peer& peer : product_peers()) {
    others.push_back({std::string(peer.name), [&product, peer] { peer.product(product); }});
  }
  others.push_back({"onednn matmul", onednn_matmul(product, RightSide::as_it_is)});
  bench_beside(bench, c, fmt::format("product {} {} {} {}", form, s.m, s.n, s.k),
               product_of(bench, kind, x, w, y), others);
}

// A weight that is multiplied by one row after the other of a decoding model: packed once, and read
// from memory each time; beside the libraries by the weight as it is, but for oneDNN's primitive,
// which has an image of it, too; and one row by the same.
void bench_few_rows(const Bench& bench, const Shape& s) {
  Case c = product_case(fmt::format("{} nt {}", s.name, size_of(s)), s);
  const std::string ratio = fmt::format("four rows over one, fp32 {}x{}", s.n, s.k);
  if (!wanted(bench, c.name) && (s.m != 4 || !wanted(bench, ratio))) return;
  const double weight_bytes = 4.0 * static_cast<double>(s.n * s.k);
  if (weight_bytes >= kCachedBytes) {
    c.bytes = weight_bytes;
    c.sets = sets_beyond_caches(weight_bytes);
  }
  const FloatBuffer left = numbers(bench, s.m * s.k, 1);
  const FloatBuffer output(s.m * s.n);
  std::vector<FloatBuffer> weights;
  std::vector<kernels::PackedWeight> packed;
  for (Index set = 0; set < c.sets; ++set) {
    weights.push_back(numbers(bench, s.n * s.k, 2));
    packed.push_back(*kernels::pack_weight(bench.ctx, weights.back().matrix(s.n, s.k)));
  }
  Turns turns(c.sets);
  const auto rows = [&](Index count) {
    return [&, count] {
      const std::size_t turn = turns.next();
      TUTTI_ASSERT(product_nt(bench.ctx, {.left = left.matrix(count, s.k),
                                          .right = weights[turn].matrix(s.n, s.k),
                                          .output = output.matrix(count, s.n),
                                          .packed = &packed[turn]}));
    };
  };
  std::vector<Other> others;
  for (const Peer& peer : product_peers()) {
    others.push_back({std::string(peer.name), [&, peer] {
                        peer.product({ProductKind::nt, s.m, s.n, s.k, left.data(),
                                      weights[turns.next()].data(), output.data()});
                      }});
  }
  others.push_back({"onednn matmul", in_turns(c.sets, [&, set = std::size_t{0}]() mutable {
                      return onednn_matmul({ProductKind::nt, s.m, s.n, s.k, left.data(),
                                            weights[set++].data(), output.data()},
                                           RightSide::image);
                    })});
  bench_beside(bench, c, fmt::format("product nt {} {} {}", s.m, s.n, s.k), rows(s.m), others);
  if (s.m != 4) return;
  c.name = ratio;
  bench_beside(bench, c, rows(4), {{"one row", rows(1)}});
}

// A layer that trains has all three forms, one that decodes has the first.
void bench_product(const Bench& bench, const Shape& shape) {
  if (shape.m <= kFewRows) return bench_few_rows(bench, shape);
  for (const ProductKind kind : {ProductKind::nt, ProductKind::nn, ProductKind::tn}) {
    bench_product(bench, shape, kind);
  }
}

// The weight gradient with eight shards inside beside the plain one: the ratio is the plain one's
// time over ours.
void bench_shards(const Bench& bench, const Shape& s) {
  const std::string name = fmt::format("{} tn by 8 shards {}x{}x{}", s.name, s.m, s.n, s.k);
  if (!wanted(bench, name)) return;
  const FloatBuffer left = numbers(bench, s.m * s.n, 1);
  const FloatBuffer right = numbers(bench, s.m * s.k, 2);
  FloatBuffer output(s.n * s.k);
  std::vector<Index> ends;
  for (Index shard = 1; shard <= 8; ++shard) ends.push_back(shard * s.m / 8);
  bench_beside(bench, product_case(name, s),
               [&] {
                 TUTTI_ASSERT(product_tn_shards(bench.ctx, {.left = left.matrix(s.m, s.n),
                                                            .right = right.matrix(s.m, s.k),
                                                            .output = output.matrix(s.n, s.k),
                                                            .ends = ends}));
               },
               {{"plain", [&] {
                   TUTTI_ASSERT(product_tn(bench.ctx, {.left = left.matrix(s.m, s.n),
                                                       .right = right.matrix(s.m, s.k),
                                                       .output = output.matrix(s.n, s.k)}));
                 }}});
}

// The second product of a gated layer, and one that ends in a GELU and in bf16, beside the same ops
// one after the other; few rows by a packed image.
void bench_ends(const Bench& bench, const Shape& s) {
  const std::string shape = fmt::format("{} {}x{}x{}", s.name, s.m, s.n, s.k);
  if (!wanted(bench, "ends silu gate " + shape) && !wanted(bench, "ends gelu to bf16 " + shape)) {
    return;
  }
  FloatBuffer left = numbers(bench, s.m * s.k, 1);
  // Outputs of a deviation of 1, as a model has them: far from zero an activation passes denormal
  // numbers, which some machines take a hundred cycles for.
  for (float& x : left.span()) x *= 3.0F / std::sqrt(static_cast<float>(s.k));
  const FloatBuffer right = numbers(bench, s.n * s.k, 2);
  const FloatBuffer gates = numbers(bench, s.m * s.n, 3);
  FloatBuffer output(s.m * s.n);
  std::vector<kernels::Bf16> halves(static_cast<std::size_t>(s.m * s.n));
  const auto packed = kernels::pack_weight(bench.ctx, right.matrix(s.n, s.k));
  const Matrix out = output.matrix(s.m, s.n);
  const kernels::Product plain{.left = left.matrix(s.m, s.k),
                               .right = right.matrix(s.n, s.k),
                               .output = out,
                               .packed = s.m <= 32 ? &*packed : nullptr};
  kernels::Product gated = plain;
  gated.activation = kernels::Activation::silu;
  gated.gate = gates.matrix(s.m, s.n);
  bench_beside(
      bench, product_case("ends silu gate " + shape, s),
      [&] { TUTTI_ASSERT(product_nt(bench.ctx, gated)); },
      {{"separate", [&] {
          TUTTI_ASSERT(product_nt(bench.ctx, plain));
          TUTTI_ASSERT(silu_gate_forward(bench.ctx, {.gate = gated.gate, .up = out, .y = out}));
        }}});
  kernels::Product rounded = plain;
  rounded.output = {};
  rounded.activation = kernels::Activation::gelu_tanh;
  rounded.narrow = {halves.data(), s.m, s.n};
  bench_beside(bench, product_case("ends gelu to bf16 " + shape, s),
               [&] { TUTTI_ASSERT(product_nt(bench.ctx, rounded)); },
               {{"separate", [&] {
                   TUTTI_ASSERT(product_nt(bench.ctx, plain));
                   TUTTI_ASSERT(activation_forward(
                       bench.ctx, {.kind = kernels::Activation::gelu_tanh, .x = out, .y = out}));
                   TUTTI_ASSERT(to_bf16(bench.ctx, output.span(), halves));
                 }}});
}

// What libraries have for such a batch: oneDNN one primitive, the others a product each.
std::vector<Other> peers_of_batch(const PeerProduct& first, Index count) {
  std::vector<Other> others;
  for (const Peer& peer : product_peers()) {
    others.push_back({std::string(peer.name), [first, count, peer] {
                        PeerProduct one = first;
                        for (Index i = 0; i < count; ++i) {
                          peer.product(one);
                          one.left += one.m * one.k;
                          one.right += one.k * one.n;
                          one.output += one.m * one.n;
                        }
                      }});
  }
  others.push_back({"onednn matmul", onednn_batched(first, count)});
  return others;
}

// A batch beside as many calls, beside PyTorch and the libraries: heads, those of a long prompt,
// and few large products.
void bench_batched(const Bench& bench) {
  std::vector<Stack> stacks = {
      {96, {"", 32, 32, 64}}, {12, {"", 1024, 64, 1024}}, {3, {"", 512, 512, 512}}};
  stacks.insert(stacks.end(), std::begin(kHeadStacks), std::end(kHeadStacks));
  struct Form {
    kernels::ProductForm form;
    const char* name;
    ProductKind kind;
    Result<> (*one)(const kernels::OpContext&, const kernels::Product&);
  };
  for (const Form& f :
       {Form{kernels::ProductForm::nt, "nt", ProductKind::nt, kernels::product_nt},
        Form{kernels::ProductForm::nn, "nn", ProductKind::nn, kernels::product_nn},
        Form{kernels::ProductForm::tn, "tn", ProductKind::tn, kernels::product_tn}}) {
    for (const Stack& b : stacks) {
      const Shape& s = b.s;
      Case c = product_case(fmt::format("batched {} {} of {}", f.name, b.count, size_of(s)), s);
      c.flops *= static_cast<double>(b.count);
      if (!wanted(bench, c.name)) continue;
      const FloatBuffer left = numbers(bench, b.count * s.m * s.k, 1);
      const FloatBuffer right = numbers(bench, b.count * s.n * s.k, 2);
      const FloatBuffer output(b.count * s.m * s.n);
      const bool turned = f.form == kernels::ProductForm::tn;
      const bool as_it_is = f.form == kernels::ProductForm::nt;
      const kernels::BatchedProduct batch{
          .form = f.form,
          .count = b.count,
          .left = turned ? left.matrix(s.k, s.m) : left.matrix(s.m, s.k),
          .left_step = s.m * s.k,
          .right = as_it_is ? right.matrix(s.n, s.k) : right.matrix(s.k, s.n),
          .right_step = s.n * s.k,
          .output = output.matrix(s.m, s.n),
          .output_step = s.m * s.n};
      std::vector<Other> others = peers_of_batch(
          {f.kind, s.m, s.n, s.k, left.data(), right.data(), output.data()}, b.count);
      others.push_back({"one by one", [&] {
                          for (Index i = 0; i < b.count; ++i) {
                            kernels::Product one{
                                .left = batch.left, .right = batch.right, .output = batch.output};
                            one.left.data += i * batch.left_step;
                            one.right.data += i * batch.right_step;
                            one.output.data += i * batch.output_step;
                            TUTTI_ASSERT(f.one(bench.ctx, one));
                          }
                        }});
      bench_beside(
          bench, c, fmt::format("bmm f32 {} {} {} {} {}", f.name, b.count, s.m, s.n, s.k),
          [&] { TUTTI_ASSERT(product_batched(bench.ctx, batch)); }, others);
    }
  }
}

}  // namespace

void bench_products(const Bench& bench) {
  for (const Shape& shape : kShapes) {
    bench_product(bench, shape);
    bench_ends(bench, shape);
    if (shape.m >= 1024) bench_shards(bench, shape);
  }
  for (const Shape& shape : kHeads) bench_product(bench, shape);
  bench_shards(bench, {"7b attention", 512, 4096, 4096});
  if (takes_its_time(bench)) {
    bench_product(bench, kPaddedHead, ProductKind::nt);
    bench_product(bench, kDecodeHead);
  }
  bench_batched(bench);
  bench_bf16(bench);
}

}  // namespace tutti::bench
