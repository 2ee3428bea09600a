// Bit arithmetic over flat ranges, in loops that the compiler turns into vectors, or in AVX2.
#include "kernels/ops/elementwise/bf16.h"

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <string>

#include "kernels/cpu/caches/streamed.h"
#include "kernels/cpu/half_words.h"
#include "kernels/cpu/product/bf16_row.h"
#include "kernels/cpu/product/pack_bf16.h"
#include "kernels/cpu/product/rounded.h"
#include "kernels/cpu/row_split.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

namespace {

// to_bf16_by of eight numbers.
__m256i rounded_lanes(const float* from, const std::uint16_t* draws) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  const __m256i drawn =
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(draws)));
  const __m256i size = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
  const __m256i infinity = _mm256_set1_epi32(static_cast<int>(kInfinityBits));
  const __m256i finite = _mm256_cmpgt_epi32(infinity, size);
  const __m256i quiet =
      _mm256_and_si256(_mm256_cmpgt_epi32(size, infinity), _mm256_set1_epi32(0x40));
  const __m256i sum = _mm256_add_epi32(bits, _mm256_and_si256(finite, drawn));
  return _mm256_or_si256(_mm256_srli_epi32(sum, 16), quiet);
}

void round_by(const float* from, const std::uint16_t* draws, Bf16* to, Index count) {
  Index i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i low = rounded_lanes(from + i, draws + i);
    const __m256i high = rounded_lanes(from + i + 8, draws + i + 8);
    // Packing works within halves of a register.
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), words);
  }
  for (; i < count; ++i) to[i] = to_bf16_by(from[i], draws[i]);
}

void widen(const Bf16* from, float* to, Index count) {
  for (Index i = 0; i < count; ++i) to[i] = widened(from[i]);
}

Error differ(const char* op) {
  return Error{ErrorCode::invalid_argument, std::string(op) + ": the ranges differ in length"};
}

// Of numbers that are read as one type and written as the other.
OpWork conversion_of(std::size_t numbers) { return {.bytes = 6 * static_cast<Index>(numbers)}; }

}  // namespace

void round_to_bf16(const float* from, Bf16* to, Index count) {
  for (Index i = 0; i < count; ++i) to[i] = to_nearest_bf16(from[i]);
}

void round_in_fp32(const float* from, float* to, Index count) {
  for (Index i = 0; i < count; ++i) to[i] = value_of(from[i]);
}

ConstMatrix rounded_in_fp32(const OpContext& ctx, const ConstMatrix& x) {
  return in_fp32(Workers(*ctx.pool), x);
}

Result<> to_bf16(const OpContext& ctx, std::span<const float> from, std::span<Bf16> to) {
  if (from.size() != to.size()) return differ("to_bf16");
  if (ctx.device != nullptr) return ctx.device->enqueue(ToBf16{from, to});
  const OpTimer timer(Op::to_bf16, conversion_of(from.size()));
  const Writes writes = writes_to(to.data(), static_cast<Index>(to.size()), {});
  ctx.pool->parallel_for(static_cast<Index>(from.size()), kElementsInPiece,
                         [x = from.data(), y = to.data(), writes](int, Index begin, Index end) {
                           write_stretches(y, begin, end, writes,
                                           [x](Index first, Index count, Bf16* some) {
                                             round_to_bf16(x + first, some, count);
                                           });
                           end_writes(writes);
                         });
  return {};
}

Result<> from_bf16(const OpContext& ctx, std::span<const Bf16> from, std::span<float> to) {
  if (from.size() != to.size()) return differ("from_bf16");
  if (ctx.device != nullptr) return ctx.device->enqueue(FromBf16{from, to});
  const OpTimer timer(Op::from_bf16, conversion_of(from.size()));
  const Writes writes = writes_to(to.data(), static_cast<Index>(to.size()), {});
  ctx.pool->parallel_for(static_cast<Index>(from.size()), kElementsInPiece,
                         [x = from.data(), y = to.data(), writes](int, Index begin, Index end) {
                           write_stretches(y, begin, end, writes,
                                           [x](Index first, Index count, float* some) {
                                             widen(x + first, some, count);
                                           });
                           end_writes(writes);
                         });
  return {};
}

Result<> to_bf16_stochastic(const OpContext& ctx, const StochasticBf16& args) {
  if (args.from.size() != args.to.size()) return differ("to_bf16_stochastic");
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::to_bf16_stochastic, conversion_of(args.from.size()));
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
          round_by(x + i, bits.data() + skip, y + i, here);
          i += here;
        }
      });
  return {};
}

}  // namespace tutti::kernels
