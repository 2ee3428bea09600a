// Attention: its meaning, its gradients, and that training, chunked prefill and decoding give the
// same bits.
#include <limits>

#include "kernels/ops/attention.h"
#include "kernels/ops/key_value_pages.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

using Offsets = std::vector<std::int32_t>;

struct Case {
  AttentionShape shape;
  Offsets offsets;

  Index tokens() const { return offsets.back(); }
  Index wide() const { return shape.heads * shape.head_width; }
  Index narrow() const { return shape.kv_heads * shape.head_width; }
};

AttentionShape shape_of(Index heads, Index kv_heads, Index width) {
  return {heads, kv_heads, width, 1.0F / std::sqrt(static_cast<float>(width))};
}

// Samples of one token, around a block's border, over several blocks; empty ones; grouped heads;
// odd head widths.
const Case kCases[] = {
    {shape_of(1, 1, 8), {0, 1}},        {shape_of(2, 2, 32), {0, 0, 5, 69, 69, 134}},
    {shape_of(6, 2, 40), {0, 64, 129}}, {shape_of(4, 1, 64), {0, 200}},
    {shape_of(2, 1, 256), {0, 3, 70}},
};

struct Inputs {
  explicit Inputs(const Case& c_)
      : c(c_),
        q(draw(c.tokens() * c.wide(), 1)),
        k(draw(c.tokens() * c.narrow(), 2)),
        v(draw(c.tokens() * c.narrow(), 3)) {
    for (float& value : q) value *= 6.0F;  // so that some keys matter much more than others
  }
  Case c;
  Floats q, k, v;

  ConstMatrix q_rows() const { return matrix(q, c.tokens(), c.wide()); }
  ConstMatrix k_rows() const { return matrix(k, c.tokens(), c.narrow()); }
  ConstMatrix v_rows() const { return matrix(v, c.tokens(), c.narrow()); }
};

struct Forward {
  Floats out, lse;
};

Forward forward(const OpContext& ctx, const Inputs& in) {
  Forward result{Floats(in.q.size()),
                 Floats(static_cast<std::size_t>(in.c.tokens() * in.c.shape.heads))};
  REQUIRE(attention_forward(ctx, {.shape = in.c.shape,
                                  .q = in.q_rows(),
                                  .k = in.k_rows(),
                                  .v = in.v_rows(),
                                  .sample_offsets = in.c.offsets,
                                  .out = matrix(result.out, in.c.tokens(), in.c.wide()),
                                  .lse = result.lse.data()}));
  return result;
}

// A cache of one sequence whose memory starts as NaN: what is not written must not matter.
struct Cache {
  explicit Cache(const AttentionShape& shape, Index positions)
      : memory(static_cast<std::size_t>(kv_page_floats(shape) * kv_pages_for(positions)),
               std::numeric_limits<float>::quiet_NaN()) {
    for (Index p = 0; p < kv_pages_for(positions); ++p) {
      pages.push_back(memory.data() + p * kv_page_floats(shape));
    }
  }
  Floats memory;
  std::vector<float*> pages;
};

// One sample of all tokens, processed in the given pieces.
Floats in_pieces(const OpContext& ctx, const Inputs& in, const std::vector<Index>& pieces) {
  Cache cache(in.c.shape, in.c.tokens());
  Floats out(in.q.size());
  Index done = 0;
  for (const Index piece : pieces) {
    const SequenceRows rows{0, piece, done, cache.pages};
    REQUIRE(kv_write(ctx, {in.c.shape, in.k_rows().row_range(done, piece),
                           in.v_rows().row_range(done, piece), std::span(&rows, 1)}));
    REQUIRE(
        attention_cached(ctx, {in.c.shape, in.q_rows().row_range(done, piece), std::span(&rows, 1),
                               matrix(out, in.c.tokens(), in.c.wide()).row_range(done, piece)}));
    done += piece;
  }
  REQUIRE(done == in.c.tokens());
  return out;
}

}  // namespace

TEST_CASE("attention: forward agrees with its meaning on all paths") {
  Golden golden("attention forward");
  for (const Case& c : kCases) {
    const Inputs in(c);
    INFO("heads " << c.shape.heads << " width " << c.shape.head_width);
    const Floats out =
        on_all_paths(golden, [&](const OpContext& ctx) { return forward(ctx, in).out; });
    const Table expected = reference::attention(c.shape, Table(in.q_rows()), Table(in.k_rows()),
                                                Table(in.v_rows()), c.offsets);
    // A score of magnitude s errs by tolerance(D, s), and moves its weight by that much relatively.
    const double score =
        6.0 * static_cast<double>(c.shape.head_width) * static_cast<double>(c.shape.scale);
    REQUIRE(largest_difference(out, expected) <=
            tolerance(c.tokens(), 1.0) + 2.0 * tolerance(c.shape.head_width, score));
  }
  golden.check();
}

