// Bands of wider matrices, and nothing at all: every row op gives over a band that begins anywhere
// the bits that it gives over a matrix of its own, and touches nothing beside it; over no rows it
// writes nothing.
#include <algorithm>
#include <functional>
#include <iterator>
#include <numeric>

#include "kernels/ops/attention.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/elementwise/dropout.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/elementwise/softmax.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/ops/optimizers/adafactor.h"
#include "kernels/ops/optimizers/muon.h"
#include "kernels/ops/product.h"
#include "kernels/ops/product_bf16.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/rotary.h"
#include "kernels/ops/silu_gate.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "tests/parity/harness.h"
#include "tests/parity/sweeps/lacking.h"

namespace tutti::kernels::parity {
namespace {

constexpr Index kBefore = 3;  // columns of the wide matrix before the band, and behind it
constexpr Index kBehind = 4;
constexpr Index kRows = 20;
constexpr Index kColumns = 37;

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

struct Shape {
  Index rows, columns;
};

// Numbers of `stream` in a matrix of its own, or in a band; what is beside the band is negative.
class Placed {
 public:
  Placed(const Shape& shape, std::uint64_t stream, Index before, Index behind)
      : shape_(shape),
        before_(before),
        stride_(before + shape.columns + behind),
        data_(size_of(shape.rows * stride_), -9.0F) {
    const Floats values = draw(shape.rows * shape.columns, stream);
    for (Index r = 0; r < shape.rows; ++r) {
      std::copy_n(values.data() + r * shape.columns, shape.columns, view().row(r));
    }
  }
  Matrix view() {
    return Matrix(data_.data(), shape_.rows, stride_).column_range(before_, shape_.columns);
  }

  void append_to(Floats& all) {
    for (Index r = 0; r < shape_.rows; ++r) {
      const float* const row = view().row(r);
      all.insert(all.end(), row, row + shape_.columns);
    }
  }
  bool is_untouched_beside() const {
    for (Index i = 0; i < shape_.rows * stride_; ++i) {
      const Index column = i % stride_ - before_;
      const bool inside = column >= 0 && column < shape_.columns;
      if (!inside && data_[size_of(i)] != -9.0F) return false;
    }
    return true;
  }

