// Bit arithmetic over flat ranges, in loops that the compiler turns into vectors.
#include "kernels/ops/elementwise/bf16.h"

#include <algorithm>
#include <bit>
#include <string>

#include "kernels/cpu/half_words.h"
#include "kernels/cpu/product/bf16_row.h"
#include "kernels/cpu/row_split.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

namespace {

constexpr std::uint32_t kInfinity = 0x7f800000U;

// What is added before the lower half is cut off decides the rounding; of infinities and NaN
// nothing is added, and a NaN whose upper half would be an infinity's gets its quiet bit.
Bf16 rounded(float value, std::uint32_t added) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t size = bits & 0x7fffffffU;
  const std::uint32_t quiet = size > kInfinity ? 0x40U : 0U;
  return static_cast<Bf16>((bits + (size >= kInfinity ? 0U : added)) >> 16 | quiet);
}

std::uint32_t to_even(float value) {
  return 0x7fffU + (std::bit_cast<std::uint32_t>(value) >> 16 & 1U);
}

Error differ(const char* op) {
  return Error{ErrorCode::invalid_argument, std::string(op) + ": the ranges differ in length"};
}

}  // namespace

void round_to_bf16(const float* from, Bf16* to, Index count) {
  for (Index i = 0; i < count; ++i) to[i] = rounded(from[i], to_even(from[i]));
}

Result<> to_bf16(const OpContext& ctx, std::span<const float> from, std::span<Bf16> to) {
  if (from.size() != to.size()) return differ("to_bf16");
  if (ctx.device != nullptr) return ctx.device->enqueue(ToBf16{from, to});
  const OpTimer timer(Op::bf16);
  ctx.pool->parallel_for(static_cast<Index>(from.size()), kElementsInPiece,
                         [x = from.data(), y = to.data()](int, Index begin, Index end) {
                           round_to_bf16(x + begin, y + begin, end - begin);
                         });
  return {};
}

Result<> from_bf16(const OpContext& ctx, std::span<const Bf16> from, std::span<float> to) {
  if (from.size() != to.size()) return differ("from_bf16");
  if (ctx.device != nullptr) return ctx.device->enqueue(FromBf16{from, to});
  const OpTimer timer(Op::bf16);
  ctx.pool->parallel_for(static_cast<Index>(from.size()), kElementsInPiece,
                         [x = from.data(), y = to.data()](int, Index begin, Index end) {
                           for (Index i = begin; i < end; ++i) y[i] = widened(x[i]);
                         });
  return {};
}

Result<> to_bf16_stochastic(const OpContext& ctx, const StochasticBf16& args) {
  if (args.from.size() != args.to.size()) return differ("to_bf16_stochastic");
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::bf16);
  const float* const x = args.from.data();
  Bf16* const y = args.to.data();
  ctx.pool->parallel_for(
      static_cast<Index>(args.from.size()), kElementsInPiece, [&](int, Index begin, Index end) {
        std::array<std::uint16_t, kHalfWordsAtOnce> bits;
        for (Index i = begin; i < end;) {
          const std::uint64_t element = args.first_index + static_cast<std::uint64_t>(i);
          const std::uint64_t skip = element % kHalfWordsInDraw;
          half_words(args.key, element - skip, bits);
          const Index here = std::min(static_cast<Index>(kHalfWordsAtOnce - skip), end - i);
          const std::uint16_t* const draw = bits.data() + skip;
          for (Index j = 0; j < here; ++j) y[i + j] = rounded(x[i + j], draw[j]);
          i += here;
        }
      });
  return {};
}

}  // namespace tutti::kernels
