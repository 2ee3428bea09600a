// A product as the kernels see it, whatever the layouts its operands came in.
#pragma once

#include <algorithm>
#include <limits>

#include "kernels/cpu/product/workers.h"
#include "kernels/ops/product.h"
#include "kernels/tensor/device.h"

namespace tutti::kernels {

// Panels of a packed image: [panel][depth][kImagePanel], zeros where columns end.
inline constexpr Index kImagePanel = 64;

// Where the left operand's element (row, k) lies: row * stride + k, or k * stride + row.
enum class LeftOrder { by_row, by_depth };

// Lines of memory that will be read after this panel: whole columns of sixteen floats, `lines` of
// them, over the tile's depth. Tiles ask for one column each, beside their chains, as long as there
// are any.
struct Ahead {
  const float* next = nullptr;
  Index stride = 0;
  Index lines = 0;
};

// right is [depth][right_stride], readable for whole vectors of columns.
struct ChainCall {
  Index depth = 0;
  const float* left = nullptr;
  Index left_stride = 0;
  Index left_tile = 0;  // floats from one whole tile of rows to the next, copied; 0: rows follow
  const float* right = nullptr;
  Index right_stride = 0;
  float* output = nullptr;
  Index output_stride = 0;
  ChainStart start = ChainStart::zero;
  float* packed = nullptr;  // where a packing tile leaves the right vectors, [depth][kChainColumns]
  Ahead* ahead = nullptr;
};

// Runs a panel, `columns` outputs of any number of rows, with another arithmetic than fp32; the
// left operand is by row.
using PanelKernel = void (*)(Index rows, Index columns, const ChainCall& call);

// Whether k lies side by side in an operand or is its row.
enum class DepthOrder { inside, outside };

// The output of a form, and the sum that makes it.
struct ProductShape {
  DepthOrder left_order = DepthOrder::inside;
  DepthOrder right_order = DepthOrder::inside;
  Index rows = 0;
  Index columns = 0;
  Index depth = 0;
  Index right_depth = 0;  // the operands match where it is `depth`
};

// `args`: the arguments of any product, with operands left and right.
template <class Args>
ProductShape shape_of(ProductForm form, const Args& args) {
  ProductShape shape;
  if (form == ProductForm::tn) shape.left_order = DepthOrder::outside;
  if (form != ProductForm::nt) shape.right_order = DepthOrder::outside;
  const auto set = [](const auto& operand, DepthOrder order, Index& outputs, Index& depth) {
    outputs = order == DepthOrder::inside ? operand.rows : operand.columns;
    depth = order == DepthOrder::inside ? operand.columns : operand.rows;
  };
  set(args.left, shape.left_order, shape.rows, shape.depth);
  set(args.right, shape.right_order, shape.columns, shape.right_depth);
  return shape;
}

// A stretch of k, the longest piece between two visits of the output; or of rows or columns.
struct Stretch {
  Index first = 0;
  Index depth = 0;
};

// A right operand whose elements become floats where they are packed or read, some rows at a time:
// they are met in a cache, where a copy of the whole would go through memory.
struct WidenedRight {
  const void* data = nullptr;
  Index element_bytes = 0;
  // Rows and columns of it, at `to`.
  void (*widen)(const void* data, Index stride, const Stretch& rows, const Stretch& columns,
                const Matrix& to) = nullptr;  // null: there is none
};

// output[rows, columns] = sum over depth.
struct ProductCall {
  using Order = DepthOrder;
  Index rows = 0;
  Index columns = 0;
  Index depth = 0;
  ConstMatrix left;
  Order left_order = Order::inside;
  ConstMatrix right;  // without data where there is an image, or elements become floats
  Order right_order = Order::inside;
  const Product* product = nullptr;
  const float* image = nullptr;
  PanelKernel panel = nullptr;  // null: fp32; else operands are of 32 bits that it understands
  WidenedRight widened = {};
};

// `product` outlives the call.
inline ProductCall call_of(ProductForm form, const Product& product) {
  const ProductShape shape = shape_of(form, product);
  return {.rows = shape.rows,
          .columns = shape.columns,
          .depth = shape.depth,
          .left = product.left,
          .left_order = shape.left_order,
          .right = product.right,
          .right_order = shape.right_order,
          .product = &product};
}

// Where the right operand lies for the tile: columns in groups, each group [depth][k_stride].
struct RightView {
  const float* base = nullptr;  // of the stretch's first k
  Index k_stride = 0;
  Index group_step = 0;
  Index group = std::numeric_limits<Index>::max();  // columns of one group

  const float* at(Index column) const {
    return base + column / group * group_step + column % group;
  }
};

// Cuts `depth` into equal stretches: the output is visited seldom, and a panel and the rows of the
// left operand that it meets stay in the second cache.
struct Stretches {
  static constexpr Index kDepthMax = 1024;
  Index depth = 0;
  Index count = 0;
  Index step = 0;

  explicit Stretches(Index depth_in, Index depth_max = kDepthMax)
      : depth(depth_in),
        count((depth_in + depth_max - 1) / depth_max),
        step(((depth_in + count - 1) / count + 15) / 16 * 16) {}
  Stretch at(Index i) const { return {i * step, std::min(step, depth - i * step)}; }
};

// Of a core; 1 MiB where the machine does not say.
Index second_cache_bytes();
// Of its first cache for data; 8 where the machine does not say.
Index first_cache_ways();

// Up to kImagePanel outputs of any number of rows, left by row; right has kImagePanel columns.
void run_image_panel(Index rows, Index columns, const ChainCall& call);

// Rows of y = x w^T up to which reading the weight once is all that counts: decoding (vector.cc).
inline constexpr Index kVectorRows = 4;

// Outputs [first, first + count) of every row; args.left.rows is 1 .. kVectorRows and its columns
// are not 0. The chain of each output is that of product_nt; bias and residual are left to the
// caller.
void product_vector(const Product& args, Index first, Index count);

// Checked calls only. The first takes any, on the CPU; the second those whose rows, columns and
// depth are above zero and that have an fp32 output.
void run_call(const OpContext& ctx, const ProductCall& call);
void run_product(const Workers& workers, const ProductCall& call);

}  // namespace tutti::kernels
