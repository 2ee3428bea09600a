// Products beside BLIS, oneDNN and PyTorch (MKL): fp32, bf16, quantised weights, the tree of
// shards.
#include <fmt/core.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ops/product.h"
#include "kernels/ops/product_batched.h"
#include "kernels/ops/product_bf16.h"
#include "kernels/ops/silu_gate.h"
#include "kernels/ops/weights/packed_bf16.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/ops/weights/product_int8.h"
#include "kernels/ops/weights/product_quantised_nn.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "kernels/tensor/rounding.h"
#include "ops/bench/kernels_cases.h"
#include "ops/bench/kernels_peers.h"
#include "ops/bench/peer_process.h"

namespace tutti::bench {

using kernels::FloatBuffer;
using kernels::Index;
using kernels::Matrix;

namespace {

using Run = std::function<void()>;

struct Shape {
  const char* name;
  Index m, n, k;
};

// Rows, outputs, inputs of the linear layers; tokens of one micro-batch, and one token (decoding).
constexpr Shape kShapes[] = {
    {"demo attention", 2048, 192, 192}, {"demo up", 2048, 512, 192},
    {"demo down", 2048, 192, 512},      {"demo head", 256, 2048, 192},
    {"gpt2 attention", 1024, 768, 768}, {"gpt2 up", 1024, 3072, 768},
    {"gpt2 down", 1024, 768, 3072},     {"gpt2 256", 256, 768, 768},
    {"gpt2 64", 64, 768, 768},          {"gpt2 up 64", 64, 3072, 768},
    {"gpt2 16", 16, 3072, 768},         {"demo decode", 1, 512, 192},
    {"gpt2 decode", 1, 3072, 768},      {"gpt2 decode 8", 8, 3072, 768},
    {"7b decode", 1, 11008, 4096},      {"7b decode 4", 4, 11008, 4096},
    {"7b attention", 512, 4096, 4096},  {"7b up", 512, 11008, 4096},
    {"7b down", 512, 4096, 11008},
};

// The same line beside PyTorch, where it is there; `line` has ours already.
void beside_torch(const Bench& bench, const std::string& peer_case, const Run& ours, Line line) {
  PeerProcess& torch = torch_peer(bench.options.threads);
  if (!torch.available() || !torch.prepare(peer_case)) return;
  const Pair pair = measure_with_peer(ours, torch, bench.options.seconds, bench.clock());
  const double slower = pair.ours.median() / line.ours->median();
  line.peer = "pytorch";
  line.ours = &pair.ours;
  line.theirs = &pair.theirs;
  line.rate /= slower;
  line.share /= slower;
  print_line(line);
}

void bench_product(const Bench& bench, const Shape& s, ProductKind kind) {
  const char* const names[] = {"nt", "nn", "tn"};
  const std::string name =
      fmt::format("{} {} {}x{}x{}", s.name, names[static_cast<int>(kind)], s.m, s.n, s.k);
  if (!wanted(bench, name)) return;
  const FloatBuffer left = numbers(bench, s.m * s.k, 1);
  const FloatBuffer right = numbers(bench, s.n * s.k, 2);
  FloatBuffer output(s.m * s.n);
  const Matrix out = output.matrix(s.m, s.n);
  // The three products of one linear layer, each over its own sum.
  Run ours;
  PeerProduct peer{kind, s.m, s.n, s.k, left.data(), right.data(), output.data()};
  if (kind == ProductKind::nt) {
    ours = [&bench, s, &left, &right, out] {
      TUTTI_ASSERT(product_nt(
          bench.ctx,
          {.left = left.matrix(s.m, s.k), .right = right.matrix(s.n, s.k), .output = out}));
    };
  } else if (kind == ProductKind::nn) {
    peer = {kind, s.m, s.k, s.n, output.data(), right.data(), left.data()};
    ours = [&bench, s, &left, &right, out] {
      TUTTI_ASSERT(product_nn(
          bench.ctx,
          {.left = out, .right = right.matrix(s.n, s.k), .output = left.matrix(s.m, s.k)}));
    };
  } else {
    peer = {kind, s.n, s.k, s.m, output.data(), left.data(), right.data()};
    ours = [&bench, s, &left, &right, out] {
      TUTTI_ASSERT(product_tn(
          bench.ctx,
          {.left = out, .right = left.matrix(s.m, s.k), .output = right.matrix(s.n, s.k)}));
    };
  }
  std::vector<Run> runs = {ours};
  const std::vector<Peer> peers = product_peers();
  for (const Peer& p : peers) runs.push_back([&p, &peer] { p.product(peer); });
  std::optional<kernels::PackedWeight> packed;
  if (kind == ProductKind::nt && s.m <= 32) {
    packed = std::move(*kernels::pack_weight(bench.ctx, right.matrix(s.n, s.k)));
    runs[0] = [&bench, s, &left, &right, out, &packed] {
      TUTTI_ASSERT(product_nt(bench.ctx, {.left = left.matrix(s.m, s.k),
                                          .right = right.matrix(s.n, s.k),
                                          .output = out,
                                          .packed = &*packed}));
    };
  }
  const auto samples = measure(runs, bench.options.seconds, bench.clock());
  const double work = 2.0 * static_cast<double>(s.m * s.n * s.k) * 1e-9;
  Line line{.bench = "kernels/product", .name = name, .ours = samples.data(), .peer = {}};
  line.rate = work / samples[0].median();
  line.share = line.rate / bench.peak_gflops;
  const std::string shape = fmt::format("{} {} {}", s.m, s.n, s.k);
  beside_torch(bench, fmt::format("product {} {}", names[static_cast<int>(kind)], shape), runs[0],
               line);
  if (peers.empty()) print_line(line);
  for (std::size_t i = 0; i < peers.size(); ++i) {
    line.peer = peers[i].name;
    line.theirs = &samples[i + 1];
    print_line(line);
  }
}

struct OtherCase {
  std::string name;
  const char* peer;  // what the other way is called
  double flops;
  double ceiling = 0.0;  // in GFLOP/s, where it is not that of fp32
  double bytes = 0.0;    // above 0: the share is of the memory ceiling
};

// Beside another way to compute the same, ours or a library's: the ratio is that one's time over
// ours. Nothing is measured where there is no other.
void beside_other(const Bench& bench, const OtherCase& c, const Run& ours, const Run& other) {
  if (!other) return;
  const auto samples = measure(std::vector<Run>{ours, other}, bench.options.seconds, bench.clock());
  Line line{.bench = "kernels/product", .name = c.name, .ours = samples.data(), .peer = c.peer};
  line.theirs = &samples[1];
  line.rate = c.flops * 1e-9 / samples[0].median();
  line.share = c.bytes > 0.0 ? c.bytes * 1e-9 / samples[0].median() / bench.read_gbps
                             : line.rate / (c.ceiling > 0.0 ? c.ceiling : bench.peak_gflops);
  print_line(line);
}

// The three products of a linear layer, each over its own sum.
struct Sides {
  Index Shape::*rows;
  Index Shape::*columns;
};
struct Bf16Kind {
  const char* name;
  Result<> (*op)(const kernels::OpContext&, const kernels::Bf16Product&);
  Result<> (*fp32)(const kernels::OpContext&, const kernels::Product&);
  Sides left, right, output;
};
constexpr Sides kTokensInputs{&Shape::m, &Shape::k};
constexpr Sides kTokensOutputs{&Shape::m, &Shape::n};
constexpr Sides kWeights{&Shape::n, &Shape::k};
constexpr Bf16Kind kBf16Kinds[] = {
    {"nt", kernels::product_bf16_nt, kernels::product_nt, kTokensInputs, kWeights, kTokensOutputs},
    {"nn", kernels::product_bf16_nn, kernels::product_nn, kTokensOutputs, kWeights, kTokensInputs},
    {"tn", kernels::product_bf16_tn, kernels::product_tn, kTokensOutputs, kTokensInputs, kWeights},
};

struct ArithmeticRow {
  kernels::Bf16Arithmetic arithmetic;
  const char* name;
  double Bench::*ceiling;
};
constexpr ArithmeticRow kArithmetics[] = {
    {kernels::Bf16Arithmetic::tiles, "tiles", &Bench::tiles_gops},
    {kernels::Bf16Arithmetic::native, "native", &Bench::bf16_gops},
    {kernels::Bf16Arithmetic::widened, "widened", &Bench::peak_gflops},
};

// bf16 operands at training shapes; the share is of the ceiling of the arithmetic in use.
void bench_bf16(const Bench& bench, const Shape& s, ProductKind kind, const ArithmeticRow& row) {
  if (!kernels::has_bf16(row.arithmetic)) return;
  const Bf16Kind& k = kBf16Kinds[static_cast<int>(kind)];
  const std::string name =
      fmt::format("bf16 {} {} {} {}x{}x{}", row.name, s.name, k.name, s.m, s.n, s.k);
  if (!wanted(bench, name)) return;
  const auto rows = [&](const Sides& sides) { return s.*sides.rows; };
  const auto columns = [&](const Sides& sides) { return s.*sides.columns; };
  const auto halves = [&](const Sides& sides, std::uint64_t stream) {
    const Index count = rows(sides) * columns(sides);
    std::vector<kernels::Bf16> made(static_cast<std::size_t>(count));
    TUTTI_ASSERT(to_bf16(bench.ctx, numbers(bench, count, stream).span(), made));
    return made;
  };
  const auto left = halves(k.left, 1);
  const auto right = halves(k.right, 2);
  FloatBuffer output(rows(k.output) * columns(k.output));
  const Run ours = [&] {
    TUTTI_ASSERT(k.op(bench.ctx, {.left = {left.data(), rows(k.left), columns(k.left)},
                                  .right = {right.data(), rows(k.right), columns(k.right)},
                                  .output = output.matrix(rows(k.output), columns(k.output)),
                                  .arithmetic = row.arithmetic}));
  };
  const double flops = 2.0 * static_cast<double>(s.m * s.n * s.k);
  const double ceiling = bench.*row.ceiling;
  bench_beside(bench,
               {.name = name,
                .peer_case = fmt::format("product_bf16 {} {} {} {}", k.name, s.m, s.n, s.k),
                .flops = flops,
                .ceiling = ceiling},
               ours);
  beside_other(bench, {.name = name, .peer = "onednn", .flops = flops, .ceiling = ceiling}, ours,
               onednn_bf16_product({.kind = kind,
                                    .m = rows(k.output),
                                    .n = columns(k.output),
                                    .k = s.m * s.n * s.k / (rows(k.output) * columns(k.output)),
                                    .left = left.data(),
                                    .right = right.data(),
                                    .output = output.data()}));
}

// fp32 operands, rounded on the way as training has it, beside their fp32 product.
void bench_rounded(const Bench& bench, const Shape& s, ProductKind kind, const ArithmeticRow& row) {
  if (!kernels::has_bf16(row.arithmetic)) return;
  const Bf16Kind& k = kBf16Kinds[static_cast<int>(kind)];
  const std::string name =
      fmt::format("rounded {} {} {} {}x{}x{}", row.name, s.name, k.name, s.m, s.n, s.k);
  if (!wanted(bench, name)) return;
  const auto rows = [&](const Sides& sides) { return s.*sides.rows; };
  const auto columns = [&](const Sides& sides) { return s.*sides.columns; };
  const FloatBuffer left = numbers(bench, rows(k.left) * columns(k.left), 1);
  const FloatBuffer right = numbers(bench, rows(k.right) * columns(k.right), 2);
  FloatBuffer output(rows(k.output) * columns(k.output));
  const kernels::Product args{.left = left.matrix(rows(k.left), columns(k.left)),
                              .right = right.matrix(rows(k.right), columns(k.right)),
                              .output = output.matrix(rows(k.output), columns(k.output))};
  beside_other(
      bench,
      {.name = name,
       .peer = "fp32",
       .flops = 2.0 * static_cast<double>(s.m * s.n * s.k),
       .ceiling = bench.*row.ceiling},
      [&] {
        const kernels::RoundingScope rounding(row.arithmetic);
        TUTTI_ASSERT(k.fp32(bench.ctx, args));
      },
      [&] { TUTTI_ASSERT(k.fp32(bench.ctx, args)); });
}

// By an image of the weight, beside the weight as it is.
void bench_bf16_packed(const Bench& bench, const Shape& s, const ArithmeticRow& row) {
  if (!kernels::has_bf16(row.arithmetic)) return;
  const std::string name =
      fmt::format("bf16 {} packed {} nt {}x{}x{}", row.name, s.name, s.m, s.n, s.k);
  if (!wanted(bench, name)) return;
  std::vector<kernels::Bf16> left(static_cast<std::size_t>(s.m * s.k));
  std::vector<kernels::Bf16> right(static_cast<std::size_t>(s.n * s.k));
  TUTTI_ASSERT(to_bf16(bench.ctx, numbers(bench, s.m * s.k, 1).span(), left));
  TUTTI_ASSERT(to_bf16(bench.ctx, numbers(bench, s.n * s.k, 2).span(), right));
  FloatBuffer output(s.m * s.n);
  const kernels::Bf16Product plain{.left = {left.data(), s.m, s.k},
                                   .right = {right.data(), s.n, s.k},
                                   .output = output.matrix(s.m, s.n),
                                   .arithmetic = row.arithmetic};
  const auto image = kernels::pack_bf16_weight(bench.ctx, plain.right, row.arithmetic);
  TUTTI_ASSERT(image.ok());
  kernels::Bf16Product packed = plain;
  packed.packed = &*image;
  const Run ours = [&] { TUTTI_ASSERT(product_bf16_nt(bench.ctx, packed)); };
  const OtherCase c{.name = name,
                    .peer = "not packed",
                    .flops = 2.0 * static_cast<double>(s.m * s.n * s.k),
                    .ceiling = bench.*row.ceiling};
  beside_other(bench, c, ours, [&] { TUTTI_ASSERT(product_bf16_nt(bench.ctx, plain)); });
  OtherCase beside_library = c;
  beside_library.peer = "onednn";
  beside_other(bench, beside_library, ours,
               onednn_bf16_product({.m = s.m,
                                    .n = s.n,
                                    .k = s.k,
                                    .left = left.data(),
                                    .right = right.data(),
                                    .output = output.data(),
                                    .right_side = RightSide::image}));
}

// A layer of a 7B model and one of GPT-2 by quantised weights. Up to 32 rows the share is of the
// memory ceiling (the image read once), beyond of the int8 ceiling.
void bench_quantised(const Bench& bench, Index outputs, Index inputs) {
  FloatBuffer weight;
  for (const kernels::WeightFormat format : kernels::kWeightFormats) {
    const std::string text = fmt::format("{} {}x{}", to_string(format), outputs, inputs);
    if (!wanted(bench, "quantised " + text)) continue;
    if (weight.size() == 0) weight = numbers(bench, outputs * inputs, 1);
    const auto packed = quantise_weight(bench.ctx, format, weight.matrix(outputs, inputs));
    TUTTI_ASSERT(packed.ok());
    const bool exact = !kernels::has_integer_codes(format);
    for (const Index rows : {1, 4, 16, 64, 512}) {
      if (rows > 64 && format != kernels::WeightFormat::int8_channel) continue;
      const FloatBuffer x = numbers(bench, rows * inputs, 2);
      FloatBuffer y(rows * outputs);
      BesideCase c{.name = fmt::format("quantised {} rows {}", text, rows)};
      if (rows <= 32) {
        c.bytes = static_cast<double>(packed->bytes());
      } else {
        c.flops = 2.0 * static_cast<double>(rows * outputs * inputs);
        c.ceiling = exact ? bench.peak_gflops : bench.int8_gops;
      }
      bench_beside(bench, c, [&] {
        TUTTI_ASSERT(product_quantised(
            bench.ctx,
            {.left = x.matrix(rows, inputs),
             .right = &*packed,
             .output = y.matrix(rows, outputs),
             .activations = exact ? kernels::Activations::exact : kernels::Activations::int8}));
      });
    }
  }
}

// The gradient to the inputs of such a layer, beside that of the weight in f32.
void bench_quantised_nn(const Bench& bench, Index rows, Index outputs, Index inputs) {
  const FloatBuffer weight = numbers(bench, outputs * inputs, 1);
  const FloatBuffer dy = numbers(bench, rows * outputs, 2);
  const FloatBuffer dx(rows * inputs);
  for (const kernels::WeightFormat format : kernels::kWeightFormats) {
    const std::string name =
        fmt::format("quantised nn {} {}x{}x{}", to_string(format), rows, outputs, inputs);
    if (!wanted(bench, name)) continue;
    const auto packed = quantise_weight(bench.ctx, format, weight.matrix(outputs, inputs));
    TUTTI_ASSERT(packed.ok());
    beside_other(
        bench,
        {.name = name,
         .peer = "f32 weight",
         .flops = 2.0 * static_cast<double>(rows * outputs * inputs)},
        [&] {
          TUTTI_ASSERT(product_quantised_nn(bench.ctx, {.left = dy.matrix(rows, outputs),
                                                        .right = &*packed,
                                                        .output = dx.matrix(rows, inputs)}));
        },
        [&] {
          TUTTI_ASSERT(product_nn(bench.ctx, {.left = dy.matrix(rows, outputs),
                                              .right = weight.matrix(outputs, inputs),
                                              .output = dx.matrix(rows, inputs)}));
        });
  }
}

struct Int8Rows {
  std::vector<std::int8_t> codes;
  FloatBuffer scales;
};

Int8Rows int8_rows(const Bench& bench, kernels::ConstMatrix x) {
  Int8Rows rows{std::vector<std::int8_t>(static_cast<std::size_t>(x.rows * x.columns)),
                FloatBuffer(x.rows)};
  TUTTI_ASSERT(to_int8_rows(
      bench.ctx,
      {.x = x, .codes = {rows.codes.data(), x.rows, x.columns}, .scales = rows.scales.data()}));
  return rows;
}

// Rows that were rounded before by an int8 weight, beside the product that rounds them itself and
// beside oneDNN. Few rows are a share of the memory ceiling (the image read once).
void bench_int8(const Bench& bench, Index outputs, Index inputs) {
  FloatBuffer weight;
  const auto format = kernels::WeightFormat::int8_channel;
  for (const Index rows : {1, 4, 64, 512}) {
    const std::string name = fmt::format("int8 product {}x{}x{}", rows, outputs, inputs);
    if (!wanted(bench, name)) continue;
    if (weight.size() == 0) weight = numbers(bench, outputs * inputs, 1);
    const auto packed = quantise_weight(bench.ctx, format, weight.matrix(outputs, inputs));
    TUTTI_ASSERT(packed.ok());
    const FloatBuffer x = numbers(bench, rows * inputs, 2);
    FloatBuffer y(rows * outputs);
    const Int8Rows left = int8_rows(bench, x.matrix(rows, inputs));
    const Run ours = [&] {
      TUTTI_ASSERT(product_int8(bench.ctx, {.codes = {left.codes.data(), rows, inputs},
                                            .scales = left.scales.data(),
                                            .right = &*packed,
                                            .output = y.matrix(rows, outputs)}));
    };
    OtherCase c{.name = name,
                .peer = "rounding its rows",
                .flops = 2.0 * static_cast<double>(rows * outputs * inputs),
                .ceiling = bench.int8_gops,
                .bytes = rows <= 32 ? static_cast<double>(packed->bytes()) : 0.0};
    beside_other(bench, c, ours, [&] {
      TUTTI_ASSERT(product_quantised(
          bench.ctx,
          {.left = x.matrix(rows, inputs), .right = &*packed, .output = y.matrix(rows, outputs)}));
    });
    c.peer = "onednn";
    const Int8Rows right = int8_rows(bench, weight.matrix(outputs, inputs));
    beside_other(bench, c, ours,
                 onednn_int8_product({.m = rows,
                                      .n = outputs,
                                      .k = inputs,
                                      .left = left.codes.data(),
                                      .right = right.codes.data(),
                                      .scales = right.scales.span(),
                                      .output = y.data()}));
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
  beside_other(
      bench, {.name = name, .peer = "plain", .flops = 2.0 * static_cast<double>(s.m * s.n * s.k)},
      [&] {
        TUTTI_ASSERT(product_tn_shards(bench.ctx, {.left = left.matrix(s.m, s.n),
                                                   .right = right.matrix(s.m, s.k),
                                                   .output = output.matrix(s.n, s.k),
                                                   .ends = ends}));
      },
      [&] {
        TUTTI_ASSERT(product_tn(bench.ctx, {.left = left.matrix(s.m, s.n),
                                            .right = right.matrix(s.m, s.k),
                                            .output = output.matrix(s.n, s.k)}));
      });
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
  const double flops = 2.0 * static_cast<double>(s.m * s.n * s.k);
  kernels::Product gated = plain;
  gated.activation = kernels::Activation::silu;
  gated.gate = gates.matrix(s.m, s.n);
  beside_other(
      bench, {.name = "ends silu gate " + shape, .peer = "separate", .flops = flops},
      [&] { TUTTI_ASSERT(product_nt(bench.ctx, gated)); },
      [&] {
        TUTTI_ASSERT(product_nt(bench.ctx, plain));
        TUTTI_ASSERT(silu_gate_forward(bench.ctx, {.gate = gated.gate, .up = out, .y = out}));
      });
  kernels::Product rounded = plain;
  rounded.output = {};
  rounded.activation = kernels::Activation::gelu_tanh;
  rounded.narrow = {halves.data(), s.m, s.n};
  beside_other(
      bench, {.name = "ends gelu to bf16 " + shape, .peer = "separate", .flops = flops},
      [&] { TUTTI_ASSERT(product_nt(bench.ctx, rounded)); },
      [&] {
        TUTTI_ASSERT(product_nt(bench.ctx, plain));
        TUTTI_ASSERT(activation_forward(
            bench.ctx, {.kind = kernels::Activation::gelu_tanh, .x = out, .y = out}));
        TUTTI_ASSERT(to_bf16(bench.ctx, output.span(), halves));
      });
}

// A batch beside as many calls: heads of GPT-2 and of a long prompt, and few large products.
void bench_batched(const Bench& bench) {
  struct Batch {
    Index count, m, n, k;
  };
  for (const Batch& s : {Batch{96, 32, 32, 64}, Batch{48, 256, 256, 64}, Batch{12, 1024, 64, 1024},
                         Batch{3, 512, 512, 512}}) {
    const std::string name = fmt::format("batched nt {} of {}x{}x{}", s.count, s.m, s.n, s.k);
    if (!wanted(bench, name)) continue;
    const FloatBuffer left = numbers(bench, s.count * s.m * s.k, 1);
    const FloatBuffer right = numbers(bench, s.count * s.n * s.k, 2);
    FloatBuffer output(s.count * s.m * s.n);
    const kernels::BatchedProduct batch{.count = s.count,
                                        .left = left.matrix(s.m, s.k),
                                        .left_step = s.m * s.k,
                                        .right = right.matrix(s.n, s.k),
                                        .right_step = s.n * s.k,
                                        .output = output.matrix(s.m, s.n),
                                        .output_step = s.m * s.n};
    beside_other(
        bench,
        {.name = name,
         .peer = "one by one",
         .flops = 2.0 * static_cast<double>(s.count * s.m * s.n * s.k)},
        [&] { TUTTI_ASSERT(product_batched(bench.ctx, batch)); },
        [&] {
          for (Index b = 0; b < s.count; ++b) {
            kernels::Product one{.left = batch.left, .right = batch.right, .output = batch.output};
            one.left.data += b * batch.left_step;
            one.right.data += b * batch.right_step;
            one.output.data += b * batch.output_step;
            TUTTI_ASSERT(product_nt(bench.ctx, one));
          }
        });
  }
}

}  // namespace

void bench_products(const Bench& bench) {
  for (const Shape& shape : kShapes) {
    for (const ProductKind kind : {ProductKind::nt, ProductKind::nn, ProductKind::tn}) {
      if (shape.m < 64 && kind != ProductKind::nt) continue;
      bench_product(bench, shape, kind);
    }
    bench_ends(bench, shape);
    for (const ArithmeticRow& row : kArithmetics) bench_bf16_packed(bench, shape, row);
    if (shape.m < 64) continue;
    for (const ProductKind kind : {ProductKind::nt, ProductKind::nn, ProductKind::tn}) {
      for (const ArithmeticRow& row : kArithmetics) {
        bench_bf16(bench, shape, kind, row);
        bench_rounded(bench, shape, kind, row);
      }
    }
    if (shape.m >= 1024) bench_shards(bench, shape);
  }
  bench_batched(bench);
  bench_quantised(bench, 3072, 768);
  bench_quantised(bench, 11008, 4096);
  bench_quantised_nn(bench, 512, 3072, 768);
  bench_int8(bench, 11008, 4096);
}

}  // namespace tutti::bench
