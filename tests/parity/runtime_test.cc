// What a step costs beside its arithmetic: nothing is allocated, ops are counted, threads stay on
// their cores.
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "kernels/ops/adamw.h"
#include "kernels/ops/add.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/choose_tokens.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/elementwise/clear.h"
#include "kernels/ops/elementwise/dropout.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/elementwise/softmax.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/ops/optimizers/adafactor.h"
#include "kernels/ops/optimizers/adamw8.h"
#include "kernels/ops/optimizers/lion.h"
#include "kernels/ops/optimizers/muon.h"
#include "kernels/ops/optimizers/schedule_free.h"
#include "kernels/ops/optimizers/sgd.h"
#include "kernels/ops/product.h"
#include "kernels/ops/product_batched.h"
#include "kernels/ops/product_bf16.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/rotary.h"
#include "kernels/ops/sampling.h"
#include "kernels/ops/silu_gate.h"
#include "kernels/ops/weights/packed_bf16.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/ops/weights/product_grouped.h"
#include "kernels/ops/weights/product_int8.h"
#include "kernels/ops/weights/product_quantised_nn.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "kernels/tensor/cores.h"
#include "kernels/tensor/op_counters.h"
#include "tests/parity/harness.h"
#include "tests/support/counted_allocations.h"

namespace tutti::kernels::parity {
namespace {

// The ops of one training step of a small layer, on memory made beforehand.
struct Layer {
  static constexpr Index kRows = 130;
  static constexpr Index kWidth = 64;
  static constexpr Index kVocabulary = 90;

  Floats x = draw(kRows * kWidth, 1);
  Floats weight = draw(kWidth * kWidth, 2);
  Floats gain = draw(kWidth, 3);
  Floats head = draw(kVocabulary * kWidth, 4);
  Floats a = Floats(kRows * kWidth), b = a, c = a, dq = a, dk = a, dv = a;
  Floats inverse = Floats(kRows * 2);
  Floats lse = Floats(kRows * 2), losses = Floats(kRows);
  Floats dweight = Floats(kWidth * kWidth), first = dweight, second = dweight;
  Floats dhead = Floats(kVocabulary * kWidth);
  std::vector<std::int32_t> targets = std::vector<std::int32_t>(kRows, 5);
  std::vector<std::int32_t> offsets = {0, 70, kRows};
  std::vector<double> sums = std::vector<double>(1);
  std::vector<Hash128> hashes = std::vector<Hash128>(1);

  Matrix rows(Floats& data) { return matrix(data, kRows, kWidth); }

  void step(const OpContext& ctx) {
    const AttentionShape shape{2, 2, 32, 0.2F};
    TUTTI_ASSERT(rms_norm_forward(ctx, {rows(x), gain.data(), rows(a), 1e-5F, inverse.data()}));
    TUTTI_ASSERT(
        product_nt(ctx, {.left = rows(a), .right = matrix(weight, 64, 64), .output = rows(b)}));
    TUTTI_ASSERT(
        attention_forward(ctx, {shape, rows(b), rows(a), rows(x), offsets, rows(c), lse.data()}));
    TUTTI_ASSERT(attention_backward(ctx, {shape, rows(b), rows(a), rows(x), rows(c), rows(a),
                                          lse.data(), offsets, rows(dq), rows(dk), rows(dv)}));
    TUTTI_ASSERT(layer_norm_forward(
        ctx, {.x = rows(c), .weight = gain.data(), .y = rows(b), .mean = inverse.data()}));
    TUTTI_ASSERT(linear_cross_entropy(ctx, {.hidden = rows(b),
                                            .weight = matrix(head, kVocabulary, kWidth),
                                            .targets = targets,
                                            .losses = losses.data(),
                                            .dhidden = rows(c),
                                            .dweight = matrix(dhead, kVocabulary, kWidth)}));
    TUTTI_ASSERT(
        product_tn(ctx, {.left = rows(c), .right = rows(a), .output = matrix(dweight, 64, 64)}));
    TUTTI_ASSERT(square_sums(ctx, dweight, sums));
    TUTTI_ASSERT(adamw_update(ctx, {{}, weight, dweight, first, second, hashes}));
    TUTTI_ASSERT(muon_update(
        ctx, {{}, matrix(weight, 64, 64), matrix(dweight, 64, 64), matrix(first, 64, 64)}));
  }
};

// The ops that such a step does not call, each once.
struct OtherOps {
  static constexpr Index kRows = 130;
  static constexpr Index kWidth = 64;
  static constexpr Index kSize = kRows * kWidth;

