// What a step costs beside its arithmetic: nothing is allocated, ops are counted, threads stay on
// their cores.
#include <sched.h>

#include <atomic>

#include "kernels/ops/adamw.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/ops/optimizers/muon.h"
#include "kernels/ops/product.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/tensor/cores.h"
#include "kernels/tensor/op_counters.h"
#include "tests/parity/counted_allocations.h"
#include "tests/parity/harness.h"

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

}  // namespace

TEST_CASE("runtime: after the first steps a step allocates nothing") {
  Layer layer;
  ThreadPool pool(3);
  const OpContext ctx{&pool};
  // Which thread takes which piece differs from step to step: each arena has to have met its
  // largest.
  long fresh = -1;
  for (int step = 0; step < 200 && fresh != 0; ++step) {
    const long before = counted_allocations() + AlignedBytes::allocations();
    for (int again = 0; again < 3; ++again) layer.step(ctx);
    fresh = counted_allocations() + AlignedBytes::allocations() - before;
  }
  REQUIRE(fresh == 0);
}

TEST_CASE("runtime: ops are counted with their work") {
  const auto count_of = [](std::string_view name) {
    for (const OpCount& count : op_counts()) {
      if (count.name == name) return count;
    }
    return OpCount{};
  };
  const OpCount before = count_of("attention_forward");
  const OpCount products = count_of("product");
  Layer layer;
  layer.step(single());
  const OpCount after = count_of("attention_forward");
  REQUIRE(after.calls == before.calls + 1);
  REQUIRE(after.seconds > before.seconds);
  // Two samples of 70 and 60 tokens, 64 columns, two products of 2 operations.
  REQUIRE(after.flop - before.flop == 4 * 64 * (70 * 71 / 2 + 60 * 61 / 2));
  REQUIRE(count_of("product").flop - products.flop >= 2 * 2 * 130 * 64 * 64);
}

TEST_CASE("cores: shared among ranks, the first left to the agent, lists that are none refused") {
  const std::vector<int> two = {0, 1};
  REQUIRE(share_cores(two, 0, 1) == std::vector<int>{0, 1});
  REQUIRE(share_cores(two, 1, 2) == std::vector<int>{1});
  REQUIRE(share_cores(two, 0, 3).empty());
  const std::vector<int> eight = {0, 2, 4, 6, 8, 10, 12, 14};
  REQUIRE(share_cores(eight, 0, 2) == std::vector<int>{2, 4, 6});
  REQUIRE(share_cores(eight, 1, 2) == std::vector<int>{8, 10, 12, 14});
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
