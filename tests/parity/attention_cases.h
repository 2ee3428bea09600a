// What the attention cases share: a batch's numbers, forward and backward over it, and a cache that
// is filled in pieces.
#pragma once

#include <limits>
#include <vector>

#include "kernels/ops/attention.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/ops/weights/product_int8.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {

using Offsets = std::vector<std::int32_t>;

struct Case {
  AttentionShape shape;
  Offsets offsets;

  Index tokens() const { return offsets.back(); }
  Index wide() const { return shape.heads * shape.head_width; }
  Index narrow() const { return shape.kv_heads * shape.head_width; }
};

inline AttentionShape shape_of(Index heads, Index kv_heads, Index width) {
  return {heads, kv_heads, width, 1.0F / std::sqrt(static_cast<float>(width))};
}

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

inline Forward forward(const OpContext& ctx, const Inputs& in) {
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
inline Floats in_pieces(const OpContext& ctx, const Inputs& in, const std::vector<Index>& pieces) {
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

// What int8 pages keep of rows of keys or values, head by head.
inline Table kept_in_int8(const Case& c, const Floats& rows) {
  const Index width = c.shape.head_width;
  const Index heads = static_cast<Index>(rows.size()) / width;
  std::vector<std::int8_t> codes(rows.size());
  Floats scales(static_cast<std::size_t>(heads));
  REQUIRE(to_int8_rows({.pool = single().pool}, {.x = matrix(rows, heads, width),
                                                 .codes = {codes.data(), heads, width},
                                                 .scales = matrix(scales, heads, 1)}));
  Table kept(c.tokens(), c.narrow());
  for (std::size_t i = 0; i < codes.size(); ++i) {
    kept.data[i] = static_cast<double>(codes[i]) *
                   static_cast<double>(scales[i / static_cast<std::size_t>(width)]);
  }
  return kept;
}

// dq, dk and dv, one after the other.
inline Floats backward(const OpContext& ctx, const Inputs& in, const Forward& f,
                       const Floats& dout) {
  const Case& c = in.c;
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
}

// How far outputs may lie from their meaning. A score of magnitude s errs by tolerance(D, s), and
// moves its weight by that much relatively; a cap's tanh errs by 2^-22 of the cap, a distance's
// product by its rounding.
inline double attention_tolerance(const Case& c) {
  const double score =
      6.0 * static_cast<double>(c.shape.head_width) * static_cast<double>(c.shape.scale);
  const double rule =
      (c.shape.soft_cap > 0.0F ? activation_tolerance(static_cast<double>(c.shape.soft_cap))
                               : 0.0) +
      (c.shape.slopes != nullptr ? tolerance(0, 200.0) : 0.0);
  return tolerance(c.tokens(), 1.0) + 2.0 * (tolerance(c.shape.head_width, score) + rule);
}

// Of the case's outputs, from these queries, keys and values.
inline void require_attention(const Case& c, std::span<const float> out, const Table& q,
                              const Table& k, const Table& v) {
  const Table expected = reference::attention(c.shape, q, k, v, c.offsets);
  REQUIRE(largest_difference(out, expected) <= attention_tolerance(c));
}

// Forward and backward of one case against their meaning, on all paths; the bits go to the goldens.
// What log sums mean is seen backward, which begins with them.
void check_forward(Golden& golden, Golden& log_sums, const Case& c);
void check_backward(Golden& golden, const Case& c);

}  // namespace tutti::kernels::parity