  Floats x = draw(kSize, 1), up = draw(kSize, 2), dy = draw(kSize, 3);
  Floats a = Floats(kSize), b = a, c = a;
  Floats weight = draw(kWidth * kWidth, 4), gradient = draw(kWidth * kWidth, 5);
  Floats first = Floats(weight.size()), second = first, base = weight, dweight = first;
  Floats row = Floats(kWidth), column = Floats(kWidth), statistics = draw(kRows, 6);
  Floats cosine = draw(kRows * 16, 7), sine = draw(kRows * 16, 8);
  Floats table = draw(50 * kWidth, 9);
  std::vector<float> frequencies = rotary_frequencies({.width = 32});
  std::vector<std::int32_t> tokens = std::vector<std::int32_t>(kRows, 7);
  std::vector<Bf16> halves = std::vector<Bf16>(kSize), half_weight = std::vector<Bf16>(4096);
  std::vector<std::int8_t> first8 = std::vector<std::int8_t>(weight.size());
  std::vector<std::uint8_t> second8 = std::vector<std::uint8_t>(weight.size());
  Floats scales = Floats(4);
  std::vector<Hash128> hashes = std::vector<Hash128>(1);
  std::vector<Index> ends = {30, 60, 60, kRows};
  AttentionShape shape{2, 2, 32, 0.2F};
  FloatBuffer memory{3 * kv_page_floats(shape)};
  std::vector<float*> pages = {memory.data(), memory.data() + kv_page_floats(shape),
                               memory.data() + 2 * kv_page_floats(shape)};
  SequenceRows sequence{0, kRows, 0, pages};
  Result<QuantisedWeight> codes =
      quantise_weight(single(), WeightFormat::q8_0, matrix(weight, kWidth, kWidth));
  Result<QuantisedWeight> channel =
      quantise_weight(single(), WeightFormat::int8_channel, matrix(weight, kWidth, kWidth));
  Result<PackedWeight> packed = pack_weight(single(), matrix(weight, kWidth, kWidth));
  std::vector<std::int8_t> codes8 = std::vector<std::int8_t>(kSize);
  std::vector<TokenDraw> draws = {{.settings = {.top_k = 5}, .position = 1, .logprob = true},
                                  {.settings = {.temperature = 0.0}, .position = 2}};
  std::vector<ChosenToken> chosen = std::vector<ChosenToken>(2);
  Sampler sampler;

  Matrix rows(Floats& data) { return matrix(data, kRows, kWidth); }
  Matrix square(Floats& data) { return matrix(data, kWidth, kWidth); }

  void step(const OpContext& ctx) {
    by_rows(ctx);
    by_products(ctx);
    by_weights(ctx);
  }

