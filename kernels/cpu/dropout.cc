#include "kernels/ops/elementwise/dropout.h"

#include <algorithm>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/half_words.h"
#include "kernels/cpu/row_split.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

namespace {

constexpr double kDraws = 65536.0;  // values of the 16 bits that decide over an element

// What an element is multiplied by, for a row of a matrix: selects, so that the loop becomes
// vectors.
struct Mask {
  RandomKey key;
  std::uint32_t threshold = 0;
  float scale = 1.0F;

  void apply(std::uint64_t first, const float* x, float* y, Index count) const {
    std::array<std::uint16_t, kHalfWordsAtOnce> bits;
    for (Index i = 0; i < count;) {
      const std::uint64_t element = first + static_cast<std::uint64_t>(i);
      const std::uint64_t skip = element % kHalfWordsInDraw;
      half_words(key, element - skip, bits);
      const Index here = std::min(static_cast<Index>(kHalfWordsAtOnce - skip), count - i);
      const std::uint16_t* const draw = bits.data() + skip;
      for (Index j = 0; j < here; ++j) {
        const float value = x[i + j] * scale;
        y[i + j] = draw[j] >= threshold ? value : 0.0F;
      }
      i += here;
    }
  }
};

}  // namespace

Result<> dropout(const OpContext& ctx, const Dropout& args) {
  if (auto here = only_on_cpu(ctx, "dropout"); !here) return here;
  if (!same_shape(args.x, args.y) || !(args.rate >= 0.0 && args.rate < 1.0)) {
    return Error{ErrorCode::invalid_argument,
                 "dropout: x and y differ in shape, or the rate is outside of [0, 1)"};
  }
  // What is dropped is this share, so it is also what the others are scaled by.
  const auto threshold = static_cast<std::uint32_t>(args.rate * kDraws + 0.5);
  if (threshold >= static_cast<std::uint32_t>(kDraws)) {
    return Error{ErrorCode::invalid_argument, "dropout: the rate rounds to 1, nothing is kept"};
  }
  const OpTimer timer(Op::dropout, {.bytes = 8 * args.x.rows * args.x.columns});
  const Mask mask{args.key, threshold,
                  static_cast<float>(kDraws / (kDraws - static_cast<double>(threshold)))};
  const Index width = args.x.columns;
  ctx.pool->parallel_for(args.x.rows, rows_in_piece(width), [&](int, Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const std::uint64_t first =
          (args.first_row + static_cast<std::uint64_t>(row)) * static_cast<std::uint64_t>(width);
      mask.apply(first, args.x.row(row), args.y.row(row), width);
    }
  });
  return {};
}

}  // namespace tutti::kernels
