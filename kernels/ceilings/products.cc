#include "kernels/ceilings/products.h"

#include <functional>
#include <vector>

#include "kernels/ceilings/fastest.h"
#include "kernels/ops/product.h"
#include "kernels/ops/product_bf16.h"
#include "kernels/ops/random.h"
#include "kernels/ops/weights/product_int8.h"
#include "kernels/tensor/buffer.h"

namespace tutti::kernels {

namespace {

constexpr Index kSide = 1024;

FloatBuffer numbers(const OpContext& ctx, std::uint64_t stream) {
  FloatBuffer made(kSide * kSide);
  TUTTI_ASSERT(
      fill_uniform(ctx, {.key = {1, stream}, .low = -1.0, .high = 1.0, .out = made.span()}));
  return made;
}

Ceiling operations_per_second(ThreadPool& pool, const MeasureTime& time,
                              const std::function<void()>& product) {
  return rate_of(2.0 * kSide * kSide * kSide, fastest(pool, time, std::span(&product, 1)));
}

Ceiling fp32_product(ThreadPool& pool, const MeasureTime& time) {
  const OpContext ctx{&pool};
  const FloatBuffer left = numbers(ctx, 1);
  const FloatBuffer right = numbers(ctx, 2);
  const FloatBuffer output(kSide * kSide);
  return operations_per_second(pool, time, [&] {
    TUTTI_ASSERT(product_nt(ctx, {.left = left.matrix(kSide, kSide),
                                  .right = right.matrix(kSide, kSide),
                                  .output = output.matrix(kSide, kSide)}));
  });
}

template <Bf16Arithmetic kArithmetic>
Ceiling bf16_product(ThreadPool& pool, const MeasureTime& time) {
  if (!has_bf16(kArithmetic)) return std::nullopt;
  const OpContext ctx{&pool};
  std::vector<Bf16> left(kSide * kSide);
  std::vector<Bf16> right(kSide * kSide);
  TUTTI_ASSERT(to_bf16(ctx, numbers(ctx, 1).span(), left));
  TUTTI_ASSERT(to_bf16(ctx, numbers(ctx, 2).span(), right));
  const FloatBuffer output(kSide * kSide);
  return operations_per_second(pool, time, [&] {
    TUTTI_ASSERT(product_bf16_nt(ctx, {.left = {left.data(), kSide, kSide},
                                       .right = {right.data(), kSide, kSide},
                                       .output = output.matrix(kSide, kSide),
                                       .arithmetic = kArithmetic}));
  });
}

Ceiling int8_product(ThreadPool& pool, const MeasureTime& time) {
  if (!int8_ceiling(pool, {Duration::zero(), time.until})) return std::nullopt;
  const OpContext ctx{&pool};
  const FloatBuffer left = numbers(ctx, 1);
  const auto weight =
      quantise_weight(ctx, WeightFormat::int8_channel, numbers(ctx, 2).matrix(kSide, kSide));
  TUTTI_ASSERT(weight.ok());
  std::vector<std::int8_t> codes(kSide * kSide);
  const FloatBuffer scales(kSide);
  TUTTI_ASSERT(to_int8_rows(ctx, {.x = left.matrix(kSide, kSide),
                                  .codes = {codes.data(), kSide, kSide},
                                  .scales = scales.matrix(kSide, 1)}));
  const FloatBuffer output(kSide * kSide);
  return operations_per_second(pool, time, [&] {
    TUTTI_ASSERT(product_int8(ctx, {.codes = {codes.data(), kSide, kSide},
                                    .scales = scales.matrix(kSide, 1),
                                    .right = &*weight,
                                    .output = output.matrix(kSide, kSide)}));
  });
}

}  // namespace

std::span<const ProductKind> product_kinds() {
  static constexpr ProductKind kKinds[] = {
      {"fp32 product", "fp32 multiply-add", "GFLOP/s", fp32_product},
      {"bf16 product by pairs", "bf16 pairs", "GFLOP/s", bf16_product<Bf16Arithmetic::native>},
      {"bf16 product by tiles", "bf16 tiles", "GFLOP/s", bf16_product<Bf16Arithmetic::tiles>},
      {"int8 product", "int8 multiply-add", "GOP/s", int8_product},
  };
  return kKinds;
}

}  // namespace tutti::kernels
