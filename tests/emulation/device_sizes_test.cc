// Sizes just past what a kernel does at once: more keys than a chunk of attention, more rows than a
// piece of a sum, more columns than a block, more logits than are held, more bytes than the ring.
// The parity cases are small; real models are not.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/cuda/attention/chunks.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/scratch.h"
#include "kernels/ops/add.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/ops/product.h"
#include "kernels/ops/reference/reference.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/silu_gate.h"
#include "kernels/tensor/thread_pool.h"
#include "tests/emulation/device_runs.h"
#include "tests/support/larger.h"

namespace tutti::kernels::cuda {
namespace {

using reference::Table;
using tutti::test::draw;
using tutti::test::Floats;

CudaDevice& device() {
  static const auto one = tutti::test::open_device_for(Products::Inputs::fp32);
  return *one;
}

OpContext here() {
  static ThreadPool pool(1);
  return {&pool, &device()};
}

Floats in_all_orders(const std::function<Floats()>& run) {
  static_cast<void>(device());  // whose memory the numbers are in
  return tutti::test::in_all_orders<float>(device(), run);
}

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

// The rounding errors of a sum of `terms` numbers about `size` large add up like steps of a random
// walk; five times its deviation, and the kernels' exponentials.
double tolerance(Index terms, double size) {
  return size * (5.0 * std::sqrt(static_cast<double>(terms)) * 0x1p-24 + 0x1p-20);
}

// One sequence, its pages, and the ways to attend to it.
struct Sequence {
  Sequence(Index heads, Index tokens_in)
      : Sequence({heads, heads, kWidth, 1.0F / std::sqrt(static_cast<float>(kWidth))}, tokens_in) {}
  Sequence(const AttentionShape& shape_in, Index tokens_in)
      : shape(shape_in),
        tokens(tokens_in),
        wide(shape.heads * shape.head_width),
        q(draw(tokens * wide, 1)),
        k(draw(tokens * shape.kv_heads * shape.head_width, 2)),
        v(draw(tokens * shape.kv_heads * shape.head_width, 3)),
        memory(size_of(kv_pages_for(tokens) * kv_page_floats(shape)), NAN) {
    for (float& value : q) value *= 4.0F;  // so that keys differ
    for (Index page = 0; page < kv_pages_for(tokens); ++page) {
      pages.push_back(memory.data() + page * kv_page_floats(shape));
    }
  }

  ConstMatrix rows_of(const Floats& values) const {
    return ConstMatrix(values.data(), static_cast<Index>(values.size()) / wide, wide);
  }
  ConstMatrix keys_of(const Floats& values) const {
    return ConstMatrix(values.data(), tokens, shape.kv_heads * shape.head_width);
  }
  Floats at_once() const {
    Floats out(q.size());
    const std::vector<std::int32_t> offsets{0, static_cast<std::int32_t>(tokens)};
    REQUIRE(attention_forward(here(), {.shape = shape,
                                       .q = rows_of(q),
                                       .k = keys_of(k),
                                       .v = keys_of(v),
                                       .sample_offsets = offsets,
                                       .out = Matrix(out.data(), tokens, wide)}));
    return out;
  }
  Floats in_pieces(const std::vector<Index>& pieces) {
    Floats out(q.size());
    Index first = 0;
    for (const Index rows : pieces) {
      const SequenceRows part{first, rows, first, pages};
      REQUIRE(kv_write(here(), {shape, keys_of(k), keys_of(v), std::span(&part, 1)}));
      REQUIRE(attention_cached(
          here(), {shape, rows_of(q), std::span(&part, 1), Matrix(out.data(), tokens, wide)}));
      first += rows;
    }
    REQUIRE(first == tokens);
    return out;
  }
  // In double precision.
  double exact(Index position, Index head, Index column) const {
    const auto at = [&](const Floats& values, Index token, Index d) {
      return static_cast<double>(values[size_of(token * wide + head * kWidth + d)]);
    };
    double total = 0.0;
    double sum = 0.0;
    for (Index key = 0; key <= position; ++key) {
      double score = 0.0;
      for (Index d = 0; d < kWidth; ++d) score += at(q, position, d) * at(k, key, d);
      const double weight = std::exp(score * static_cast<double>(shape.scale));
      total += weight;
      sum += weight * at(v, key, column);
    }
    return sum / total;
  }