 private:
  Shape shape_;
  Index before_, stride_;
  Floats data_;
};

using Views = std::vector<Matrix>;

// A result that lies where an operand does.
struct Alias {
  std::size_t result, operand;
};
using Aliases = std::vector<Alias>;

struct Case {
  const char* name;
  std::vector<Shape> shapes;  // of operands and results alike
  std::function<Result<>(const OpContext&, const Views&)> run;
  std::vector<Aliases> in_place = {};  // what the op's header allows, and what is used together
};

Floats outcome(const OpContext& ctx, const Case& c, Index before, Index behind) {
  std::vector<Placed> placed;
  std::uint64_t stream = 1;
  for (const Shape& shape : c.shapes) placed.emplace_back(shape, stream++, before, behind);
  Views views;
  for (Placed& each : placed) views.push_back(each.view());
  REQUIRE(c.run(ctx, views));
  Floats all;
  for (Placed& each : placed) {
    each.append_to(all);
    REQUIRE(each.is_untouched_beside());
  }
  return all;
}

// The results, and the operands that no result lies on.
Floats outcome_in_place(const OpContext& ctx, const Case& c, const Aliases& aliases,
                        bool in_place) {
  std::vector<Placed> placed;
  std::uint64_t stream = 1;
  for (const Shape& shape : c.shapes) placed.emplace_back(shape, stream++, kBefore, kBehind);
  std::vector<std::size_t> place(placed.size());
  std::iota(place.begin(), place.end(), std::size_t{0});
  if (in_place) {
    for (const Alias& alias : aliases) place[alias.result] = alias.operand;
  }
  Views views;
  for (const std::size_t at : place) views.push_back(placed[at].view());
  REQUIRE(c.run(ctx, views));
  Floats all;
  for (std::size_t i = 0; i < placed.size(); ++i) {
    REQUIRE(placed[i].is_untouched_beside());
    const bool overwritten = std::ranges::count(aliases, i, &Alias::operand) > 0;
    if (!overwritten) placed[place[i]].append_to(all);
  }
  return all;
}

// Of the suite's device.
bool is_lacking(const Case& c) {
  if (single().device == nullptr) return false;
  std::vector<Placed> placed;
  for (const Shape& shape : c.shapes) placed.emplace_back(shape, 1, 0, 0);
  Views views;
  for (Placed& each : placed) views.push_back(each.view());
  return parity::is_lacking(c.run(single(), views));
}

const Floats& weight() {
  static const Floats values = draw(kColumns, 50);
  return values;
}
const Floats& statistics() {  // of each row, for backward passes
  static const Floats values = draw(kRows, 51);
  return values;
}
const std::vector<std::int32_t>& tokens() {
  static const std::vector<std::int32_t> values = {0, 5, 4, 3, 5, 1, 2, 2, 5, 0,
                                                   0, 0, 1, 4, 3, 2, 5, 5, 5, 1};
  return values;
}

const Shape kOwn = {kRows, kColumns};

std::vector<Case> product_cases() {
  std::vector<Case> cases;
  for (const Index rows : {1, 3, 20, 70}) {
    const Shape of_left = {rows, 40};
    cases.push_back({"product nt", {of_left, {33, 40}, {rows, 33}}, [](auto& ctx, auto& m) {
                       return product_nt(ctx, {.left = m[0], .right = m[1], .output = m[2]});
                     }});
    cases.push_back({"product nn", {of_left, {40, 70}, {rows, 70}}, [](auto& ctx, auto& m) {
                       return product_nn(ctx, {.left = m[0], .right = m[1], .output = m[2]});
                     }});
    cases.push_back(
        {"product tn", {of_left, {rows, 33}, {40, 33}}, [](auto& ctx, auto& m) {
           return product_tn(
               ctx, {.left = m[0], .right = m[1], .output = m[2], .start = ChainStart::output});
         }});
    cases.push_back(
        {"product by shards", {of_left, {rows, 33}, {40, 33}}, [rows](auto& ctx, auto& m) {
           const std::vector<Index> ends = {rows / 3, rows / 2, rows / 2, rows};
           return product_tn_shards(ctx,
                                    {.left = m[0], .right = m[1], .output = m[2], .ends = ends});
         }});
    for (const WeightFormat format : kWeightFormats) {
      cases.push_back(
          {to_string(format).data(), {{rows, 256}, {rows, 33}}, [format](auto& ctx, auto& m) {
             const Floats values = draw(33 * 256, 60);
             const auto packed = quantise_weight(ctx, format, matrix(values, 33, 256));
             REQUIRE(packed);
             return product_quantised(
                 ctx,
                 {.left = m[0],
                  .right = &*packed,
                  .output = m[1],
                  .activations = has_integer_codes(format) ? Activations::int8 : Activations::exact,
                  .start = ChainStart::output});
           }});
    }
  }
  cases.push_back({"column sums", {kOwn, {1, kColumns}}, [](auto& ctx, auto& m) {
                     return column_sums(ctx, {.x = m[0], .output = m[1].data});
                   }});
  return cases;
}

std::vector<Case> norm_cases() {
  return {
      {"rms norm forward",
       {kOwn, kOwn},
       [](auto& ctx, auto& m) {
         Floats inverse(size_of(kRows));
         return rms_norm_forward(
             ctx, {.x = m[0], .weight = weight().data(), .y = m[1], .inverse = inverse.data()});
       }},
      {"rms norm backward",
       {kOwn, kOwn, kOwn, kOwn, {1, kColumns}},
       [](auto& ctx, auto& m) {
         return rms_norm_backward(ctx, {.dy = m[0],
                                        .x = m[1],
                                        .weight = weight().data(),
                                        .inverse = statistics().data(),
                                        .dx = m[2],
                                        .dweight = m[4].data,
                                        .residual = m[3]});
       }},
      {"layer norm forward",
       {kOwn, kOwn},
       [](auto& ctx, auto& m) {
         Floats mean(size_of(kRows));
         Floats inverse(size_of(kRows));
         return layer_norm_forward(ctx, {.x = m[0],
                                         .weight = weight().data(),
                                         .bias = weight().data(),
                                         .y = m[1],
                                         .mean = mean.data(),
                                         .inverse = inverse.data()});
       }},
      {"layer norm backward",
       {kOwn, kOwn, kOwn, kOwn},
       [](auto& ctx, auto& m) {
         return layer_norm_backward(ctx, {.dy = m[0],
                                          .x = m[1],
                                          .weight = weight().data(),
                                          .mean = statistics().data(),
                                          .inverse = statistics().data(),
                                          .dx = m[2],
                                          .residual = m[3]});
       }},
  };
}

std::vector<Case> elementwise_cases() {
  return {
      {"activation forward",
       {kOwn, kOwn},
       [](auto& ctx, auto& m) {
         return activation_forward(ctx, {Activation::gelu, m[0], m[1]});
       },
       {{{1, 0}}}},
      {"activation backward",
       {kOwn, kOwn, kOwn},
       [](auto& ctx, auto& m) {
         return activation_backward(ctx, {Activation::gelu_tanh, m[0], m[1], m[2]});
       },
       {{{2, 0}}, {{2, 1}}}},
      {"gate forward",
       {kOwn, kOwn, kOwn},
       [](auto& ctx, auto& m) {
         return gate_forward(ctx, {Activation::gelu, m[0], m[1], m[2]});
       },
       {{{2, 0}}, {{2, 1}}}},
      {"gate backward",
       {kOwn, kOwn, kOwn, kOwn, kOwn},
       [](auto& ctx, auto& m) {
         return gate_backward(ctx, {Activation::silu, m[0], m[1], m[2], m[3], m[4]});
       },
       {{{3, 0}},
        {{3, 1}},
        {{3, 2}},
        {{4, 0}},
        {{4, 1}},
        {{4, 2}},
        {{3, 0}, {4, 2}},
        {{3, 1}, {4, 2}},
        {{3, 2}, {4, 1}}}},
      {"silu gate forward",
       {kOwn, kOwn, kOwn},
       [](auto& ctx, auto& m) {
         return silu_gate_forward(ctx, {.gate = m[0], .up = m[1], .y = m[2]});
       },
       {{{2, 0}}, {{2, 1}}}},
      {"silu gate backward",
       {kOwn, kOwn, kOwn, kOwn, kOwn},
       [](auto& ctx, auto& m) {
         return silu_gate_backward(
             ctx, {.dy = m[0], .gate = m[1], .up = m[2], .dgate = m[3], .dup = m[4]});
       },
       {{{3, 0}},
        {{3, 1}},
        {{4, 0}},
        {{4, 2}},
        {{3, 0}, {4, 2}},
        {{3, 1}, {4, 0}},
        {{3, 1}, {4, 2}}}},
  };
}

std::vector<Case> softmax_and_dropout_cases() {
  return {
      {"softmax forward",
       {kOwn, kOwn},
       [](auto& ctx, auto& m) {
         return softmax_forward(ctx, {m[0], m[1]});
       },
       {{{1, 0}}}},
      {"softmax backward",
       {kOwn, kOwn, kOwn},
       [](auto& ctx, auto& m) {
         return softmax_backward(ctx, {m[0], m[1], m[2]});
       },
       {{{2, 0}}, {{2, 1}}}},
      {"log softmax",
       {kOwn, kOwn},
       [](auto& ctx, auto& m) { return log_softmax(ctx, m[0], m[1]); },
       {{{1, 0}}}},
      {"dropout",
       {kOwn, kOwn},
       [](auto& ctx, auto& m) {
         return dropout(ctx, {{1, 2}, 30, 0.5, m[0], m[1]});
       },
       {{{1, 0}}}},
  };
}

std::vector<Case> token_cases() {
  return {
      {"rotary",
       {{kRows, 48}, {kRows, 8}, {kRows, 8}},
       [](auto& ctx, auto& m) {
         return rotary_apply(ctx, {.x = m[0], .head_width = 16, .cosine = m[1], .sine = m[2]});
       }},
      {"rotary angles",
       {{kRows, 8}, {kRows, 8}},
       [](auto& ctx, auto& m) {
         return rotary_angles(ctx, {.positions = tokens(),
                                    .frequencies = rotary_frequencies({.width = 16}),
                                    .cosine = m[0],
                                    .sine = m[1]});
       }},
      {"embedding forward",
       {{6, kColumns}, kOwn},
       [](auto& ctx, auto& m) {
         return embedding_forward(ctx, {.table = m[0], .tokens = tokens(), .output = m[1]});
       }},
      {"embedding backward",
       {kOwn, {6, kColumns}},
       [](auto& ctx, auto& m) {
         return embedding_backward(ctx, {.dout = m[0], .tokens = tokens(), .dtable = m[1]});
       }},
      {"cross entropy",
       {kOwn, {6, kColumns}, kOwn, {6, kColumns}},
       [](auto& ctx, auto& m) {
         Floats losses(size_of(kRows));
         return linear_cross_entropy(ctx, {.hidden = m[0],
                                           .weight = m[1],
                                           .targets = tokens(),
                                           .losses = losses.data(),
                                           .dhidden = m[2],
                                           .dweight = m[3]});
       }},
  };
}

// Two samples; heads of 8 columns, two of queries for each of keys.
const std::vector<std::int32_t> kOffsets = {0, 13, 13, 20};
const AttentionShape kAttention{.heads = 4, .kv_heads = 2, .head_width = 8, .scale = 0.3F};

Case by_pages(const char* name, CacheType type) {
  const Shape wide = {kRows, 32};
  const Shape narrow = {kRows, 16};
  return {name, {wide, narrow, narrow, wide}, [type](auto& ctx, auto& m) {
            AttentionShape shape = kAttention;
            shape.cache = type;
            FloatBuffer page(kv_page_floats(shape), ctx.device);
            float* pages[] = {page.data()};
            const SequenceRows rows{0, kRows, 0, pages};
            REQUIRE(kv_write(ctx, {shape, m[1], m[2], std::span(&rows, 1)}));
            return attention_cached(ctx, {shape, m[0], std::span(&rows, 1), m[3]});
          }};
}

std::vector<Case> attention_cases() {
  const Shape wide = {kRows, 32};
  const Shape narrow = {kRows, 16};
  return {
      {"attention forward",
       {wide, narrow, narrow, wide},
       [](auto& ctx, auto& m) {
         Floats lse(size_of(kRows * 4));
         return attention_forward(ctx, {kAttention, m[0], m[1], m[2], kOffsets, m[3], lse.data()});
       }},
      {"attention backward",
       {wide, narrow, narrow, wide, wide, wide, narrow, narrow},
       [](auto& ctx, auto& m) {
         const Floats lse(size_of(kRows * 4), 3.0F);
         return attention_backward(ctx, {kAttention, m[0], m[1], m[2], m[3], m[4], lse.data(),
                                         kOffsets, m[5], m[6], m[7]});
       }},
      by_pages("attention by pages", CacheType::f32),
      by_pages("attention by bf16 pages", CacheType::bf16),
      by_pages("attention by int8 pages", CacheType::int8),
  };
}

}  // namespace

TEST_CASE("bands: a band of a wider matrix gives the bits of a matrix of its own") {
  for (const auto& make : {product_cases, norm_cases, elementwise_cases, softmax_and_dropout_cases,
                           token_cases, attention_cases}) {
    const std::vector<Case> cases = make();
    for (const Case& c : cases) {
      INFO(c.name);
      if (is_lacking(c)) continue;
      const Floats own = outcome(single(), c, 0, 0);
      const Floats band =
          on_all_paths([&](const OpContext& ctx) { return outcome(ctx, c, kBefore, kBehind); });
      // A device's library sums by where rows lie.
      CHECK((make == product_cases ? same_sums(band, own) : same_bits(band, own)));
    }
  }
}

TEST_CASE("bands: results that lie where operands do have the bits of those apart") {
  std::vector<Case> cases = elementwise_cases();
  std::ranges::copy(softmax_and_dropout_cases(), std::back_inserter(cases));
  for (const Case& c : cases) {
    if (is_lacking(c)) continue;
    for (const Aliases& aliases : c.in_place) {
      INFO(c.name << ", result " << aliases[0].result << " at operand " << aliases[0].operand
                  << ", of " << aliases.size());
      const Floats apart = outcome_in_place(single(), c, aliases, false);
      const auto run = [&](const OpContext& ctx) {
        return outcome_in_place(ctx, c, aliases, true);
      };
      CHECK(same_bits(on_all_paths(run), apart));
    }
  }
}

TEST_CASE("bands: bf16 operands that begin anywhere in wider rows") {
  if (single().device != nullptr) {
    WARN("skipped: a GPU rounds inside its products");
    return;
  }
  using Op = Result<> (*)(const OpContext&, const Bf16Product&);
  struct Kind {
    Op op;
    Shape left, right;
  };
  const auto check = [](const Kind& kind, const Shape& outputs) {
    const auto run = [&](const OpContext& ctx, Index before, Index behind,
                         Bf16Arithmetic arithmetic) {
      std::vector<std::vector<Bf16>> data;
      std::vector<Bf16Matrix> views;
      for (const Shape& shape : {kind.left, kind.right}) {
        std::vector<Bf16> values(size_of(shape.rows * shape.columns));
        REQUIRE(to_bf16(single(), draw(shape.rows * shape.columns, 1), values));
        const Index stride = before + shape.columns + behind;
        std::vector<Bf16>& wide = data.emplace_back(size_of(shape.rows * stride), Bf16{0x7fc0});
        for (Index r = 0; r < shape.rows; ++r) {
          std::copy_n(values.data() + r * shape.columns, shape.columns,
                      wide.data() + r * stride + before);
        }
        views.push_back(
            Bf16Matrix(wide.data(), shape.rows, stride).column_range(before, shape.columns));
      }
      Placed output(outputs, 3, before, behind);
      REQUIRE(kind.op(ctx, {.left = views[0],
                            .right = views[1],
                            .output = output.view(),
                            .arithmetic = arithmetic,
                            .start = ChainStart::output}));
      REQUIRE(output.is_untouched_beside());
      Floats all;
      output.append_to(all);
      return all;
    };
    const Floats own = run(single(), 0, 0, Bf16Arithmetic::widened);
    CHECK(same_bits(on_all_paths([&](const OpContext& ctx) {
                      return run(ctx, kBefore, kBehind, Bf16Arithmetic::widened);
                    }),
                    own));
    for (const Bf16Arithmetic native : {Bf16Arithmetic::native, Bf16Arithmetic::tiles}) {
      if (!has_bf16(native)) continue;
      CHECK(same_bits(run(single(), kBefore, kBehind, native), run(single(), 0, 0, native)));
    }
  };
  // Within tiles and their groups, and whole ones with what is left of them.
  constexpr Index kSizes[][3] = {{9, 70, 31}, {70, 70, 95}};
  for (const auto& [m, n, k] : kSizes) {
    INFO(m << " x " << n << " x " << k);
    check({product_bf16_nt, {m, k}, {n, k}}, {m, n});
    check({product_bf16_nn, {m, k}, {k, n}}, {m, n});
    check({product_bf16_tn, {k, m}, {k, n}}, {m, n});
  }
}

TEST_CASE("nothing: ops over no rows succeed, and sums keep what they hold") {
  const Floats kept = draw(6 * 16, 1);
  const Floats after = on_all_paths([&](const OpContext& ctx) {
    Floats sums = kept;
    const Matrix of_tokens = matrix(sums, 6, 16);
    const ConstMatrix none(nullptr, 0, 16);
    const Matrix written(sums.data(), 0, 16);
    double loss = 2.5;
    std::int64_t count = 7;
    CHECK(linear_cross_entropy(ctx, {.hidden = none,
                                     .weight = matrix(kept, 6, 16),
                                     .targets = {},
                                     .loss_sum = &loss,
                                     .target_count = &count,
                                     .dhidden = written,
                                     .dweight = of_tokens}));
    CHECK(loss == 2.5);
    CHECK(count == 7);
    CHECK(log_softmax(ctx, none, written));
    CHECK(embedding_forward(ctx, {.table = matrix(kept, 6, 16), .tokens = {}, .output = written}));
    CHECK(embedding_backward(ctx, {.dout = none, .tokens = {}, .dtable = of_tokens}));
    CHECK(rotary_angles(ctx, {.positions = {},
                              .frequencies = rotary_frequencies({.width = 32}),
                              .cosine = written,
                              .sine = written}));
    CHECK(rotary_apply(ctx, {.x = written,
                             .head_width = 16,
                             .cosine = ConstMatrix(nullptr, 0, 8),
                             .sine = ConstMatrix(nullptr, 0, 8)}));
    CHECK(column_sums(ctx, {.x = none, .output = sums.data()}));
    CHECK(product_tn(ctx, {.left = ConstMatrix(nullptr, 0, 6),
                           .right = none,
                           .output = of_tokens,
                           .start = ChainStart::output}));
    return sums;
  });
  CHECK(same_bits(after, kept));
}

TEST_CASE("nothing: attention over no tokens, no sequences, and an empty sample among others") {
  on_all_paths([&](const OpContext& ctx) {
    const ConstMatrix wide(nullptr, 0, 32);
    const ConstMatrix narrow(nullptr, 0, 16);
    for (const std::vector<std::int32_t>& offsets :
         {std::vector<std::int32_t>{0}, std::vector<std::int32_t>{0, 0, 0}}) {
      CHECK(attention_forward(
          ctx, {kAttention, wide, narrow, narrow, offsets, Matrix(nullptr, 0, 32), nullptr}));
      CHECK(attention_backward(
          ctx, {kAttention, wide, narrow, narrow, wide, wide, nullptr, offsets,
                Matrix(nullptr, 0, 32), Matrix(nullptr, 0, 16), Matrix(nullptr, 0, 16)}));
    }
    CHECK(kv_write(ctx, {kAttention, narrow, narrow, {}}));
    CHECK(attention_cached(ctx, {kAttention, wide, {}, Matrix(nullptr, 0, 32)}));
    return Floats{};
  });
}

TEST_CASE("nothing: weights without rows or columns") {
  on_all_paths([&](const OpContext& ctx) {
    for (const Shape& s : {Shape{0, 5}, Shape{5, 0}, Shape{0, 0}}) {
      const Matrix m(nullptr, s.rows, s.columns);
      Floats row(size_of(s.rows));
      Floats column(size_of(s.columns));
      CHECK(adafactor_update(ctx, {{}, m, m, row, column}));
      CHECK(muon_update(ctx, {{}, m, m, m}));
    }
    for (const WeightFormat format : kWeightFormats) {
      INFO(to_string(format));
      const auto activations = has_integer_codes(format) ? Activations::int8 : Activations::exact;
      const Floats values = draw(2 * 256, 1);
      const auto packed = quantise_weight({.pool = ctx.pool}, format, matrix(values, 2, 256));
      REQUIRE(packed);
      CHECK(product_quantised(ctx, {.left = ConstMatrix(nullptr, 0, 256),
                                    .right = &*packed,
                                    .output = Matrix(nullptr, 0, 2),
                                    .activations = activations}));
      const auto none = pack_rows({.pool = ctx.pool}, format, {}, 0);
      if (none) CHECK(none->outputs() == 0);
    }
    return Floats{};
  });
}

}  // namespace tutti::kernels::parity
