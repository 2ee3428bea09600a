// Operands of products by tiles, laid down as these read them, a block at a time: what is packed is
// met at once, in the second cache, and never goes through memory.
//
//   left     [tile][group][16 rows][16 units], zeros where rows end
//   right    [32 columns][group][two tiles][16 units][16 columns]; of the second tile nothing where
//            there are no columns for it, else zeros where they end
//
// Units and rounding are those of pack_bf16.h; a group is kTileUnits of them. Behind the last k
// come zeros.
//
// Threads: any. For machines with AVX-512.
#pragma once

#include <cstdint>

#include "kernels/cpu/product/tiles/blocks.h"

namespace tutti::kernels {

// An operand of a product, of any type that is multiplied as bf16.
template <class Element>
struct TileOperand {
  BasicMatrix<const Element> x;
  DepthOrder order = DepthOrder::inside;

  Index depth() const { return order == DepthOrder::inside ? x.columns : x.rows; }
};

// Rows (of the product) `rows` by groups `groups`.
void pack_left_tiles(const TileOperand<Bf16>& x, const Stretch& rows, const Stretch& groups,
                     std::uint32_t* to);
void pack_left_tiles(const TileOperand<float>& x, const Stretch& rows, const Stretch& groups,
                     std::uint32_t* to);

// Columns of the product; `columns.first` is any.
void pack_right_tiles(const TileOperand<Bf16>& x, const Stretch& columns, const Stretch& groups,
                      std::uint32_t* to);
void pack_right_tiles(const TileOperand<float>& x, const Stretch& columns, const Stretch& groups,
                      std::uint32_t* to);

}  // namespace tutti::kernels
