// Attention: its meaning, its gradients, and that training, chunked prefill and decoding give the
// same bits.
#include "tests/parity/attention_cases.h"

namespace tutti::kernels::parity {
namespace {

// Samples of one token, around a block's border, over several blocks; empty ones; grouped heads;
// odd head widths.
const Case kCases[] = {
    {shape_of(1, 1, 8), {0, 1}},        {shape_of(2, 2, 32), {0, 0, 5, 69, 69, 134}},
    {shape_of(6, 2, 40), {0, 64, 129}}, {shape_of(4, 1, 64), {0, 200}},
    {shape_of(2, 1, 256), {0, 3, 70}},
};

}  // namespace

void check_forward(Golden& golden, Golden& log_sums, const Case& c) {
  const Inputs in(c);
  INFO("heads " << c.shape.heads << " width " << c.shape.head_width);
  const Floats both = on_all_paths([&](const OpContext& ctx) {
    Forward f = forward(ctx, in);
    f.out.insert(f.out.end(), f.lse.begin(), f.lse.end());
    return std::move(f.out);
  });
  const auto out = std::span(both).first(in.q.size());
  golden.add(out);
  log_sums.add(std::span(both).subspan(in.q.size()));
  require_attention(c, out, Table(in.q_rows()), Table(in.k_rows()), Table(in.v_rows()));
}

void check_backward(Golden& golden, const Case& c) {
  const Inputs in(c);
  INFO("heads " << c.shape.heads << " width " << c.shape.head_width);
  const Forward f = forward(single(), in);
  const Floats dout = draw(static_cast<Index>(in.q.size()), 4);
  const Floats all =
      on_all_paths(golden, [&](const OpContext& ctx) { return backward(ctx, in, f, dout); });
  const Table q(in.q_rows());
  const Table k(in.k_rows());
  const Table v(in.v_rows());
  const auto loss = [&](const Table& a, const Table& b, const Table& d) {
    return weighted_sum(reference::attention(c.shape, a, b, d, c.offsets), dout);
  };
  const std::span gradients(all);
  const double off = mean_tolerance(c.tokens() + 2 * c.shape.head_width);
  REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(t, k, v); },
                          .at = q,
                          .gradient = gradients.first(in.q.size())}) < off);
  REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(q, t, v); },
                          .at = k,
                          .gradient = gradients.subspan(in.q.size(), in.k.size())}) < off);
  REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(q, k, t); },
                          .at = v,
                          .gradient = gradients.last(in.v.size())}) < off);
}

TEST_CASE("attention: forward agrees with its meaning on all paths") {
  Golden golden("attention forward");
  Golden log_sums("attention forward, log sums");
  for (const Case& c : kCases) check_forward(golden, log_sums, c);
  golden.check();
  log_sums.check();
}

TEST_CASE("attention: gradients agree with finite differences, with the same bits on all paths") {
  Golden golden("attention backward");
  for (const Case& c : kCases) check_backward(golden, c);
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