  void by_rows(const OpContext& ctx) {
    TUTTI_ASSERT(rms_norm_backward(ctx, {.dy = rows(dy),
                                         .x = rows(x),
                                         .weight = row.data(),
                                         .inverse = statistics.data(),
                                         .dx = rows(a),
                                         .dweight = column.data()}));
    TUTTI_ASSERT(layer_norm_backward(ctx, {.dy = rows(dy),
                                           .x = rows(x),
                                           .weight = row.data(),
                                           .mean = statistics.data(),
                                           .inverse = statistics.data(),
                                           .dx = rows(a),
                                           .dweight = column.data()}));
    TUTTI_ASSERT(silu_gate_forward(ctx, {.gate = rows(x), .up = rows(up), .y = rows(a)}));
    TUTTI_ASSERT(silu_gate_backward(
        ctx, {.dy = rows(dy), .gate = rows(x), .up = rows(up), .dgate = rows(a), .dup = rows(b)}));
    TUTTI_ASSERT(activation_forward(ctx, {Activation::gelu, rows(x), rows(a)}));
    TUTTI_ASSERT(activation_backward(ctx, {Activation::gelu, rows(dy), rows(x), rows(a)}));
    TUTTI_ASSERT(gate_forward(ctx, {Activation::gelu, rows(x), rows(up), rows(a)}));
    TUTTI_ASSERT(
        gate_backward(ctx, {Activation::gelu, rows(dy), rows(x), rows(up), rows(a), rows(b)}));
    TUTTI_ASSERT(softmax_forward(ctx, {rows(x), rows(a)}));
    TUTTI_ASSERT(softmax_backward(ctx, {rows(dy), rows(a), rows(b)}));
    TUTTI_ASSERT(log_softmax(ctx, rows(x), rows(a)));
    TUTTI_ASSERT(dropout(ctx, {{1, 2}, 0, 0.1, rows(x), rows(a)}));
    TUTTI_ASSERT(rotary_angles(ctx, {.positions = tokens,
                                     .frequencies = frequencies,
                                     .cosine = matrix(cosine, kRows, 16),
                                     .sine = matrix(sine, kRows, 16)}));
    TUTTI_ASSERT(rotary_apply(ctx, {.x = rows(a),
                                    .head_width = 32,
                                    .cosine = matrix(cosine, kRows, 16),
                                    .sine = matrix(sine, kRows, 16)}));
    TUTTI_ASSERT(embedding_forward(
        ctx, {.table = matrix(table, 50, kWidth), .tokens = tokens, .output = rows(a)}));
    TUTTI_ASSERT(embedding_backward(
        ctx, {.dout = rows(dy), .tokens = tokens, .dtable = matrix(table, 50, kWidth)}));
    TUTTI_ASSERT(add_into(ctx, a, b));
    const std::span<const float> parts[] = {x, up, dy, {}};
    TUTTI_ASSERT(tree_sum(ctx, {parts, a}));
    TUTTI_ASSERT(clear(ctx, b));
    TUTTI_ASSERT(fill_normal(ctx, {.key = {1, 2}, .out = b}));
    TUTTI_ASSERT(fill_uniform(ctx, {.key = {1, 2}, .low = -1.0, .high = 1.0, .out = b}));
    TUTTI_ASSERT(column_sums(ctx, {.x = rows(x), .output = column.data()}));
    TUTTI_ASSERT(to_bf16(ctx, x, halves));
    TUTTI_ASSERT(from_bf16(ctx, halves, a));
    TUTTI_ASSERT(to_bf16_stochastic(ctx, {.key = {1, 2}, .from = x, .to = halves}));
    static_cast<void>(sampler.sample(std::span(x).first(1000), {.top_p = 0.9, .seed = 1}, 5));
    TUTTI_ASSERT(choose_tokens(ctx, {matrix(x, 2, 1000), draws, chosen.data()}));
  }

