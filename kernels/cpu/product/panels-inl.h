// Panels of the right operand, as the tiles read them: packed, and run along the left operand.
//
// Included once for each target (foreach_target.h).
#if defined(TUTTI_PRODUCT_PANELS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_PRODUCT_PANELS_INL
#undef TUTTI_PRODUCT_PANELS_INL
#else
#define TUTTI_PRODUCT_PANELS_INL
#endif

#include <algorithm>
#include <cstddef>

#include "kernels/cpu/product/chain_tile-inl.h"
#include "kernels/cpu/product/pack.h"
#include "kernels/cpu/product/product_call.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

using Order = ProductCall::Order;

inline ChainStart start_of(const Product& args, const Stretch& stretch) {
  return stretch.first == 0 ? args.start : ChainStart::output;
}

// Elements become floats as they are laid down; turned, block by block in the first cache.
inline void pack_widened(const ProductCall& call, Index column, Index columns, const Stretch& k,
                         float* panel, Index panel_columns) {
  const WidenedRight& right = call.widened;
  if (call.right_order == Order::outside) {
    right.widen(right.data, call.right.stride, k, {column, columns},
                {panel, k.depth, columns, panel_columns});
    for (Index i = 0; i < k.depth && columns < panel_columns; ++i) {
      std::fill(panel + i * panel_columns + columns, panel + (i + 1) * panel_columns, 0.0F);
    }
    return;
  }
  constexpr Index kTogether = 64;
  alignas(64) float block[kImagePanel * kTogether];
  for (Index first = 0; first < k.depth; first += kTogether) {
    const Index depth = std::min(kTogether, k.depth - first);
    const Matrix part(block, columns, depth, kTogether);
    right.widen(right.data, call.right.stride, {column, columns}, {k.first + first, depth}, part);
    pack_panel_transposed(part, panel_columns, panel + first * panel_columns);
  }
}

inline void pack_right(const ProductCall& call, Index column, Index columns, const Stretch& k,
                       float* panel, Index panel_columns = kChainColumns) {
  if (call.widened.widen != nullptr) {
    return pack_widened(call, column, columns, k, panel, panel_columns);
  }
  if (call.right_order == Order::inside) {
    pack_panel_transposed(call.right.row_range(column, columns).column_range(k.first, k.depth),
                          panel_columns, panel);
  } else {
    pack_panel_straight(call.right.row_range(k.first, k.depth).column_range(column, columns),
                        panel_columns, panel);
  }
}

HWY_INLINE void run_left_panel(const ProductCall& call, Index rows, Index columns,
                               const ChainCall& tile) {
  if (call.panel != nullptr) return call.panel(rows, columns, tile);
  if (call.left_order == Order::inside) {
    run_chain_panel<LeftOrder::by_row>(rows, columns, tile);
  } else {
    run_chain_panel<LeftOrder::by_depth>(rows, columns, tile);
  }
}

// The left operand from this row and k on, read where it lies.
inline const float* left_at(const ProductCall& call, Index row, Index k) {
  return call.left_order == Order::inside ? call.left.row(row) + k : call.left.row(k) + row;
}

// Panels of a right operand that becomes floats, some rows of all of them together: what is read of
// such a row then follows upon itself. A band stays in the second cache.
inline constexpr Index kBandColumns = 256;
inline constexpr Index kBandDepth = 256;

// What tiles ask for beside their chains: the band's rows of the next stretch, in lines of floats.
// On AVX2, whose narrower tiles take longer over a stretch, asking costs more than it brings.
inline Ahead next_rows(const ProductCall& call, Index column, Index columns, const Stretch& k) {
  const Index bytes = call.widened.element_bytes;
  if (HWY_TARGET != HWY_AVX3 || k.first + 2 * k.depth > call.depth ||
      call.right.stride * bytes % Index{sizeof(float)} != 0) {
    return {};
  }
  const auto* const first = static_cast<const std::byte*>(call.widened.data);
  const Index offset = ((k.first + k.depth) * call.right.stride + column) * bytes;
  const Index floats = Index{sizeof(float)};
  return {reinterpret_cast<const float*>(first + offset / floats * floats),
          call.right.stride * bytes / floats, columns * bytes / 64};
}

inline void run_widened_band(const ProductCall& call, Index column, Index columns, float* packed) {
  constexpr Index kRowsTogether = 8;
  const Stretches stretches(call.depth, kBandDepth);
  for (Index s = 0; s < stretches.count; ++s) {
    const Stretch k = stretches.at(s);
    const auto each_panel = [&](auto&& body) {
      for (Index offset = 0; offset < columns; offset += kChainColumns) {
        body(offset, std::min(kChainColumns, columns - offset), packed + offset * k.depth);
      }
    };
    for (Index row = 0; row < k.depth; row += kRowsTogether) {
      each_panel([&](Index offset, Index width, float* panel) {
        pack_right(call, column + offset, width,
                   {k.first + row, std::min(kRowsTogether, k.depth - row)},
                   panel + row * kChainColumns);
      });
    }
    Ahead ahead = next_rows(call, column, columns, k);
    each_panel([&](Index offset, Index width, const float* panel) {
      run_left_panel(call, call.rows, width,
                     {.depth = k.depth,
                      .left = left_at(call, 0, k.first),
                      .left_stride = call.left.stride,
                      .right = panel,
                      .right_stride = kChainColumns,
                      .output = call.product->output.data + column + offset,
                      .output_stride = call.product->output.stride,
                      .start = start_of(*call.product, k),
                      .ahead = &ahead});
    });
  }
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
