// Ops around a scope of rounding.h that are not rounded in it: they keep their bits or say so, and
// an arithmetic that the path lacks is an error of theirs, not an abort.
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/optimizers/muon.h"
#include "kernels/ops/product_batched.h"
#include "kernels/ops/weights/packed_bf16.h"
#include "kernels/ops/weights/product_quantised_nn.h"
#include "kernels/tensor/op_counters.h"
#include "kernels/tensor/rounding.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

// The first is everywhere; AVX2 has none of the others.
constexpr Bf16Arithmetic kArithmetics[] = {Bf16Arithmetic::widened, Bf16Arithmetic::native,
                                           Bf16Arithmetic::tiles};

QuantisedWeight quantised(Index outputs, Index inputs) {
  const Floats values = draw(outputs * inputs, 1);
  auto made = quantise_weight(single(), WeightFormat::q8_0, matrix(values, outputs, inputs));
  REQUIRE(made);
  return *std::move(made);
}

Floats input_gradient(const QuantisedWeight& weight, Index rows) {
  const Floats dy = draw(rows * weight.outputs(), 2);
  Floats dx(size_of(rows * weight.inputs()));
  REQUIRE(product_quantised_nn(single(), {.left = matrix(dy, rows, weight.outputs()),
                                          .right = &weight,
                                          .output = matrix(dx, rows, weight.inputs())}));
  return dx;
}

Floats muon_step(Index rows, Index columns) {
  Floats weight = draw(rows * columns, 1);
  const Floats gradient = draw(rows * columns, 2);
  Floats velocity = draw(rows * columns, 3);
  REQUIRE(muon_update(single(), {.settings = {},
                                 .weight = matrix(weight, rows, columns),
                                 .gradient = matrix(gradient, rows, columns),
                                 .velocity = matrix(velocity, rows, columns)}));
  weight.insert(weight.end(), velocity.begin(), velocity.end());
  return weight;
}

struct PathOf {
  explicit PathOf(CpuPath path) : before(cpu_path()) { REQUIRE(choose_cpu_path(path)); }
  ~PathOf() { CHECK(choose_cpu_path(before)); }
  PathOf(const PathOf&) = delete;
  PathOf& operator=(const PathOf&) = delete;
  CpuPath before;
};

}  // namespace

TEST_CASE("scope: the gradient through a quantised weight and Muon's products stay fp32") {
  const QuantisedWeight weight = quantised(300, 256);
  const Floats gradient = input_gradient(weight, 5);
  const Floats wide = muon_step(17, 40);
  const Floats tall = muon_step(40, 17);
  // On a path that lacks two of them, which neither op needs.
  const PathOf avx2(CpuPath::avx2);
  for (const Bf16Arithmetic arithmetic : kArithmetics) {
    const RoundingScope scope(arithmetic);
    CHECK(same_bits(input_gradient(weight, 5), gradient));
    CHECK(same_bits(muon_step(17, 40), wide));
    CHECK(same_bits(muon_step(40, 17), tall));
    CHECK(RoundingScope::in_use() == Rounding(arithmetic));
  }
}

TEST_CASE("scope: a loss whose products the path cannot round is refused, and writes nothing") {
  const Floats hidden = draw(6 * 8, 1);
  const Floats weight = draw(10 * 8, 2);
  const std::vector<std::int32_t> targets = {0, 3, -1, 9, 5, 5};
  const Floats marks(80, 7.0F);
  const auto loss = [&](Floats& losses, Floats& dhidden, Floats& dweight) {
    return linear_cross_entropy(single(), {.hidden = matrix(hidden, 6, 8),
                                           .weight = matrix(weight, 10, 8),
                                           .targets = targets,
                                           .losses = losses.data(),
                                           .dhidden = matrix(dhidden, 6, 8),
                                           .dweight = matrix(dweight, 10, 8)});
  };
  const PathOf avx2(CpuPath::avx2);
  for (const Bf16Arithmetic arithmetic : kArithmetics) {
    Floats losses = marks;
    Floats dhidden = marks;
    Floats dweight = marks;
    const RoundingScope scope(arithmetic);
    const auto done = loss(losses, dhidden, dweight);
    if (arithmetic == Bf16Arithmetic::widened) {
      REQUIRE(done);
      CHECK(losses != marks);
      continue;
    }
    REQUIRE_FALSE(done);
    CHECK(done.error().code == ErrorCode::unsupported);
    CHECK(losses == marks);
    CHECK(dhidden == marks);
    CHECK(dweight == marks);
  }
}

TEST_CASE("scope: batches of fp32 products and the tree of shards, which have no rounded form") {
  const Floats x = draw(6 * 8, 1);
  const Floats marks(64, 7.0F);
  Floats output = marks;
  const std::vector<Index> ends = {2, 6};
  const auto batched = [&] {
    return product_batched(single(), {.count = 1,
                                      .left = matrix(x, 6, 8),
                                      .right = matrix(x, 6, 8),
                                      .output = matrix(output, 6, 6)});
  };
  const auto shards = [&] {
    return product_tn_shards(single(), {.left = matrix(x, 6, 8),
                                        .right = matrix(x, 6, 8),
                                        .output = matrix(output, 8, 8),
                                        .ends = ends});
  };
  {
    const RoundingScope scope(Bf16Arithmetic::widened);
    for (const auto& refused : {batched(), shards()}) {
      REQUIRE_FALSE(refused);
      CHECK(refused.error().code == ErrorCode::unsupported);
    }
    CHECK(output == marks);
    const RoundingScope none(std::nullopt);
    REQUIRE(batched());
  }
  REQUIRE(shards());
  CHECK(output != marks);
}

TEST_CASE("counters: a product in few bits is counted once, whatever computes its parts") {
  const auto calls = [] {
    std::int64_t products = 0;
    for (const OpCount& count : op_counts()) {
      if (count.name.starts_with("product")) products += count.calls;
    }
    return products;
  };
  const Floats x = draw(5 * 64, 1);
  const Floats w = draw(70 * 64, 2);
  std::vector<Bf16> left(x.size());
  std::vector<Bf16> right(w.size());
  REQUIRE(to_bf16(single(), x, left));
  REQUIRE(to_bf16(single(), w, right));
  const auto packed = pack_bf16_weight(single(), {right.data(), 70, 64}, Bf16Arithmetic::widened);
  REQUIRE(packed);
  const QuantisedWeight weight = quantised(300, 256);
  Floats output(size_of(5 * 70));
  const auto before = calls();
  REQUIRE(product_bf16_nt(single(), {.left = {left.data(), 5, 64},
                                     .right = {right.data(), 70, 64},
                                     .output = matrix(output, 5, 70),
                                     .packed = &*packed}));
  CHECK(calls() == before + 1);
  input_gradient(weight, 5);
  CHECK(calls() == before + 2);
}

}  // namespace tutti::kernels::parity
