// bf16 products: widened ones against the chain on all paths, those of native instructions against
// their stated order, bit for bit.
#include "kernels/ops/product_bf16.h"

#include "kernels/ops/weights/packed_bf16.h"
#include "tests/parity/harness.h"
#include "tests/parity/other_caches.h"
#include "tests/parity/products/bf16_orders.h"
#include "tests/support/skip.h"

namespace tutti::kernels::parity {
namespace {

using Halves = std::vector<Bf16>;
using Op = Result<> (*)(const OpContext&, const Bf16Product&);

struct Shape {
  Index m, n, k;
};
const Shape kShapes[] = {{1, 1, 1},   {0, 3, 4},   {3, 0, 4},    {2, 5, 0},     {1, 70, 33},
                         {5, 64, 64}, {7, 65, 31}, {40, 20, 90}, {300, 70, 41}, {9, 130, 2100}};

struct Kind {
  const char* name;
  Op op;
  bool left_turned;   // stored [k][row]
  bool right_turned;  // stored [column][k]
};
const Kind kKinds[] = {{"nt", product_bf16_nt, false, true},
                       {"nn", product_bf16_nn, false, false},
                       {"tn", product_bf16_tn, true, false}};

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

Halves halves(Index count, std::uint64_t stream) {
  Halves result(size_of(count));
  REQUIRE(to_bf16(single(), draw(count, stream), result));
  return result;
}

struct Case {
  Case(const Kind& kind_in, const Shape& s)
      : kind(kind_in),
        shape(s),
        left(halves(s.m * s.k, 1)),
        right(halves(s.k * s.n, 2)),
        before(draw(s.m * s.n, 3)) {}

  float left_at(Index row, Index k) const {
    return wide(left[size_of(kind.left_turned ? k * shape.m + row : row * shape.k + k)]);
  }
  float right_at(Index k, Index column) const {
    return wide(right[size_of(kind.right_turned ? column * shape.k + k : k * shape.n + column)]);
  }
  // nt by the image of the right operand, which is there beside it for an even number of rows.
  Floats run_packed(const OpContext& ctx, Bf16Arithmetic arithmetic, ChainStart start) const {
    const auto packed = pack_bf16_weight(ctx, {right.data(), shape.n, shape.k}, arithmetic);
    REQUIRE(packed);
    Floats output = before;
    REQUIRE(product_bf16_nt(
        ctx, {.left = {left.data(), shape.m, shape.k},
              .right = {shape.m % 2 == 0 ? right.data() : nullptr, shape.n, shape.k, shape.k},
              .output = matrix(output, shape.m, shape.n),
              .arithmetic = arithmetic,
              .start = start,
              .packed = &*packed}));
    return output;
  }
  Floats run(const OpContext& ctx, Bf16Arithmetic arithmetic) const {
    Floats output = before;
    REQUIRE(kind.op(ctx, {.left = kind.left_turned ? Bf16Matrix(left.data(), shape.k, shape.m)
                                                   : Bf16Matrix(left.data(), shape.m, shape.k),
                          .right = kind.right_turned ? Bf16Matrix(right.data(), shape.n, shape.k)
                                                     : Bf16Matrix(right.data(), shape.k, shape.n),
                          .output = matrix(output, shape.m, shape.n),
                          .arithmetic = arithmetic,
                          .start = ChainStart::output}));
    return output;
  }
  float sum(Bf16Arithmetic arithmetic, Index row, Index column) const {
    return bf16_sum(
        arithmetic, before[size_of(row * shape.n + column)], shape.k,
        [&](Index k) { return left_at(row, k); }, [&](Index k) { return right_at(k, column); });
  }
  // The order of each arithmetic, k by k.
  Floats expected(Bf16Arithmetic arithmetic) const {
    Floats result = before;
    for (Index r = 0; r < shape.m; ++r) {
      for (Index c = 0; c < shape.n; ++c) {
        result[size_of(r * shape.n + c)] = sum(arithmetic, r, c);
      }
    }
    return result;
  }

