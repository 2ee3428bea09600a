#include <cmath>

#include "kernels/ops/math.h"
#include "kernels/ops/random.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

namespace {

constexpr double kTwoPi = 6.283185307179586;
constexpr Index kPiece = 4096;

// Element i takes word i mod 4 of draw i / 4; two words give two normal numbers.
double normal(const std::array<std::uint32_t, 4>& words, std::uint64_t element) {
  const std::size_t pair = element % 4 / 2 * 2;
  const double u = (static_cast<double>(words[pair]) + 1.0) * 0x1p-32;
  const double angle = kTwoPi * static_cast<double>(words[pair + 1]) * 0x1p-32;
  const double radius = std::sqrt(-2.0 * log(u));
  return radius * (element % 2 == 0 ? cos(angle) : sin(angle));
}

struct Counted {
  Op op;
  Index flop;  // of a number
};

template <class Draw>
Result<> fill(const OpContext& ctx, const Counted& counted, const RandomKey& key,
              std::uint64_t first, std::span<float> out, const Draw& draw) {
  if (ctx.device != nullptr) {
    return Error{ErrorCode::unsupported, "fill_normal, fill_uniform: run on CPUs only"};
  }
  const auto size = static_cast<Index>(out.size());
  const OpTimer timer(counted.op, {.flop = counted.flop * size, .bytes = 4 * size});
  ctx.pool->parallel_for(static_cast<Index>(out.size()), kPiece, [&](int, Index begin, Index end) {
    std::array<std::uint32_t, 4> words = {};
    for (Index i = begin; i < end; ++i) {
      const std::uint64_t element = first + static_cast<std::uint64_t>(i);
      if (i == begin || element % 4 == 0) words = random_words(key, element / 4);
      out[static_cast<std::size_t>(i)] = static_cast<float>(draw(words, element));
    }
  });
  return {};
}

}  // namespace

Result<> fill_normal(const OpContext& ctx, const FillNormal& args) {
  return fill(ctx, {Op::fill_normal, 11}, args.key, args.first_index, args.out,
              [&](const std::array<std::uint32_t, 4>& words, std::uint64_t element) {
                return args.mean + args.deviation * normal(words, element);
              });
}

Result<> fill_uniform(const OpContext& ctx, const FillUniform& args) {
  return fill(ctx, {Op::fill_uniform, 3}, args.key, args.first_index, args.out,
              [&](const std::array<std::uint32_t, 4>& words, std::uint64_t element) {
                const double u = static_cast<double>(words[element % 4]) * 0x1p-32;
                return args.low + (args.high - args.low) * u;
              });
}

}  // namespace tutti::kernels
