// Spans that begin one number off a vector's border, and empty ones: every op over flat numbers
// gives the bits that it gives over a span of its own, and touches nothing beside it.
#include <cstring>
#include <functional>
#include <memory>

#include "kernels/ops/adamw.h"
#include "kernels/ops/add.h"
#include "kernels/ops/elementwise/bf16.h"
#include "kernels/ops/elementwise/dropout.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/ops/optimizers/adamw8.h"
#include "kernels/ops/optimizers/lion.h"
#include "kernels/ops/optimizers/schedule_free.h"
#include "kernels/ops/optimizers/sgd.h"
#include "kernels/ops/product.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/weights/product_int8.h"
#include "tests/parity/harness.h"
#include "tests/parity/sweeps/lacking.h"

namespace tutti::kernels::parity {
namespace {

using Span = std::span<float>;
using Spans = std::vector<Span>;

// What an op says beside its spans: hashes, sums, 8-bit states.
template <class Of>
void append(Floats& all, const std::vector<Of>& values) {
  const std::size_t bytes = values.size() * sizeof(Of);
  const std::size_t before = all.size();
  all.resize(before + (bytes + 3) / 4);
  if (bytes > 0) std::memcpy(all.data() + before, values.data(), bytes);
}
template <class... Of>
Floats said(const Result<>& done, const std::vector<Of>&... values) {
  if (is_lacking(done)) return {};
  REQUIRE(done);
  Floats all;
  (append(all, values), ...);
  return all;
}

bool succeeds(const Result<>& done) { return done || is_lacking(done); }

// A result that lies where an operand does.
struct Alias {
  std::size_t result, operand;
};

struct Case {
  const char* name;
  std::size_t spans;  // of operands and results alike
  std::function<Floats(const OpContext&, const Spans&)> run;
  std::vector<Alias> in_place = {};  // what the op's header allows
};

std::size_t blocks_of(const Span& span) {
  return static_cast<std::size_t>(grid_blocks(static_cast<Index>(span.size())));
}

// The first `count` bf16 numbers of a span's memory.
std::span<Bf16> halves_of(const Span& span, std::size_t count) {
  return {reinterpret_cast<Bf16*>(span.data()), count};
}

void make_positive(const Span& span) {
  for (float& value : span) value = std::abs(value);
}

Floats tree_of_three(const OpContext& ctx, const Spans& s) {
  const std::span<const float> parts[] = {s[0], s[1], {}, s[2]};
  return said(tree_sum(ctx, {parts, s[3]}));
}

Floats added_pieces(const OpContext& ctx, const Spans& s) {
  const auto size = static_cast<Index>(s[0].size());
  float* const pieces[] = {s[0].data(), s[1].data()};
  const PieceSum::Addition addition{0, 1};
  const AddPieces::Block block{0, std::min<Index>(size, 65536)};
  const std::size_t blocks = size > 0 ? 1 : 0;
  std::vector<double> squares(blocks);
  return said(add_pieces(ctx, {.pieces = pieces,
                               .additions = std::span(&addition, 1),
                               .count = size,
                               .sum = s[0].data(),
                               .blocks = std::span(&block, blocks),
                               .squares = squares}),
              squares);
}

Floats adamw_step(const OpContext& ctx, const Spans& s) {
  make_positive(s[3]);
  std::vector<Hash128> hashes(blocks_of(s[0]));
  return said(adamw_update(ctx, {{}, s[0], s[1], s[2], s[3], hashes}), hashes);
}

Floats adamw8_step(const OpContext& ctx, const Spans& s) {
  std::vector<std::int8_t> first(s[0].size() + 1);
  std::vector<std::uint8_t> second(s[0].size() + 1);
  const auto blocks = static_cast<std::size_t>(state8_blocks(static_cast<Index>(s[0].size())));
  Floats first_scales(blocks);
  Floats second_scales(blocks);
  return said(adamw8_update(ctx, {{},
                                  s[0],
                                  s[1],
                                  std::span(first).subspan(1),
                                  std::span(second).subspan(1),
                                  first_scales,
                                  second_scales}),
              first, second, first_scales, second_scales);
}

// From an odd place, where there is one.
Floats widened_halves(const OpContext& ctx, const Spans& s) {
  std::fill(s[0].begin(), s[0].end(), 1.5F);
  const std::size_t count = s[0].empty() ? 0 : s[0].size() - 1;
  const std::span<Bf16> from = halves_of(s[0], 2 * s[0].size());
  return said(from_bf16(ctx, from.subspan(count > 0 ? 1 : 0, count), s[1].first(count)));
}

std::vector<Case> cases() {
  return {
      {"add into", 2, [](auto& ctx, auto& s) { return said(add_into(ctx, s[0], s[1])); }},
      {"tree sum", 4, tree_of_three, {{3, 0}, {3, 1}, {3, 2}}},
      {"add pieces", 2, added_pieces},
      {"square sums", 1,
       [](auto& ctx, auto& s) {
         std::vector<double> sums(blocks_of(s[0]));
         return said(square_sums(ctx, s[0], sums), sums);
       }},
      {"hash blocks", 1,
       [](auto& ctx, auto& s) {
         std::vector<Hash128> hashes(blocks_of(s[0]));
         return said(hash_blocks(ctx, s[0], hashes), hashes);
       }},
      {"adamw", 4, adamw_step},
      {"adamw8", 2, adamw8_step},
      {"sgd", 3,
       [](auto& ctx, auto& s) {
         return said(sgd_update(ctx, {{}, s[0], s[1], s[2]}));
       }},
      {"lion", 3,
       [](auto& ctx, auto& s) {
         return said(lion_update(ctx, {{}, s[0], s[1], s[2]}));
       }},
      {"schedule-free", 4,
       [](auto& ctx, auto& s) {
         make_positive(s[3]);
         return said(schedule_free_update(ctx, {{}, s[0], s[1], s[2], s[3]}));
       }},
      {"schedule-free average",
       3,
       [](auto& ctx, auto& s) {
         return said(schedule_free_average(ctx, {0.9, s[0], s[1], s[2]}));
       },
       {{2, 0}, {2, 1}}},
      {"to bf16", 2,
       [](auto& ctx, auto& s) { return said(to_bf16(ctx, s[0], halves_of(s[1], s[0].size()))); }},
      {"to bf16, stochastic", 2,
       [](auto& ctx, auto& s) {
         return said(to_bf16_stochastic(ctx, {{1, 2}, 5, s[0], halves_of(s[1], s[0].size())}));
       }},
      {"from bf16", 2, widened_halves},
      {"fill normal", 1,
       [](auto& ctx, auto& s) {
         return said(fill_normal(ctx, {.key = {1, 2}, .first_index = 3, .out = s[0]}));
       }},
      {"fill uniform", 1,
       [](auto& ctx, auto& s) {
         return said(fill_uniform(ctx, {.key = {1, 2}, .first_index = 3, .out = s[0]}));
       }},
  };
}

// The spans after the op, and what it says beside them; each begins `off` numbers behind a border
// of 64 bytes.
Floats outcome(const OpContext& ctx, const Case& c, std::size_t size, std::size_t off) {
  constexpr float kBeside = -9.0F;
  constexpr std::size_t kBorder = 64;
  std::vector<Floats> memory(c.spans, Floats(size + 17 + kBorder / sizeof(float)));
  Spans wholes;
  Spans spans;
  for (std::size_t i = 0; i < c.spans; ++i) {
    void* start = memory[i].data();
    std::size_t room = memory[i].size() * sizeof(float);
    REQUIRE(std::align(kBorder, (size + 17) * sizeof(float), start, room) != nullptr);
    const Span whole(static_cast<float*>(start), size + 17);
    wholes.push_back(whole);
    std::fill(whole.begin(), whole.end(), kBeside);
    const Floats values = draw(static_cast<Index>(size), i + 1);
    std::copy(values.begin(), values.end(), whole.begin() + static_cast<std::ptrdiff_t>(off));
    spans.push_back(whole.subspan(off, size));
  }
  Floats all = c.run(ctx, spans);
  for (std::size_t i = 0; i < c.spans; ++i) {
    const Span& whole = wholes[i];
    const auto is_beside = [](float value) { return value == kBeside; };
    REQUIRE(std::ranges::all_of(whole.first(off), is_beside));
    REQUIRE(std::ranges::all_of(whole.subspan(off + size), is_beside));
    all.insert(all.end(), spans[i].begin(), spans[i].end());
  }
  return all;
}

}  // namespace

TEST_CASE("spans: numbers that begin one off a border have the bits of those that begin on it") {
  constexpr std::size_t kSize = 2 * 16384 + 77;
  for (const Case& c : cases()) {
    INFO(c.name);
    const Floats own = outcome(single(), c, kSize, 0);
    CHECK(same_bits(on_all_paths([&](const OpContext& ctx) { return outcome(ctx, c, kSize, 1); }),
                    own));
  }
}

TEST_CASE("spans: a result that lies where an operand does has the bits of one apart") {
  constexpr Index kSize = 65536 + 77;
  for (const Case& c : cases()) {
    for (const Alias& alias : c.in_place) {
      INFO(c.name << ", result " << alias.result << " at operand " << alias.operand);
      const auto run = [&](const OpContext& ctx, std::size_t place) {
        std::vector<Floats> memory;
        for (std::size_t i = 0; i < c.spans; ++i) memory.push_back(draw(kSize, i + 1));
        Spans spans(memory.begin(), memory.end());
        spans[alias.result] = memory[place];
        c.run(ctx, spans);
        return memory[place];
      };
      const Floats apart = run(single(), alias.result);
      CHECK(same_bits(on_all_paths([&](const OpContext& ctx) { return run(ctx, alias.operand); }),
                      apart));
    }
  }
  const Floats once = draw(kSize, 1);
  Floats twice = once;
  REQUIRE(add_into(single(), twice, twice));
  for (std::size_t i = 0; i < once.size(); ++i) REQUIRE(twice[i] == 2.0F * once[i]);
}

TEST_CASE("nothing: ops over no numbers succeed and touch nothing") {
  for (const Case& c : cases()) {
    INFO(c.name);
    on_all_paths([&](const OpContext& ctx) { return outcome(ctx, c, 0, 1); });
  }
}

TEST_CASE("nothing: norms backward, dropout and rows of int8 without rows") {
  const Floats kept = draw(16, 1);
  const Floats after = on_all_paths([&](const OpContext& ctx) {
    Floats sums = kept;
    const ConstMatrix none(nullptr, 0, 8);
    const Matrix written(nullptr, 0, 8);
    const float statistic = 1.0F;
    CHECK(rms_norm_backward(ctx, {.dy = none,
                                  .x = none,
                                  .weight = kept.data(),
                                  .inverse = &statistic,
                                  .dx = written,
                                  .dweight = sums.data()}));
    CHECK(layer_norm_backward(ctx, {.dy = none,
                                    .x = none,
                                    .weight = kept.data(),
                                    .mean = &statistic,
                                    .inverse = &statistic,
                                    .dx = written,
                                    .dweight = sums.data(),
                                    .dbias = sums.data() + 8}));
    CHECK(dropout(ctx, {{1, 2}, 0, 0.5, none, written}));
    CHECK(succeeds(
        to_int8_rows(ctx, {.x = none, .codes = {nullptr, 0, 8}, .scales = {nullptr, 0, 1}})));
    return sums;
  });
  CHECK(same_bits(after, kept));
}

TEST_CASE("nothing: products of int8 and by shards without rows or columns") {
  on_all_paths([&](const OpContext& ctx) {
    const Floats weight = draw(3 * 32, 1);
    const auto packed =
        quantise_weight({.pool = ctx.pool}, WeightFormat::int8_channel, matrix(weight, 3, 32));
    const auto none = pack_rows({.pool = ctx.pool}, WeightFormat::int8_channel, {}, 0);
    REQUIRE(packed);
    REQUIRE(none);
    const std::vector<std::int8_t> codes(2 * 32, 1);
    const Floats scales(2, 1.0F);
    CHECK(succeeds(product_int8(ctx, {.codes = {nullptr, 0, 32},
                                      .scales = {nullptr, 0, 1},
                                      .right = &*packed,
                                      .output = {nullptr, 0, 3}})));
    CHECK(succeeds(product_int8(ctx, {.codes = {codes.data(), 2, 0},
                                      .scales = matrix(scales, 2, 1),
                                      .right = &*none,
                                      .output = {nullptr, 2, 0}})));
    const std::vector<Index> ends = {1, 2};
    const Floats left = draw(2 * 5, 2);
    CHECK(succeeds(product_tn_shards(ctx, {.left = {nullptr, 2, 0},
                                           .right = matrix(left, 2, 5),
                                           .output = {nullptr, 0, 5},
                                           .ends = ends})));
    CHECK(succeeds(product_tn_shards(ctx, {.left = matrix(left, 2, 5),
                                           .right = {nullptr, 2, 0},
                                           .output = {nullptr, 5, 0},
                                           .ends = ends})));
    return Floats{};
  });
}

}  // namespace tutti::kernels::parity