  static constexpr Index kWidth = 8;
  AttentionShape shape;
  Index tokens, wide;
  Floats q, k, v, memory;
  std::vector<float*> pages;
};

}  // namespace

TEST_CASE("device sizes: over several chunks of keys, prefill, pieces and decoding agree") {
  struct Case {
    Index heads, tokens;
  };
  for (const Case& c : {Case{1, 1100}, Case{2, 1100}, Case{1, 2200}}) {
    INFO(c.heads << " heads, " << c.tokens << " keys");
    REQUIRE(c.tokens > kChunkKeys);
    static_cast<void>(device());
    Sequence sequence(c.heads, c.tokens);
    const Floats whole = sequence.at_once();
    REQUIRE(device().synchronize());
    double worst = 0.0;
    for (const Index position :
         {Index{0}, kChunkKeys - 1, kChunkKeys, kChunkKeys + 1, c.tokens - 1}) {
      for (Index column = 0; column < sequence.wide; ++column) {
        const double off = std::abs(
            static_cast<double>(whole[size_of(position * sequence.wide + column)]) -
            sequence.exact(position, column / Sequence::kWidth, column % Sequence::kWidth));
        worst = tutti::test::larger(worst, off);
      }
    }
    CHECK(worst <= tolerance(c.tokens, 1.0));
    // In pieces that end before, at and behind a chunk's border; then token by token, whose chunks
    // of keys are spread over blocks.
    CHECK(
        in_all_orders([&] {
          return sequence.in_pieces({1000, kChunkKeys - 1000, 1, c.tokens - kChunkKeys - 3, 1, 1});
        }) == whole);
  }
}

TEST_CASE("device sizes: chunks of keys give the same bits in one block and spread over several") {
  static_cast<void>(device());
  Sequence sequence(2, 1100);
  const Floats whole = sequence.in_pieces({1100});
  // As many sequences as fill a GPU, all of them with these keys: nothing is spread.
  constexpr Index kSequences = 132;
  constexpr Index kRows = 32;
  const Index first = kChunkKeys - kRows / 2;
  const auto from = whole.begin() + static_cast<std::ptrdiff_t>(first * sequence.wide);
  const Floats expected(from, from + kRows * sequence.wide);
  Floats q;
  std::vector<SequenceRows> parts;
  for (Index s = 0; s < kSequences; ++s) {
    const auto begin = sequence.q.begin() + static_cast<std::ptrdiff_t>(first * sequence.wide);
    q.insert(q.end(), begin, begin + kRows * sequence.wide);
    parts.push_back({s * kRows, kRows, first, sequence.pages});
  }
  Floats out(q.size());
  REQUIRE(attention_cached(here(), {sequence.shape, sequence.rows_of(q), parts,
                                    Matrix(out.data(), kSequences * kRows, sequence.wide)}));
  REQUIRE(device().synchronize());
  for (Index s = 0; s < kSequences; ++s) {
    const auto begin = out.begin() + static_cast<std::ptrdiff_t>(s * kRows * sequence.wide);
    REQUIRE(std::equal(expected.begin(), expected.end(), begin));
  }
}

TEST_CASE("device sizes: blocks that have several chunks of keys, and room for more: same bits") {
  static_cast<void>(device());
  constexpr Index kChunks = 4;
  Sequence sequence(2, (kChunks - 1) * kChunkKeys + 70);
  const SequenceRows all{0, sequence.tokens, 0, sequence.pages};
  REQUIRE(kv_write(here(), {sequence.shape, sequence.rows_of(sequence.k),
                            sequence.rows_of(sequence.v), std::span(&all, 1)}));
  // The last token of so many sequences, each with these keys.
  const auto last_of = [&](Index sequences, AttentionCached::Most most) {
    Floats q;
    std::vector<SequenceRows> parts;
    for (Index s = 0; s < sequences; ++s) {
      q.insert(q.end(), sequence.q.end() - sequence.wide, sequence.q.end());
      parts.push_back({s, 1, sequence.tokens - 1, sequence.pages});
    }
    Floats out(q.size());
    REQUIRE(attention_cached(here(), {sequence.shape, sequence.rows_of(q), parts,
                                      Matrix(out.data(), sequences, sequence.wide), most}));
    REQUIRE(device().synchronize());
    for (Index s = 1; s < sequences; ++s) {
      REQUIRE(std::equal(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(sequence.wide),
                         out.begin() + static_cast<std::ptrdiff_t>(s * sequence.wide)));
    }
    out.resize(size_of(sequence.wide));
    return out;
  };
  const Floats alone = last_of(1, {});  // a block for each chunk
  CHECK(last_of(100, {}) == alone);     // three for four
  const AttentionCached::Most most{.positions = 9000, .pages = 15'000};
  CHECK(last_of(1, most) == alone);
  CHECK(last_of(100, most) == alone);
}

TEST_CASE(
    "device sizes: rows one by one have the bits of their tile, whatever heads share a key head") {
  struct Case {
    Index heads, kv_heads, width, window;
    CacheType cache;
  };
  static_cast<void>(device());
  constexpr Index kTokens = 150;
  for (const Case& c : {Case{1, 1, 8, 0, CacheType::f32}, Case{4, 2, 16, 0, CacheType::bf16},
                        Case{3, 1, 24, 70, CacheType::int8}, Case{4, 1, 136, 0, CacheType::f32},
                        Case{8, 1, 8, 9, CacheType::bf16}, Case{12, 1, 16, 0, CacheType::int8}}) {
    INFO(c.heads << " heads, " << c.kv_heads << " key heads of " << c.width << ", window "
                 << c.window << ", cache " << static_cast<int>(c.cache));
    Sequence sequence({.heads = c.heads,
                       .kv_heads = c.kv_heads,
                       .head_width = c.width,
                       .scale = 0.3F,
                       .window = c.window,
                       .cache = c.cache},
                      kTokens);
    const Floats whole = sequence.in_pieces({kTokens});
    CHECK(in_all_orders([&] { return sequence.in_pieces({126, 1, 1, 8, 1, 13}); }) == whole);
  }
}

TEST_CASE("device sizes: a row's chunks of keys, in one block and spread over several") {
  static_cast<void>(device());
  Sequence sequence({.heads = 2, .kv_heads = 1, .head_width = 8, .scale = 0.5F}, 1100);
  const Floats whole = sequence.in_pieces({1100});
  // As many sequences as fill a GPU, all of them with these keys: nothing is spread.
  constexpr Index kSequences = 264;
  const Index last = sequence.tokens - 1;
  const auto from = whole.begin() + static_cast<std::ptrdiff_t>(last * sequence.wide);
  const Floats expected(from, whole.end());
  const Floats own(sequence.q.end() - static_cast<std::ptrdiff_t>(sequence.wide), sequence.q.end());
  for (const Index sequences : {Index{1}, kSequences}) {
    Floats q;
    std::vector<SequenceRows> parts;
    for (Index s = 0; s < sequences; ++s) {
      q.insert(q.end(), own.begin(), own.end());
      parts.push_back({s, 1, last, sequence.pages});
    }
    Floats out(q.size());
    REQUIRE(attention_cached(here(), {sequence.shape, sequence.rows_of(q), parts,
                                      Matrix(out.data(), sequences, sequence.wide)}));
    REQUIRE(device().synchronize());
    for (Index s = 0; s < sequences; ++s) {
      const auto begin = out.begin() + static_cast<std::ptrdiff_t>(s * sequence.wide);
      REQUIRE(std::equal(expected.begin(), expected.end(), begin));
    }
  }
}

TEST_CASE(
    "device sizes: a loss in several chunks of rows, of more tokens than a block has threads") {
  constexpr Index kRows = 41;
  constexpr Index kVocabulary = 600;
  constexpr Index kColumns = 24;
  static_cast<void>(device());
  const Floats hidden = draw(kRows * kColumns, 1);
  const Floats weight = draw(kVocabulary * kColumns, 2);
  std::vector<std::int32_t> targets(size_of(kRows));
  for (std::size_t i = 0; i < targets.size(); ++i) {
    targets[i] = i % 7 == 3 ? -1 : static_cast<std::int32_t>(i * 97 % kVocabulary);
  }
  const ConstMatrix h(hidden.data(), kRows, kColumns);
  const ConstMatrix w(weight.data(), kVocabulary, kColumns);
  const auto run = [&](Index chunk) {
    return in_all_orders([&] {
      Floats all(size_of(kRows + kRows * kColumns + kVocabulary * kColumns), 0.0F);
      float* const dhidden = all.data() + kRows;
      REQUIRE(linear_cross_entropy(
          here(), {.hidden = h,
                   .weight = w,
                   .targets = targets,
                   .losses = all.data(),
                   .dhidden = Matrix(dhidden, kRows, kColumns),
                   .dweight = Matrix(dhidden + kRows * kColumns, kVocabulary, kColumns),
                   .chunk = chunk}));
      return all;
    });
  };
  const Floats chunked = run(16);
  const std::vector<double> losses = reference::cross_entropy(Table(h), Table(w), targets);
  for (Index row = 0; row < kRows; ++row) {
    CHECK(chunked[size_of(row)] ==
          Approx(losses[size_of(row)]).margin(tolerance(kVocabulary, 8.0)));
  }
  // A row's loss and gradient are its own; the weight's gradient is summed anew from chunk to
  // chunk.
  const Floats whole = run(0);
  const auto own = static_cast<std::ptrdiff_t>(kRows + kRows * kColumns);
  CHECK(std::equal(chunked.begin(), chunked.begin() + own, whole.begin()));
  for (std::size_t i = size_of(own); i < whole.size(); ++i) {
    CHECK(chunked[i] == Approx(whole[i]).margin(tolerance(kRows, 1.0)));
  }
}

TEST_CASE("device sizes: log-probabilities of more tokens than a block has threads") {
  constexpr Index kColumns = 700;
  static_cast<void>(device());
  Floats x = draw(3 * kColumns, 1);
  for (float& value : x) value *= 9.0F;
  const Floats result = in_all_orders([&] {
    Floats out(x.size());
    REQUIRE(
        log_softmax(here(), ConstMatrix(x.data(), 3, kColumns), Matrix(out.data(), 3, kColumns)));
    return out;
  });
  for (Index row = 0; row < 3; ++row) {
    const float* const from = x.data() + row * kColumns;
    double sum = 0.0;
    for (Index c = 0; c < kColumns; ++c) sum += std::exp(static_cast<double>(from[c]));
    for (Index c = 0; c < kColumns; ++c) {
      REQUIRE(result[size_of(row * kColumns + c)] ==
              Approx(static_cast<double>(from[c]) - std::log(sum))
                  .margin(tolerance(kColumns, 1.0) + 0x1p-20));
    }
  }
}

TEST_CASE("device sizes: sums over more rows than a piece has, and more columns than a block") {
  constexpr Index kRows = 2 * 256 + 1;
  constexpr Index kColumns = 130;
  static_cast<void>(device());
  const Floats x = draw(kRows * kColumns, 1);
  const Floats dy = draw(kRows * kColumns, 2);
  const Floats weight = draw(kColumns, 3);
  const Floats before = draw(kColumns, 4);
  const ConstMatrix rows(x.data(), kRows, kColumns);
  Floats inverse(size_of(kRows));
  Floats y(x.size());
  REQUIRE(rms_norm_forward(here(), {.x = rows,
                                    .weight = weight.data(),
                                    .y = Matrix(y.data(), kRows, kColumns),
                                    .inverse = inverse.data()}));
  const Floats sums = in_all_orders([&] {
    Floats out = before;
    REQUIRE(column_sums(here(), {.x = rows, .output = out.data(), .start = ChainStart::output}));
    return out;
  });
  const Floats dweight = in_all_orders([&] {
    Floats out = before;
    Floats dx(x.size());
    REQUIRE(rms_norm_backward(here(), {.dy = ConstMatrix(dy.data(), kRows, kColumns),
                                       .x = rows,
                                       .weight = weight.data(),
                                       .inverse = inverse.data(),
                                       .dx = Matrix(dx.data(), kRows, kColumns),
                                       .dweight = out.data()}));
    return out;
  });
  for (Index c = 0; c < kColumns; ++c) {
    double sum = static_cast<double>(before[size_of(c)]);
    double slope = sum;
    for (Index r = 0; r < kRows; ++r) {
      const auto i = size_of(r * kColumns + c);
      sum += static_cast<double>(x[i]);
      slope += static_cast<double>(dy[i]) * static_cast<double>(x[i]) *
               static_cast<double>(inverse[size_of(r)]);
    }
    // Partial sums grow to some tens.
    CHECK(sums[size_of(c)] == Approx(sum).margin(tolerance(kRows, 20.0)));
    CHECK(dweight[size_of(c)] == Approx(slope).margin(tolerance(kRows, 20.0)));
  }
}

// A block adds in 8 bytes of its dynamic shared memory a column, beside some of its static memory:
// at 6,144 columns 48 KiB, which is all that a kernel has together where it does not ask for more.
TEST_CASE("device sizes: norms so wide that their gradients ask for shared memory, and just less") {
  constexpr Index kRows = 2;
  static_cast<void>(device());
  for (const Index columns : {Index{6143}, Index{6144}, Index{6145}}) {
    CAPTURE(columns);
    const Floats x = draw(kRows * columns, 1);
    const Floats dy = draw(kRows * columns, 2);
    const Floats weight = draw(columns, 3);
    const Floats mean = {0.25F, -0.125F};
    const Floats inverse = {1.5F, 2.0F};
    const ConstMatrix rows(x.data(), kRows, columns);
    const ConstMatrix slopes(dy.data(), kRows, columns);
    const Floats rms = in_all_orders([&] {
      Floats out(size_of(3 * columns), 0.0F);
      REQUIRE(rms_norm_backward(here(), {.dy = slopes,
                                         .x = rows,
                                         .weight = weight.data(),
                                         .inverse = inverse.data(),
                                         .dx = Matrix(out.data() + columns, kRows, columns),
                                         .dweight = out.data()}));
      return out;
    });
    const Floats layer = in_all_orders([&] {
      Floats out(size_of(4 * columns), 0.0F);
      REQUIRE(layer_norm_backward(here(), {.dy = slopes,
                                           .x = rows,
                                           .weight = weight.data(),
                                           .mean = mean.data(),
                                           .inverse = inverse.data(),
                                           .dx = Matrix(out.data() + 2 * columns, kRows, columns),
                                           .dweight = out.data(),
                                           .dbias = out.data() + columns}));
      return out;
    });
    double worst = 0.0;
    for (Index c = 0; c < columns; ++c) {
      const auto at = [&](const Floats& values, Index row) {
        return static_cast<double>(values[size_of(row * columns + c)]);
      };
      double expected[3] = {};  // of the weights, and of the bias
      for (Index r = 0; r < kRows; ++r) {
        const double scale = static_cast<double>(inverse[size_of(r)]);
        expected[0] += at(dy, r) * at(x, r) * scale;
        expected[1] += at(dy, r) * (at(x, r) - static_cast<double>(mean[size_of(r)])) * scale;
        expected[2] += at(dy, r);
      }
      const double found[3] = {at(rms, 0), at(layer, 0), at(layer, 1)};
      for (int i = 0; i < 3; ++i)
        worst = tutti::test::larger(worst, std::abs(found[i] - expected[i]));
    }
    CHECK(worst <= tolerance(kRows, 4.0));
  }
}

TEST_CASE("device sizes: more bytes than the ring of uploads arrive whole, and in order") {
  constexpr std::size_t kBytes = UploadRing::kSlots * UploadRing::kSlotBytes + 12'345;
  std::vector<unsigned char> sent(kBytes);
  std::vector<unsigned char> back(kBytes);
  auto memory = device().allocate(kBytes);
  REQUIRE(memory);
  for (const unsigned first : {3U, 200U}) {
    for (std::size_t i = 0; i < kBytes; ++i) {
      sent[i] = static_cast<unsigned char>(first + i + i / 251);
    }
    REQUIRE(device().upload(*memory, sent.data(), kBytes));
    std::vector<unsigned char> kept = sent;
    std::memset(sent.data(), 0, kBytes);  // it is the caller's again
    REQUIRE(device().download(back.data(), *memory, kBytes));
    CHECK(back == kept);
  }
  device().release(*memory);
}

namespace {

// Additions of neighbours, then of neighbours of those, as the tree of shards has them; an odd one
// waits. The values end in the first.
std::vector<PieceSum::Addition> additions_of(std::vector<Floats>& values) {
  std::vector<PieceSum::Addition> additions;
  const auto count = static_cast<std::uint32_t>(values.size());
  for (std::uint32_t step = 1; step < count; step *= 2) {
    for (std::uint32_t p = 0; p + step < count; p += 2 * step) {
      additions.push_back({p, p + step});
      for (std::size_t i = 0; i < values[p].size(); ++i) values[p][i] += values[p + step][i];
    }
  }
  return additions;
}

}  // namespace

TEST_CASE("device sizes: a tree of pieces, in one pass and in several") {
  constexpr Index kCount = 300;
  static_cast<void>(device());
  for (const std::uint32_t count : {1U, 31U, 32U, 33U, 34U, 100U, 257U}) {
    CAPTURE(count);
    std::vector<Floats> drawn;
    for (std::uint32_t p = 0; p < count; ++p) drawn.push_back(draw(kCount, p));
    std::vector<Floats> tree = drawn;
    const std::vector<PieceSum::Addition> additions = additions_of(tree);
    std::vector<Floats> values;
    const Floats sum = in_all_orders([&] {
      values = drawn;
      std::vector<float*> pieces;
      for (Floats& one : values) pieces.push_back(one.data());
      Floats out(size_of(kCount));
      REQUIRE(device().enqueue(PieceSum{pieces, additions, kCount, out.data()}));
      return out;
    });
    CHECK(sum == tree[0]);
    CHECK((values == drawn) == (count <= PieceSum::kPassPieces));
  }
}

TEST_CASE("device sizes: additions of pieces that are not there are refused") {
  Floats piece(4);
  float* const pieces[] = {piece.data()};
  const PieceSum::Addition beyond[] = {{0, 1}};
  const auto refused = device().enqueue(PieceSum{pieces, beyond, 4, piece.data()});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::invalid_argument);
}

// Once, and only where it is asked for by its tag (ops/gpu/check): the emulation is slow at it.
TEST_CASE(
    "device, at real sizes: more rows than a grid has in its second dimension, or logits are held "
    "for",
    "[.][large]") {
  static_cast<void>(device());
  {
    constexpr Index kRows = 65'535 + 7;
    const Floats gate = draw(kRows * 2, 1);
    const Floats up = draw(kRows * 2, 2);
    const Floats dy = draw(kRows * 2, 3);
    const auto rows = [&](const Floats& values) { return ConstMatrix(values.data(), kRows, 2); };
    Floats y(gate.size());
    Floats dgate(gate.size());
    Floats dup(gate.size());
    REQUIRE(silu_gate_forward(
        here(), {.gate = rows(gate), .up = rows(up), .y = Matrix(y.data(), kRows, 2)}));
    REQUIRE(silu_gate_backward(here(), {.dy = rows(dy),
                                        .gate = rows(gate),
                                        .up = rows(up),
                                        .dgate = Matrix(dgate.data(), kRows, 2),
                                        .dup = Matrix(dup.data(), kRows, 2)}));
    // An empty product leaves the residual.
    Floats copied(gate.size());
    REQUIRE(product_nt(here(), {.left = ConstMatrix(nullptr, kRows, 0),
                                .right = ConstMatrix(nullptr, 2, 0),
                                .output = Matrix(copied.data(), kRows, 2),
                                .residual = rows(up)}));
    CHECK(copied == up);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double g = static_cast<double>(gate[i]);
      const double s = 1.0 / (1.0 + std::exp(-g));
      const double slope = static_cast<double>(dy[i]);
      REQUIRE(y[i] == Approx(g * s * static_cast<double>(up[i])).margin(1e-6));
      REQUIRE(dup[i] == Approx(slope * g * s).margin(1e-6));
      REQUIRE(dgate[i] ==
              Approx(slope * static_cast<double>(up[i]) * s * (1.0 + g * (1.0 - s))).margin(1e-6));
    }
  }
  constexpr Index kRows = 256 + 9;
  constexpr Index kVocabulary = (Index{1} << 18) + 3;
  const Floats hidden = draw(kRows * 8, 1);
  const Floats weight = draw(kVocabulary * 8, 2);
  std::vector<std::int32_t> targets(size_of(kRows));
  for (std::size_t i = 0; i < targets.size(); ++i) {
    targets[i] = static_cast<std::int32_t>(i * 7919 % size_of(kVocabulary));
  }
  const ConstMatrix h(hidden.data(), kRows, 8);
  const ConstMatrix w(weight.data(), kVocabulary, 8);
  Floats found(size_of(kRows));
  Floats dhidden(hidden.size());
  REQUIRE(linear_cross_entropy(here(), {.hidden = h,
                                        .weight = w,
                                        .targets = targets,
                                        .losses = found.data(),
                                        .dhidden = Matrix(dhidden.data(), kRows, 8)}));
  const std::vector<double> losses = reference::cross_entropy(Table(h), Table(w), targets);
  for (std::size_t row = 0; row < losses.size(); ++row) {
    REQUIRE(found[row] == Approx(losses[row]).margin(tolerance(kVocabulary, 16.0)));
  }
}

}  // namespace tutti::kernels::cuda
