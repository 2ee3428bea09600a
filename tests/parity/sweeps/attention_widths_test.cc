// Head widths beside the usual ones: whole tiles of columns, and each remainder behind them, under
// every mask, forward, backward, and by pages of each type.
#include "kernels/ops/elementwise/bf16.h"
#include "tests/parity/attention_cases.h"

namespace tutti::kernels::parity {
namespace {

std::vector<Index> widths() {
  if (is_emulated()) return {72, 256};
  return {48, 72, 80, 96, 112, 160, 192, 224, 256};
}
constexpr Index kTokens = 100;

// Two heads of queries by one of keys.
AttentionShape causal(Index width) { return shape_of(2, 1, width); }

AttentionShape full(Index width) {
  AttentionShape shape = causal(width);
  shape.mask = AttentionMask::full;
  return shape;
}

AttentionShape biased(Index width) {
  static const Floats slopes = {0.5F, 0.03125F};
  AttentionShape shape = causal(width);
  shape.window = 33;
  shape.soft_cap = 2.0F;
  shape.slopes = slopes.data();
  return shape;
}

// Two samples, the second beyond a block.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Index width : widths()) {
    for (const AttentionShape& shape : {causal(width), full(width), biased(width)}) {
      all.push_back({shape, {0, 20, kTokens}});
    }
  }
  return all;
}

Floats kept_in_bf16(const Floats& rows) {
  std::vector<Bf16> halves(rows.size());
  REQUIRE(to_bf16(single(), rows, halves));
  Floats kept(rows.size());
  REQUIRE(from_bf16(single(), halves, kept));
  return kept;
}

// A prompt, few rows at a time up to a block's border and over it one by one, a piece behind it.
Floats in_all_ways(const OpContext& ctx, const Inputs& in) {
  std::vector<Index> pieces = {58, 3, 2};
  pieces.insert(pieces.end(), 10, 1);
  pieces.push_back(kTokens - 73);
  return in_pieces(ctx, in, pieces);
}

}  // namespace

TEST_CASE("attention widths: forward and its log sums under each mask") {
  Golden golden("attention forward, widths");
  Golden log_sums("attention forward, log sums of widths");
  for (const Case& c : cases()) check_forward(golden, log_sums, c);
  golden.check();
  log_sums.check();
}

TEST_CASE("attention widths: gradients under each mask") {
  Golden golden("attention backward, widths");
  for (const Case& c : cases()) check_backward(golden, c);
  golden.check();
}

TEST_CASE("attention widths: by pages of each type, in pieces and one by one") {
  Golden golden("attention, pages by widths");
  for (const Index width : widths()) {
    for (const AttentionShape& shape : {causal(width), biased(width)}) {
      INFO("width " << width << ", window " << shape.window);
      Inputs in({shape, {0, kTokens}});
      const auto run = [&](CacheType type) {
        in.c.shape.cache = type;
        return on_all_paths(golden, [&](const OpContext& ctx) { return in_all_ways(ctx, in); });
      };
      REQUIRE(same_bits(run(CacheType::f32), forward(single(), in).out));
      Inputs halved = in;
      halved.k = kept_in_bf16(in.k);
      halved.v = kept_in_bf16(in.v);
      REQUIRE(same_bits(run(CacheType::bf16), forward(single(), halved).out));
      require_attention(in.c, run(CacheType::int8), Table(in.q_rows()), kept_in_int8(in.c, in.k),
                        kept_in_int8(in.c, in.v));
    }
  }
  golden.check();
}

TEST_CASE(
    "attention widths: the comparison catches a column that comes from its neighbour's code") {
  const Index width = 72;
  Inputs in({causal(width), {0, kTokens}});
  in.c.shape.cache = CacheType::int8;
  const Floats out = in_all_ways(single(), in);
  Table values = kept_in_int8(in.c, in.v);
  for (Index row = 0; row < kTokens; ++row) values.at(row, 71) = values.at(row, 70);
  const Table wrong = reference::attention(in.c.shape, Table(in.q_rows()), kept_in_int8(in.c, in.k),
                                           values, in.c.offsets);
  REQUIRE(largest_difference(out, wrong) > 2.0 * attention_tolerance(in.c));
}

}  // namespace tutti::kernels::parity