  Kind kind;
  Shape shape;
  Halves left, right;
  Floats before;
};

}  // namespace

TEST_CASE("bf16 product: widened, every output is the fp32 chain, on all paths") {
  Golden golden("product bf16, widened");
  for (const Kind& kind : kKinds) {
    for (const Shape& shape : kShapes) {
      const Case c(kind, shape);
      INFO(kind.name << " " << shape.m << " x " << shape.n << " x " << shape.k);
      const Floats result = on_all_paths(
          golden, [&](const OpContext& ctx) { return c.run(ctx, Bf16Arithmetic::widened); });
      REQUIRE(same_bits(result, c.expected(Bf16Arithmetic::widened)));
    }
  }
  golden.check();
}

namespace {

// Of one of the native arithmetics, where this machine has it.
void check_native(Bf16Arithmetic arithmetic) {
  ThreadPool pools[] = {ThreadPool(1), ThreadPool(2), ThreadPool(3), ThreadPool(4), ThreadPool(7)};
  Golden golden("product bf16, profile " + std::string(profile_of(arithmetic)));
  for (const Kind& kind : kKinds) {
    for (const Shape& shape : kShapes) {
      Case c(kind, shape);
      if (!c.left.empty()) c.left[0] = 0x0040;  // denormal
      INFO(kind.name << " " << shape.m << " x " << shape.n << " x " << shape.k);
      const Floats expected = c.expected(arithmetic);
      for (ThreadPool& pool : pools) {
        REQUIRE(same_bits(c.run({.pool = &pool}, arithmetic), expected));
        if (kind.op != product_bf16_nt) continue;
        REQUIRE(same_bits(c.run_packed({.pool = &pool}, arithmetic, ChainStart::output), expected));
      }
      golden.add(expected);
    }
  }
  golden.check();
}

}  // namespace

TEST_CASE("bf16 product: native, every output is the stated chain, for any number of threads") {
  const CpuPath before = cpu_path();
  if (!choose_cpu_path(CpuPath::avx512bf16)) {
    return test::skip("this machine has no native bf16 products");
  }
  check_native(Bf16Arithmetic::native);
  REQUIRE(choose_cpu_path(before));
}

TEST_CASE("bf16 product: tiles, every output is the stated sum, for any number of threads") {
  const CpuPath before = cpu_path();
  if (!choose_cpu_path(CpuPath::avx512bf16) || !has_bf16(Bf16Arithmetic::tiles)) {
    REQUIRE(choose_cpu_path(before));
    return test::skip("this machine has no products of bf16 tiles");
  }
  check_native(Bf16Arithmetic::tiles);
  REQUIRE(choose_cpu_path(before));
}

TEST_CASE("bf16 product: tiles in many blocks of rows, columns and k") {
  const CpuPath before = cpu_path();
  if (!choose_cpu_path(CpuPath::avx512bf16) || !has_bf16(Bf16Arithmetic::tiles)) {
    REQUIRE(choose_cpu_path(before));
    return test::skip("this machine has no products of bf16 tiles");
  }
  ThreadPool pools[] = {ThreadPool(1), ThreadPool(3)};
  for (const Kind& kind : kKinds) {
    const Case c(kind, {1050, 600, 1101});
    INFO(kind.name);
    const Floats whole = c.run(single(), Bf16Arithmetic::tiles);
    // An output of every row, and of every column.
    for (Index row = 0; row < c.shape.m; ++row) {
      const Index column = row % c.shape.n;
      INFO("row " << row);
      const std::size_t at = size_of(row * c.shape.n + column);
      const float expected = c.sum(Bf16Arithmetic::tiles, row, column);
      REQUIRE(std::bit_cast<std::uint32_t>(whole[at]) == std::bit_cast<std::uint32_t>(expected));
    }
    // Blocks of rows and of columns begin elsewhere in each of these.
    const auto run_all = [&](const OpContext& ctx) {
      REQUIRE(same_bits(c.run(ctx, Bf16Arithmetic::tiles), whole));
      if (kind.op != product_bf16_nt) return;
      REQUIRE(same_bits(c.run_packed(ctx, Bf16Arithmetic::tiles, ChainStart::output), whole));
    };
    for (ThreadPool& pool : pools) run_all({.pool = &pool});
    const OtherCaches other;
    for (ThreadPool& pool : pools) run_all({.pool = &pool});
  }
  REQUIRE(choose_cpu_path(before));
}

TEST_CASE("bf16 product: a packed image gives the bits of its weight, on all paths") {
  for (const Shape& shape : kShapes) {
    const Case c(kKinds[0], shape);
    INFO(shape.m << " x " << shape.n << " x " << shape.k);
    const Floats result = on_all_paths([&](const OpContext& ctx) {
      return c.run_packed(ctx, Bf16Arithmetic::widened, ChainStart::output);
    });
    REQUIRE(same_bits(result, c.expected(Bf16Arithmetic::widened)));
  }
}

TEST_CASE("bf16 product: by an image without inputs, outputs are their ends alone") {
  const CpuPath before = cpu_path();
  const bool native = choose_cpu_path(CpuPath::avx512bf16).ok();
  if (!native) test::skip_part("this machine has no native bf16 products");
  for (const Bf16Arithmetic arithmetic : kArithmetics) {
    if (!has_bf16(arithmetic)) continue;
    Halves none(1);
    const auto packed = pack_bf16_weight(single(), {none.data(), 5, 0}, arithmetic);
    REQUIRE(packed);
    const Floats bias = draw(5, 1);
    Floats output(10, 3.0F);
    REQUIRE(product_bf16_nt(single(), {.left = {none.data(), 2, 0},
                                       .right = {nullptr, 5, 0},
                                       .output = matrix(output, 2, 5),
                                       .arithmetic = arithmetic,
                                       .bias = bias.data(),
                                       .packed = &*packed}));
    for (std::size_t i = 0; i < 10; ++i) REQUIRE(output[i] == bias[i % 5]);
  }
  REQUIRE(choose_cpu_path(before));
}

TEST_CASE("bf16 product: an image of other bands, shapes and forms") {
  // A band of a wider weight is packed as what it holds.
  const Halves wide = halves(20 * 50, 7);
  const Case c(kKinds[0], {6, 20, 33});
  const Bf16Matrix band(wide.data() + 9, 20, 33, 50);
  const auto packed = pack_bf16_weight(single(), band, Bf16Arithmetic::widened);
  REQUIRE(packed);
  Floats by_image(120);
  Floats by_band(120);
  Bf16Product args{.left = {c.left.data(), 6, 33}, .right = band, .output = matrix(by_band, 6, 20)};
  REQUIRE(product_bf16_nt(single(), args));
  args.output = matrix(by_image, 6, 20);
  args.packed = &*packed;
  REQUIRE(product_bf16_nt(single(), args));
  REQUIRE(same_bits(by_image, by_band));

  Bf16Product narrower = args;
  narrower.left = {c.left.data(), 6, 32, 33};
  narrower.right = {wide.data() + 9, 20, 32, 50};
  CHECK_FALSE(product_bf16_nt(single(), narrower));
  CHECK_FALSE(product_bf16_nn(single(), {.left = {c.left.data(), 6, 20},
                                         .right = band,
                                         .output = matrix(by_image, 6, 33),
                                         .packed = &*packed}));
  args.arithmetic = Bf16Arithmetic::native;
  CHECK_FALSE(product_bf16_nt(single(), args));
}

TEST_CASE("bf16 product: each arithmetic has a profile, and the name of one is no other's") {
  for (const Bf16Arithmetic arithmetic : kArithmetics) {
    CHECK(arithmetic_of(profile_of(arithmetic)) == arithmetic);
  }
  CHECK_FALSE(arithmetic_of("portable"));
  CHECK(has_bf16(fastest_bf16()));
}

TEST_CASE("bf16 product: native is refused where the path has none") {
  const CpuPath before = cpu_path();
  REQUIRE(choose_cpu_path(CpuPath::avx2));
  const Case c(kKinds[0], {2, 3, 4});
  Floats output(6);
  const auto refused = product_bf16_nt(single(), {.left = {c.left.data(), 2, 4},
                                                  .right = {c.right.data(), 3, 4},
                                                  .output = matrix(output, 2, 3),
                                                  .arithmetic = Bf16Arithmetic::native});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::unsupported);
  CHECK_FALSE(product_bf16_nt(single(), {.left = {c.left.data(), 2, 4},
                                         .right = {c.right.data(), 4, 3},
                                         .output = matrix(output, 2, 3)}));
  REQUIRE(choose_cpu_path(before));
}

}  // namespace tutti::kernels::parity