TEST_CASE("attention: gradients agree with finite differences, with the same bits on all paths") {
  Golden golden("attention backward");
  for (const Case& c : kCases) {
    const Inputs in(c);
    INFO("heads " << c.shape.heads << " width " << c.shape.head_width);
    const Forward f = forward(single(), in);
    const Floats dout = draw(static_cast<Index>(in.q.size()), 4);
    const Floats all = on_all_paths(golden, [&](const OpContext& ctx) {
      Floats dq(in.q.size());
      Floats dk(in.k.size());
      Floats dv(in.v.size());
      REQUIRE(attention_backward(ctx, {.shape = c.shape,
                                       .q = in.q_rows(),
                                       .k = in.k_rows(),
                                       .v = in.v_rows(),
                                       .out = matrix(f.out, c.tokens(), c.wide()),
                                       .dout = matrix(dout, c.tokens(), c.wide()),
                                       .lse = f.lse.data(),
                                       .sample_offsets = c.offsets,
                                       .dq = matrix(dq, c.tokens(), c.wide()),
                                       .dk = matrix(dk, c.tokens(), c.narrow()),
                                       .dv = matrix(dv, c.tokens(), c.narrow())}));
      dq.insert(dq.end(), dk.begin(), dk.end());
      dq.insert(dq.end(), dv.begin(), dv.end());
      return dq;
    });
    const Table q(in.q_rows());
    const Table k(in.k_rows());
    const Table v(in.v_rows());
    const auto loss = [&](const Table& a, const Table& b, const Table& d) {
      return weighted_sum(reference::attention(c.shape, a, b, d, c.offsets), dout);
    };
    const std::span gradients(all);
    REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(t, k, v); },
                            .at = q,
                            .gradient = gradients.first(in.q.size())}) < 1e-4);
    REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(q, t, v); },
                            .at = k,
                            .gradient = gradients.subspan(in.q.size(), in.k.size())}) < 1e-4);
    REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(q, k, t); },
                            .at = v,
                            .gradient = gradients.last(in.v.size())}) < 1e-4);
  }
  golden.check();
}

TEST_CASE("attention: chunked prefill and decoding give the bits of one prefill") {
  for (const AttentionShape& shape :
       {shape_of(4, 2, 32), shape_of(3, 3, 24), shape_of(4, 1, 128)}) {
    const Inputs in({shape, {0, 150}});
    const Floats whole = forward(single(), in).out;
    std::vector<Index> decode = {100};
    decode.insert(decode.end(), 50, 1);
    const std::vector<std::vector<Index>> ways = {{150}, {1, 62, 3, 84}, {64, 64, 22}, decode};
    for (const std::vector<Index>& pieces : ways) {
      const Floats out =
          on_all_paths([&](const OpContext& ctx) { return in_pieces(ctx, in, pieces); });
      REQUIRE(same_bits(out, whole));
    }
  }
}

TEST_CASE("attention: a sample's rows do not depend on the samples beside it") {
  const AttentionShape shape = shape_of(4, 2, 32);
  const Inputs in({shape, {0, 30, 100, 130}});
  const Floats together = forward(single(), in).out;
  Floats alone(in.q.size());
  const Offsets offsets = {0, 70};
  REQUIRE(attention_forward(single(), {.shape = shape,
                                       .q = in.q_rows().row_range(30, 70),
                                       .k = in.k_rows().row_range(30, 70),
                                       .v = in.v_rows().row_range(30, 70),
                                       .sample_offsets = offsets,
                                       .out = matrix(alone, 130, in.c.wide()).row_range(30, 70)}));
  const auto first = static_cast<std::size_t>(30 * in.c.wide());
  const auto count = static_cast<std::size_t>(70 * in.c.wide());
  REQUIRE(
      same_bits(std::span(alone).subspan(first, count), std::span(together).subspan(first, count)));
}

TEST_CASE("attention: keys after a query are not touched, not even when they are NaN") {
  Inputs in({shape_of(2, 1, 32), {0, 100}});
  const Floats clean = forward(single(), in).out;
  for (std::size_t i = 70 * 32; i < in.k.size(); ++i) {
    in.k[i] = std::numeric_limits<float>::quiet_NaN();
    in.v[i] = std::numeric_limits<float>::infinity();
  }
  const Floats poisoned = forward(single(), in).out;
  REQUIRE(same_bits(std::span(poisoned).first(70 * 64), std::span(clean).first(70 * 64)));
}

TEST_CASE("attention: the comparison catches a kernel that sees one key too many") {
  const Case c{shape_of(1, 1, 32), {0, 10}};
  const Inputs in(c);
  const Floats out = forward(single(), in).out;
  const Offsets shifted = {0, 5, 10};  // other borders, so that rows 5.. see fewer keys
  const Table wrong = reference::attention(c.shape, Table(in.q_rows()), Table(in.k_rows()),
                                           Table(in.v_rows()), shifted);
  REQUIRE(largest_difference(out, wrong) > 100.0 * tolerance(10, 1.0));
}

TEST_CASE("attention: shapes that do not match are refused") {
  Inputs in({shape_of(2, 2, 32), {0, 10}});
  AttentionForward args{.shape = in.c.shape,
                        .q = in.q_rows(),
                        .k = in.k_rows(),
                        .v = in.v_rows(),
                        .sample_offsets = in.c.offsets,
                        .out = matrix(in.q, 10, 64)};
  args.shape.head_width = 20;
  REQUIRE_FALSE(attention_forward(single(), args));
  args.shape = in.c.shape;
  const Offsets descending = {0, 7, 5, 10};
  args.sample_offsets = descending;
  REQUIRE_FALSE(attention_forward(single(), args));
  const SequenceRows rows{0, 10, 60, {}};
  REQUIRE_FALSE(kv_write(single(), {in.c.shape, in.k_rows(), in.v_rows(), std::span(&rows, 1)}));
}

}  // namespace tutti::kernels::parity
