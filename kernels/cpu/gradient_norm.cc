#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gradient_norm.cc"
#include <hwy/foreach_target.h>

#include <algorithm>

#include "kernels/cpu/squares-inl.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/tensor/device.h"

#ifndef TUTTI_PIECE_TILE
#define TUTTI_PIECE_TILE
namespace tutti::kernels {
inline constexpr Index kPieceTile = 4096;  // 8 pieces: 128 KiB
}
#endif

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

double square_sum(const float* values, Index count) {
  alignas(64) double lane[kLanes] = {};
  add_squares(values, count, lane);
  return fold_squares(lane);
}

// Elements [begin, end), tile by tile: all pieces of one stay in cache. Returns the sum of the
// squares of the first `counted`.
double add_pieces_range(const AddPieces& args, Index begin, Index end, Index counted) {
  alignas(64) double lane[kLanes] = {};
  for (Index first = begin; first < end; first += kPieceTile) {
    const Index count = std::min(kPieceTile, end - first);
    for (const PieceSum::Addition& addition : args.additions) {
      float* const into = args.pieces[addition.into] + first;
      const float* const from = args.pieces[addition.from] + first;
      each_lanes(count, [&](Index i, auto part) {
        store(load(into + i, part) + load(from + i, part), into + i, part);
      });
    }
    float* const sum = args.sum + first;
    if (args.pieces[0] != args.sum) std::copy_n(args.pieces[0] + first, count, sum);
    const Index squared = std::min(count, begin + counted - first);
    if (squared > 0) add_squares(sum, squared, lane);
  }
  return fold_squares(lane);
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

Result<> square_sums(const OpContext& ctx, const SquareSums& args) {
  for (const auto& [values, sums] : args.ranges) {
    const Index blocks = grid_blocks(static_cast<Index>(values.size()));
    if (sums.size() != static_cast<std::size_t>(blocks)) {
      return Error{ErrorCode::invalid_argument, "square_sums: one sum per grid block is needed"};
    }
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  for (const SquareRange& range : args.ranges) {
    const auto size = static_cast<Index>(range.values.size());
    const OpTimer timer(Op::square_sums, {.flop = 2 * size, .bytes = 4 * size});
    ctx.pool->parallel_for(grid_blocks(size), 1, [&](int, Index begin, Index end) {
      for (Index block = begin; block < end; ++block) {
        const Index first = block * kGridBlock;
        range.sums[static_cast<std::size_t>(block)] = TUTTI_CPU_CALL(square_sum)(
            range.values.data() + first, std::min(kGridBlock, size - first));
      }
    });
  }
  return {};
}

namespace {

bool are_pieces(const AddPieces& args) {
  const auto is_piece = [&](std::uint32_t piece) { return piece < args.pieces.size(); };
  bool fit = !args.pieces.empty() && args.blocks.size() == args.squares.size();
  for (const PieceSum::Addition& addition : args.additions) {
    fit = fit && is_piece(addition.into) && is_piece(addition.from);
  }
  Index end = 0;
  for (const AddPieces::Block& block : args.blocks) {
    fit = fit && block.begin >= end && block.elements >= 0;
    end = block.begin + block.elements;
  }
  return fit && end <= args.count;
}

}  // namespace

Result<> add_pieces(const OpContext& ctx, const AddPieces& args) {
  if (auto here = only_on_cpu(ctx, "add_pieces"); !here) return here;
  if (!are_pieces(args)) {
    return Error{ErrorCode::invalid_argument,
                 "add_pieces: additions of pieces that do not exist, or blocks that do not ascend"};
  }
  const auto added = static_cast<Index>(args.additions.size()) * args.count;
  Index squared = 0;
  for (const AddPieces::Block& block : args.blocks) squared += block.elements;
  const OpTimer timer(Op::add_pieces, {.flop = added + 2 * squared, .bytes = 12 * added});
  const auto add = TUTTI_CPU_CALL(add_pieces_range);
  if (args.blocks.empty()) {
    ctx.pool->parallel_for(args.count, kGridBlock,
                           [&](int, Index begin, Index end) { add(args, begin, end, 0); });
    return {};
  }
  add(args, 0, args.blocks.front().begin, 0);
  const auto blocks = static_cast<Index>(args.blocks.size());
  ctx.pool->parallel_for(blocks, 1, [&](int, Index first, Index last) {
    for (Index i = first; i < last; ++i) {
      const auto block = args.blocks.begin() + i;
      const Index end = i + 1 == blocks ? args.count : (block + 1)->begin;
      args.squares[static_cast<std::size_t>(i)] = add(args, block->begin, end, block->elements);
    }
  });
  return {};
}

}  // namespace tutti::kernels

#endif
