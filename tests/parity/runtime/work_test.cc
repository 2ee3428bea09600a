// What ops count as their work, exactly (op_counters.h).
#include <array>
#include <functional>
#include <span>
#include <string_view>

#include "kernels/ops/attention.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/ops/product.h"
#include "kernels/ops/rotary.h"
#include "kernels/tensor/op_counters.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {

TEST_CASE("runtime: work is the formula's, whatever is computed twice or left alone") {
  using Work = std::array<std::int64_t, 2>;
  const auto work = [](std::string_view name, const std::function<Result<>()>& op) {
    const auto now = [&] {
      for (const OpCount& count : op_counts()) {
        if (count.name == name) return Work{count.flop, count.bytes};
      }
      return Work{};
    };
    const Work before = now();
    REQUIRE(op());
    const Work after = now();
    return Work{after[0] - before[0], after[1] - before[1]};
  };
  const OpContext& ctx = single();

  // Logits of 4,097 tokens are computed twice by blocks.
  const Floats hidden = draw(3 * 8, 1);
  const Floats weight = draw(4097 * 8, 2);
  const std::vector<std::int32_t> targets = {1, 2, 4096};
  Floats losses(3), dhidden(hidden.size()), dweight(weight.size());
  LinearCrossEntropy loss{.hidden = matrix(hidden, 3, 8),
                          .weight = matrix(weight, 4097, 8),
                          .targets = targets,
                          .losses = losses.data(),
                          .memory = LinearCrossEntropy::Memory::blocks};
  const auto run_loss = [&] { return linear_cross_entropy(ctx, loss); };
  const std::int64_t logits = 3 * 4097;
  CHECK(work("linear_cross_entropy", run_loss) ==
        Work{logits * (2 * 8 + 3), 4 * (3 * 8 + 4097 * 8 + 3 + 3)});
  loss.dhidden = matrix(dhidden, 3, 8);
  loss.dweight = matrix(dweight, 4097, 8);
  const Work of_gradients{logits * (6 * 8 + 4), 4 * (2 * 3 * 8 + 3 * 4097 * 8 + 3 + 3)};
  CHECK(work("linear_cross_entropy", run_loss) == of_gradients);
  loss.memory = LinearCrossEntropy::Memory::rows;
  CHECK(work("linear_cross_entropy", run_loss) == of_gradients);

  // Two heads of 32, 5 tokens that see 15 pairs.
  const AttentionShape shape{2, 1, 32, 0.2F};
  const Floats q = draw(5 * 64, 3);
  const Floats kv = draw(5 * 32, 4);
  Floats out(q.size()), dq(q.size()), dk(kv.size()), dv(kv.size()), lse(10);
  const std::vector<std::int32_t> offsets = {0, 5};
  CHECK(work("attention_forward", [&] {
          return attention_forward(
              ctx, {shape, matrix(q, 5, 64), matrix(kv, 5, 32), matrix(kv, 5, 32), offsets,
                    matrix(out, 5, 64), lse.data()});
        }) == Work{15 * 2 * (4 * 32 + 5), 4 * 5 * (2 * 64 + 2 * 32 + 2)});
  CHECK(work("attention_backward", [&] {
          return attention_backward(
              ctx, {shape, matrix(q, 5, 64), matrix(kv, 5, 32), matrix(kv, 5, 32),
                    matrix(out, 5, 64), matrix(q, 5, 64), lse.data(), offsets, matrix(dq, 5, 64),
                    matrix(dk, 5, 32), matrix(dv, 5, 32)});
        }) == Work{15 * 2 * (10 * 32 + 6) + 2 * 5 * 64, 4 * 5 * (4 * 64 + 4 * 32 + 2)});
  FloatBuffer page(kv_page_floats(shape));
  float* pages[] = {page.data()};
  const SequenceRows rows{0, 5, 0, pages};
  REQUIRE(kv_write(ctx, {shape, matrix(kv, 5, 32), matrix(kv, 5, 32), std::span(&rows, 1)}));
  CHECK(work("attention_cached", [&] {
          return attention_cached(
              ctx, {shape, matrix(q, 5, 64), std::span(&rows, 1), matrix(out, 5, 64)});
        }) == Work{15 * 2 * (4 * 32 + 5), 4 * 5 * (2 * 64 + 2 * 32)});

  // A quarter of each head of 32 turns.
  const Floats angles = draw(5 * 4, 5);
  CHECK(work("rotary_apply", [&] {
          return rotary_apply(ctx, {.x = matrix(out, 5, 64),
                                    .head_width = 32,
                                    .cosine = matrix(angles, 5, 4),
                                    .sine = matrix(angles, 5, 4)});
        }) == Work{3 * 5 * 16, 4 * 5 * (2 * 16 + 8)});

  // Three shards that have tokens are added to one.
  Floats sums(64 * 32);
  const std::vector<Index> ends = {2, 2, 3, 5};
  CHECK(work("product_tn_shards", [&] {
          return product_tn_shards(ctx, {.left = matrix(q, 5, 64),
                                         .right = matrix(kv, 5, 32),
                                         .output = matrix(sums, 64, 32),
                                         .ends = ends});
        }) == Work{64 * 32 * (2 * 5 + 2), 4 * (5 * (64 + 32) + 64 * 32)});

  // Outputs of two bytes.
  std::vector<Bf16> narrow(64 * 32);
  CHECK(work("product_tn", [&] {
          return product_tn(ctx, {.left = matrix(q, 5, 64),
                                  .right = matrix(kv, 5, 32),
                                  .output = {},
                                  .narrow = {narrow.data(), 64, 32}});
        }) == Work{2 * 5 * 64 * 32, 4 * 5 * (64 + 32) + 2 * 64 * 32});

  // Sums that go on are read, too.
  for (const ChainStart start : {ChainStart::output, ChainStart::zero}) {
    const std::int64_t outputs = start == ChainStart::output ? 2 : 1;
    CHECK(work("column_sums", [&] {
            return column_sums(ctx, {.x = matrix(q, 5, 64), .output = sums.data(), .start = start});
          }) == Work{5 * 64, 4 * (5 + outputs) * 64});
  }
}

}  // namespace tutti::kernels::parity