  void by_products(const OpContext& ctx) {
    TUTTI_ASSERT(product_batched(ctx, {.count = 2,
                                       .left = matrix(x, kRows / 2, kWidth),
                                       .left_step = kSize / 2,
                                       .right = square(weight),
                                       .output = matrix(a, kRows / 2, kWidth),
                                       .output_step = kSize / 2}));
    TUTTI_ASSERT(product_nt(
        ctx, {.left = rows(x), .right = square(weight), .output = rows(a), .packed = &*packed}));
    TUTTI_ASSERT(product_nn(ctx, {.left = rows(dy), .right = square(weight), .output = rows(a)}));
    TUTTI_ASSERT(product_tn_shards(
        ctx, {.left = rows(dy), .right = rows(x), .output = square(dweight), .ends = ends}));
    TUTTI_ASSERT(to_bf16(ctx, weight, half_weight));
    const Bf16Matrix left(halves.data(), kRows, kWidth);
    const Bf16Matrix right(half_weight.data(), kWidth, kWidth);
    TUTTI_ASSERT(product_bf16_nt(ctx, {.left = left, .right = right, .output = rows(c)}));
    TUTTI_ASSERT(product_bf16_nn(ctx, {.left = left, .right = right, .output = rows(c)}));
    TUTTI_ASSERT(product_bf16_tn(ctx, {.left = left, .right = left, .output = square(dweight)}));
    TUTTI_ASSERT(product_bf16_batched(ctx, {.count = 2,
                                            .left = left.row_range(0, kRows / 2),
                                            .left_step = kSize / 2,
                                            .right = right,
                                            .output = matrix(c, kRows / 2, kWidth),
                                            .output_step = kSize / 2,
                                            .activation = Activation::silu}));
    const QuantisedWeight* const rights[] = {&*codes, &*codes};
    const Index groups[] = {30, kRows};
    TUTTI_ASSERT(product_quantised_grouped(
        ctx, {.left = rows(x), .rights = rights, .ends = groups, .output = rows(c)}));
    for (const Activations activations : {Activations::exact, Activations::int8}) {
      TUTTI_ASSERT(product_quantised(ctx, {.left = {},
                                           .right = &*codes,
                                           .output = rows(c),
                                           .activations = activations,
                                           .narrow_left = left}));
    }
    for (const Index count : {Index{1}, Index{4}, kRows}) {
      TUTTI_ASSERT(product_quantised(ctx, {.left = rows(x).row_range(0, count),
                                           .right = &*codes,
                                           .output = rows(c).row_range(0, count)}));
    }
    TUTTI_ASSERT(
        product_quantised_nn(ctx, {.left = rows(dy), .right = &*codes, .output = rows(c)}));
    TUTTI_ASSERT(to_int8_rows(ctx, {.x = rows(x),
                                    .codes = {codes8.data(), kRows, kWidth},
                                    .scales = matrix(statistics, kRows, 1)}));
    TUTTI_ASSERT(product_int8(ctx, {.codes = {codes8.data(), kRows, kWidth},
                                    .scales = matrix(std::as_const(statistics), kRows, 1),
                                    .right = &*channel,
                                    .output = rows(c)}));
    TUTTI_ASSERT(kv_write(ctx, {shape, rows(x), rows(up), std::span(&sequence, 1)}));
    TUTTI_ASSERT(attention_cached(ctx, {shape, rows(dy), std::span(&sequence, 1), rows(c)}));
  }

  void by_weights(const OpContext& ctx) {
    TUTTI_ASSERT(sgd_update(ctx, {{}, weight, gradient, first, hashes}));
    TUTTI_ASSERT(lion_update(ctx, {{}, weight, gradient, first, hashes}));
    TUTTI_ASSERT(schedule_free_update(ctx, {{}, weight, gradient, base, second, hashes}));
    TUTTI_ASSERT(schedule_free_average(ctx, {0.9, weight, base, second}));
    const std::span<float> both(scales);
    TUTTI_ASSERT(adamw8_update(
        ctx, {{}, weight, gradient, first8, second8, both.first(2), both.last(2), hashes}));
    TUTTI_ASSERT(
        adafactor_update(ctx, {{}, square(weight), square(gradient), row, column, hashes}));
    TUTTI_ASSERT(hash_blocks(ctx, weight, hashes));
    static_cast<void>(combine_hashes(hashes));
  }
};

// Other forms of ops that those steps call: pages of each type, decoded too, weights of each
// format, packed bf16, the loss by blocks, products and attention that round, a sum in pieces.
struct OtherForms {
  static constexpr Index kRows = 130;
  static constexpr Index kWidth = 64;
  static constexpr Index kInputs = 256;  // a whole block of every format

