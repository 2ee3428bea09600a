// A block of rows is packed and stays in the second cache; the right operand comes by panels of
// some hundred columns, packed when they are met and used by all of those rows at once.
#include "kernels/cpu/product/tiles/product.h"

#include <algorithm>

#include "kernels/cpu/product/finish.h"

namespace tutti::kernels {

namespace {

constexpr Index kPair = 2 * kTileSide;
constexpr Index kGroupDepth = 2 * kTileUnits;
// Groups between two visits of the output.
constexpr Index kGroupsMax = 32;
// Columns that rows meet at once.
constexpr Index kColumnsMax = 4 * kImagePanel;
constexpr Index kRowsMax = 2048;
constexpr Index kRowsLeast = 4 * kPair;  // of those that threads share

Index whole_tiles(Index rows) { return (rows + kTileSide - 1) / kTileSide; }

template <class Element>
class TileProduct {
 public:
  TileProduct(const Workers& workers, const TileOperand<Element>& left,
              const TileOperand<Element>& right, const float* image, const Product& ends)
      : workers_(workers),
        left_(left),
        right_(right),
        image_(image),
        args_(ends),
        rows_(ends.output.rows),
        columns_(ends.output.columns),
        groups_((left.depth() + kGroupDepth - 1) / kGroupDepth) {
    // Packed rows take most of the second cache.
    const Index held = second_cache_bytes() / 4 * 3 / (kGroupDepth * Index{sizeof(Bf16)});
    const Index most = std::clamp<Index>(held / std::min(groups_, kGroupsMax), kPair, kRowsMax);
    const Index panels = (columns_ + kImagePanel - 1) / kImagePanel;
    const Index blocks = blocks_of_rows((rows_ + most - 1) / most);
    row_step_ = ((rows_ + blocks - 1) / blocks + kPair - 1) / kPair * kPair;
    row_blocks_ = (rows_ + row_step_ - 1) / row_step_;
    const Index ranges = std::clamp<Index>(ranges_beside(row_blocks_), 1, panels);
    column_step_ = (panels + ranges - 1) / ranges * kImagePanel;
    column_ranges_ = (columns_ + column_step_ - 1) / column_step_;
    held_ = std::clamp<Index>(held / row_step_ / kGroupsMax, 1, groups_) * kGroupsMax;
    held_ = std::min(held_, groups_);
  }

  void run() {
    workers_.parallel_for(row_blocks_ * column_ranges_, 1, [&](int thread, Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        const Index row = i / column_ranges_ * row_step_;
        const Index column = i % column_ranges_ * column_step_;
        run_part({row, std::min(row_step_, rows_ - row)},
                 {column, std::min(column_step_, columns_ - column)}, workers_.scratch(thread));
      }
    });
  }

 private:
  using Unit = std::uint32_t;

  // Enough parts that the threads end together.
  Index ranges_beside(Index blocks) const {
    const Index threads = workers_.threads();
    return ((threads == 1 ? 1 : 2 * threads) + blocks - 1) / blocks;
  }
  // Each part packs its rows and its columns: as many blocks, `least` or more, as have the fewest
  // packed in all.
  Index blocks_of_rows(Index least) const {
    const auto packed = [&](Index blocks) {
      return ranges_beside(blocks) * rows_ + blocks * columns_;
    };
    Index best = least;
    for (Index blocks = least; ranges_beside(blocks) > 1 && blocks * kRowsLeast < rows_; ++blocks) {
      if (packed(blocks + 1) < packed(best)) best = blocks + 1;
    }
    return best;
  }

  // One block of rows by one range of columns.
  void run_part(const Stretch& rows, const Stretch& columns, Arena& scratch) {
    ArenaScope scope(scratch);
    const auto units = [&](Index tiles, Index groups) {
      return scratch.floats(tiles * groups * kTileUnits * kTileSide);
    };
    float* const left = units(whole_tiles(rows.depth), held_);
    float* const right =
        image_ != nullptr ? nullptr : units(kColumnsMax / kTileSide, std::min(kGroupsMax, groups_));
    for (Index first = 0; first < groups_; first += held_) {
      const Stretch groups{first, std::min(held_, groups_ - first)};
      pack_left_tiles(left_, rows, groups, reinterpret_cast<Unit*>(left));
      for (Index c = 0; c < columns.depth; c += kColumnsMax) {
        run_columns(rows, {columns.first + c, std::min(kColumnsMax, columns.depth - c)}, groups,
                    {left, right});
      }
    }
    finish(ends_of(args_), args_.output, {rows.first, rows.depth, columns.first, columns.depth});
  }

  struct Packed {
    const float* left = nullptr;
    float* right = nullptr;
  };

  // Packed rows over their groups by up to kColumnsMax columns.
  void run_columns(const Stretch& rows, const Stretch& columns, const Stretch& groups,
                   const Packed& packed) {
    const Index count = (groups.depth + kGroupsMax - 1) / kGroupsMax;
    const Index step = (groups.depth + count - 1) / count;
    for (Index g = 0; g < groups.depth; g += step) {
      const Stretch here{groups.first + g, std::min(step, groups.depth - g)};
      TileBlock block;
      block.rows = rows.depth;
      block.columns = columns.depth;
      block.groups = here.depth;
      block.left = {reinterpret_cast<const std::byte*>(packed.left) + g * kTileBytes,
                    kTileSide * Index{sizeof(float)}, kTileBytes, groups.depth * kTileBytes};
      if (image_ != nullptr) {
        block.right = image_at(columns.first, here.first);
      } else {
        pack_right_tiles(right_, columns, here, reinterpret_cast<Unit*>(packed.right));
        block.right = {reinterpret_cast<const std::byte*>(packed.right),
                       kTileSide * Index{sizeof(float)},
                       2 * kTileBytes,
                       kTileBytes,
                       2 * here.depth * kTileBytes,
                       4 * here.depth * kTileBytes};
      }
      block.output = args_.output.row(rows.first) + columns.first;
      block.output_stride = args_.output.stride;
      block.start = here.first == 0 ? args_.start : ChainStart::output;
      run_tile_block(block);
    }
  }

  TileColumns image_at(Index column, Index group) const {
    constexpr Index kUnit = kImagePanel * Index{sizeof(float)};
    const float* const first =
        image_ + column * groups_ * kTileUnits + group * kTileUnits * kImagePanel;
    return {reinterpret_cast<const std::byte*>(first),
            kUnit,
            kTileUnits * kUnit,
            kTileSide * Index{sizeof(float)},
            kPair * Index{sizeof(float)},
            groups_ * kTileUnits * kUnit};
  }

  const Workers& workers_;
  const TileOperand<Element>& left_;
  const TileOperand<Element>& right_;
  const float* image_;
  const Product& args_;
  Index rows_, columns_, groups_;
  Index row_step_ = 0, row_blocks_ = 0;
  Index column_step_ = 0, column_ranges_ = 0;
  Index held_ = 0;  // groups of a block of rows that are packed at once
};

}  // namespace

void product_by_tiles(const Workers& workers, const TileOperand<Bf16>& left,
                      const TileOperand<Bf16>& right, const float* image, const Product& ends) {
  TileProduct<Bf16>(workers, left, right, image, ends).run();
}
void product_by_tiles(const Workers& workers, const TileOperand<float>& left,
                      const TileOperand<float>& right, const float* image, const Product& ends) {
  TileProduct<float>(workers, left, right, image, ends).run();
}

}  // namespace tutti::kernels
