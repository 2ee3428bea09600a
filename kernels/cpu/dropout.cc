#include "kernels/ops/elementwise/dropout.h"

#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/caches/streamed.h"
#include "kernels/cpu/half_words.h"
#include "kernels/cpu/row_split.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

namespace {

// What an element is multiplied by, for a row of a matrix. AVX2 on every machine: one product and a
// select.
struct Mask {
  RandomKey key;
  DropoutMask constants;

  void apply(std::uint64_t first, const float* x, float* y, Index count) const {
    std::array<std::uint16_t, kHalfWordsAtOnce> bits;
    const std::uint32_t threshold = constants.threshold;
    const float scale = constants.scale;
    for (Index i = 0; i < count;) {
      const std::uint64_t element = first + static_cast<std::uint64_t>(i);
      const std::uint64_t skip = element % kHalfWordsInDraw;
      half_words(key, element - skip, bits);
      const Index here = std::min(static_cast<Index>(kHalfWordsAtOnce - skip), count - i);
      const std::uint16_t* const draw = bits.data() + skip;
      Index j = 0;
      for (; j + 8 <= here; j += 8) {
        const __m256i drawn =
            _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(draw + j)));
        const __m256i drops =
            _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(threshold)), drawn);
        const __m256 value = _mm256_mul_ps(_mm256_loadu_ps(x + i + j), _mm256_set1_ps(scale));
        _mm256_storeu_ps(y + i + j, _mm256_andnot_ps(_mm256_castsi256_ps(drops), value));
      }
      for (; j < here; ++j) {
        const float value = x[i + j] * scale;
        y[i + j] = draw[j] >= threshold ? value : 0.0F;
      }
      i += here;
    }
  }
};

}  // namespace

Result<> dropout(const OpContext& ctx, const Dropout& args) {
  if (!same_shape(args.x, args.y) || !(args.rate >= 0.0 && args.rate < 1.0)) {
    return Error{ErrorCode::invalid_argument,
                 "dropout: x and y differ in shape, or the rate is outside of [0, 1)"};
  }
  const DropoutMask constants(args.rate);
  if (!constants.keeps_any()) {
    return Error{ErrorCode::invalid_argument, "dropout: the rate rounds to 1, nothing is kept"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::dropout, {.flop = args.x.rows * args.x.columns,
                                    .bytes = 8 * args.x.rows * args.x.columns});
  const Mask mask{args.key, constants};
  const Index width = args.x.columns;
  const Writes writes = writes_to(args.y, {args.x.data});
  ctx.pool->parallel_for(args.x.rows, rows_in_piece(width), [&](int, Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const std::uint64_t first =
          (args.first_row + static_cast<std::uint64_t>(row)) * static_cast<std::uint64_t>(width);
      const float* const x = args.x.row(row);
      write_stretches(args.y.row(row), 0, width, writes, [&](Index i, Index count, float* to) {
        mask.apply(first + static_cast<std::uint64_t>(i), x + i, to, count);
      });
    }
    end_writes(writes);
  });
  return {};
}

}  // namespace tutti::kernels