  Floats x = draw(kRows * kInputs, 1), y = Floats(x.size()), dq = y, dk = y, dv = y;
  Floats lse = Floats(kRows * 2), losses = Floats(kRows), dhead = Floats(90 * kWidth);
  Floats weight = draw(kWidth * kInputs, 2);
  std::vector<std::int32_t> targets = std::vector<std::int32_t>(kRows, 5);
  std::vector<std::int32_t> offsets = {0, 70, kRows};
  AttentionShape shape{2, 2, 32, 0.2F};
  FloatBuffer memory{3 * kv_page_floats(shape)};
  std::vector<float*> pages = {memory.data(), memory.data() + kv_page_floats(shape),
                               memory.data() + 2 * kv_page_floats(shape)};
  SequenceRows before{0, kRows - 1, 0, pages};
  SequenceRows last{kRows - 1, 1, kRows - 1, pages};
  std::vector<QuantisedWeight> weights = in_each_format(weight);
  std::vector<Bf16> halves = std::vector<Bf16>(x.size()), half_weight = halves;
  Result<PackedBf16Weight> packed =
      pack_bf16_weight(single(), {half_weight.data(), kWidth, kInputs}, Bf16Arithmetic::widened);
  std::vector<float*> pieces = {x.data(), y.data()};
  PieceSum::Addition addition{1, 0};
  AddPieces::Block block{0, kRows};
  std::vector<double> squares = std::vector<double>(1);

  static std::vector<QuantisedWeight> in_each_format(const Floats& values) {
    std::vector<QuantisedWeight> all;
    for (const WeightFormat format : kWeightFormats) {
      auto made = quantise_weight(single(), format, matrix(values, kWidth, kInputs));
      TUTTI_ASSERT(made);
      all.push_back(*std::move(made));
    }
    return all;
  }
  Matrix rows(Floats& data) { return matrix(data, kRows, kWidth); }

  void step(const OpContext& ctx) {
    for (const CacheType cache : {CacheType::f32, CacheType::bf16, CacheType::int8}) {
      shape.cache = cache;
      for (const SequenceRows& some : {before, last}) {
        const std::span one(&some, 1);
        TUTTI_ASSERT(kv_write(ctx, {shape, rows(x), rows(x), one}));
        TUTTI_ASSERT(attention_cached(ctx, {shape, rows(x), one, rows(y)}));
      }
    }
    const Index many = 20;
    for (const QuantisedWeight& by : weights) {
      for (const Index count : {Index{1}, Index{4}, many}) {
        for (const Activations kind : {Activations::exact, Activations::int8}) {
          if (kind == Activations::int8 && !has_integer_codes(by.format())) continue;
          TUTTI_ASSERT(
              product_quantised(ctx, {.left = matrix(x, kRows, kInputs).row_range(0, count),
                                      .right = &by,
                                      .output = rows(y).row_range(0, count),
                                      .activations = kind}));
        }
      }
      TUTTI_ASSERT(product_quantised_nn(
          ctx,
          {.left = rows(x).row_range(0, many), .right = &by, .output = matrix(y, many, kInputs)}));
    }
    TUTTI_ASSERT(product_bf16_nt(ctx, {.left = {halves.data(), kRows, kInputs},
                                       .right = {half_weight.data(), kWidth, kInputs},
                                       .output = rows(y),
                                       .packed = &*packed}));
    by_loss(ctx);
    rounding(ctx);
    TUTTI_ASSERT(add_pieces(ctx, {.pieces = pieces,
                                  .additions = std::span(&addition, 1),
                                  .count = kRows * kInputs,
                                  .sum = pieces[1],
                                  .blocks = std::span(&block, 1),
                                  .squares = squares}));
  }

  void by_loss(const OpContext& ctx) {
    for (const auto memory_of :
         {LinearCrossEntropy::Memory::rows, LinearCrossEntropy::Memory::blocks}) {
      TUTTI_ASSERT(linear_cross_entropy(ctx, {.hidden = rows(x),
                                              .weight = matrix(weight, 90, kWidth),
                                              .targets = targets,
                                              .losses = losses.data(),
                                              .dhidden = rows(y),
                                              .dweight = matrix(dhead, 90, kWidth),
                                              .smoothing = 0.1F,
                                              .memory = memory_of}));
    }
  }

  void rounding(const OpContext& ctx) {
    const RoundingScope scope(Bf16Arithmetic::widened);
    const ConstMatrix square = matrix(std::as_const(weight), kWidth, kWidth);
    TUTTI_ASSERT(product_nt(ctx, {.left = rows(x), .right = square, .output = rows(y)}));
    TUTTI_ASSERT(product_nn(ctx, {.left = rows(x), .right = square, .output = rows(y)}));
    TUTTI_ASSERT(product_tn(
        ctx, {.left = rows(x), .right = rows(y), .output = matrix(dhead, kWidth, kWidth)}));
    const AttentionShape plain{2, 2, 32, 0.2F};
    TUTTI_ASSERT(
        attention_forward(ctx, {plain, rows(x), rows(x), rows(x), offsets, rows(y), lse.data()}));
    TUTTI_ASSERT(attention_backward(ctx, {plain, rows(x), rows(x), rows(x), rows(y), rows(x),
                                          lse.data(), offsets, rows(dq), rows(dk), rows(dv)}));
  }
};

}  // namespace

TEST_CASE("runtime: after the first step a step allocates nothing, with any number of threads") {
  for (const int threads : {1, 2, 3, 4, 7}) {
    INFO(threads << " threads");
    Layer layer;
    OtherOps others;
    OtherForms forms;
    ThreadPool pool(threads);
    const OpContext ctx{&pool};
    // Which thread takes which piece differs from round to round: all have room for each.
    const auto allocated_by = [&](auto& ops) {
      const long before = test::counted_allocations() + AlignedBytes::allocations();
      ops.step(ctx);
      return test::counted_allocations() + AlignedBytes::allocations() - before;
    };
    REQUIRE(allocated_by(layer) + allocated_by(others) + allocated_by(forms) > 0);
    long later = 0;
    for (int round = 0; round < 40; ++round) later += allocated_by(layer) + allocated_by(others);
    for (int round = 0; round < 10; ++round) later += allocated_by(forms);
    REQUIRE(later == 0);
  }
}

TEST_CASE("runtime: an op that allocates each time is noticed") {
  long rounds = 0;
  for (int round = 0; round < 200; ++round) {
    const long before = test::counted_allocations() + AlignedBytes::allocations();
    const FloatBuffer fresh(16);
    if (test::counted_allocations() + AlignedBytes::allocations() != before) ++rounds;
  }
  REQUIRE(rounds == 200);
}

TEST_CASE("runtime: ops are counted with their work") {
  const auto count_of = [](std::string_view name) {
    for (const OpCount& count : op_counts()) {
      if (count.name == name) return count;
    }
    return OpCount{};
  };
  const OpCount before = count_of("attention_forward");
  const OpCount products = count_of("product_nt");
  Layer layer;
  layer.step(single());
  const OpCount after = count_of("attention_forward");
  REQUIRE(after.calls == before.calls + 1);
  REQUIRE(after.seconds > before.seconds);
  // Two samples of 70 and 60 tokens; of 64 columns two products of 2 operations, of two heads a
  // scale and a softmax.
  REQUIRE(after.flop - before.flop == (4 * 64 + 5 * 2) * (70 * 71 / 2 + 60 * 61 / 2));
  // Queries, keys, values and outputs of two heads of 32, and the sum of each row and head.
  REQUIRE(after.bytes - before.bytes == 4 * 130 * (4 * 64 + 2));
  REQUIRE(count_of("product_nt").flop - products.flop >= 2 * 2 * 130 * 64 * 64);
}

// Ops whose work has one part alone, and why.
struct OnePart {
  std::string_view op;
  std::string_view reason;
};
constexpr OnePart kWithoutFlop[] = {
    {"choose_tokens", "a greedy draw compares, others compute of a part of the row"},
    {"clear", "writes zeros"},
    {"embedding_forward", "copies rows"},
    {"from_bf16", "moves bits"},
    {"hash_blocks", "integers"},
    {"kv_write", "copies rows"},
    {"pack_bf16_weight", "copies"},
    {"pack_rows", "copies"},
    {"pack_weight", "copies"},
    {"to_bf16", "moves bits"},
    {"to_bf16_stochastic", "moves bits"},
};

TEST_CASE("runtime: every op has a counter, of its calls, its operations and its bytes") {
  Layer().step(single());
  OtherOps().step(single());
  OtherForms().step(single());
  const std::vector<OpCount> counts = op_counts();
  REQUIRE(counts.size() == kOpCount);
  for (const OpCount& count : counts) {
    INFO(count.name);
    REQUIRE(count.calls > 0);
    REQUIRE(count.bytes > 0);
    const bool computes =
        std::ranges::find(kWithoutFlop, count.name, &OnePart::op) == std::ranges::end(kWithoutFlop);
    REQUIRE((count.flop > 0) == computes);
  }
  for (const OnePart& one : kWithoutFlop) {
    INFO(one.op << ": " << one.reason);
    REQUIRE(std::ranges::find(counts, one.op, &OpCount::name) != counts.end());
  }
}

TEST_CASE("runtime: conversions count what they read and write, and rounding rows is no product") {
  const auto bytes_of = [](std::string_view name) {
    const std::vector<OpCount> counts = op_counts();
    const auto found = std::ranges::find(counts, name, &OpCount::name);
    return found == counts.end() ? 0 : found->bytes;
  };
  const auto all = [&] {
    std::array sums{bytes_of("to_bf16"), bytes_of("to_int8_rows"), std::int64_t{0}};
    for (const OpCount& count : op_counts()) {
      if (count.name.starts_with("product")) sums[2] += count.bytes;
    }
    return sums;
  };
  const Floats x = draw(70, 1);
  std::vector<Bf16> halves(x.size());
  std::vector<std::int8_t> codes(x.size());
  Floats scales(7);
  const auto before = all();
  REQUIRE(to_bf16(single(), x, halves));
  REQUIRE(to_int8_rows(single(), {matrix(x, 7, 10), {codes.data(), 7, 10}, matrix(scales, 7, 1)}));
  REQUIRE(all() == std::array{before[0] + 6 * 70, before[1] + 5 * 70, before[2]});
}

TEST_CASE("runtime: a call that has nothing to compute is not counted") {
  const auto calls = [] {
    std::int64_t sum = 0;
    for (const OpCount& count : op_counts()) sum += count.calls;
    return sum;
  };
  const std::int64_t before = calls();
  Floats none;
  REQUIRE(linear_cross_entropy(
      single(), {.hidden = matrix(none, 0, 4), .weight = matrix(none, 0, 4), .targets = {}}));
  REQUIRE(muon_update(single(), {.settings = {},
                                 .weight = matrix(none, 0, 4),
                                 .gradient = matrix(none, 0, 4),
                                 .velocity = matrix(none, 0, 4)}));
  REQUIRE(adafactor_update(single(), {.settings = {},
                                      .weight = matrix(none, 0, 0),
                                      .gradient = matrix(none, 0, 0),
                                      .row = {},
                                      .column = {}}));
  const std::vector<Index> ends = {0};
  REQUIRE(product_tn_shards(single(), {.left = matrix(none, 0, 0),
                                       .right = matrix(none, 0, 3),
                                       .output = matrix(none, 0, 3),
                                       .ends = ends}));
  REQUIRE(calls() == before);
}

TEST_CASE("cores: those that a thread is bound to are all that it may use") {
  const std::vector<int> all = cores_of_machine();
  REQUIRE_FALSE(all.empty());
  std::vector<int> bound;
  std::thread([&] {
    if (bind_thread(all.back())) bound = cores_of_machine();
  }).join();
  REQUIRE(bound == std::vector<int>{all.back()});
}

TEST_CASE("cores: lists that are none are refused") {
  REQUIRE(*parse_cores("2-4,8") == std::vector<int>{2, 3, 4, 8});
  for (const char* const wrong : {"", "a", "1-", "3-1", "1,,2", "-1", "99999"}) {
    REQUIRE_FALSE(parse_cores(wrong));
  }
}

TEST_CASE("cores: the threads of a pool stay where they are bound") {
  const std::vector<int> cores = cores_of_machine();
  REQUIRE_FALSE(cores.empty());
  // In a thread of its own: the caller is bound too.
  std::thread([&] {
    const int core = cores.back();
    ThreadPool pool(2, {core, core});
    std::atomic<bool> right{true};
    for (int loop = 0; loop < 100; ++loop) {
      pool.parallel_for(8, 1, [&](int, Index, Index) {
        if (sched_getcpu() != core) right = false;
      });
    }
    REQUIRE(right.load());
  }).join();
}

}  // namespace tutti::kernels::parity
