// The fp32 product: who packs what, around the register tile of chain_tile-inl.h.
//
//   by rows     many rows, or more than k: the right operand is packed once for all threads, then
//               blocks of rows are handed out.
//   by columns  few rows, and k is the right operand's row (or it is a packed image): panels of
//               columns are handed out, and a panel is packed while its first tile reads it.
//   turned      few rows, no more than k, which lies side by side in both (a linear layer): the
//               right operand takes the tile's rows, read where it lies; the small left operand is
//               packed instead, and the output turned at the end.
//   vector      up to four rows: the same without a tile (vector.cc).
//   by image    up to a tile's rows by a packed image: panel after panel, as it lies in memory.
//
// All of them compute the same chains; which one runs is a matter of speed.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/product/product.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/product/chain_tile-inl.h"
#include "kernels/cpu/product/finish.h"
#include "kernels/cpu/product/pack.h"
#include "kernels/cpu/product/panels-inl.h"
#include "kernels/cpu/product/product_call.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// Up to here the right operand is not packed beforehand, as too few rows would share it; but where
// rows are more than k (is_shallow), or fall together.
inline constexpr Index kFewRows = 256;
// The packed right operand, in floats: stays in the outer caches.
inline constexpr Index kPackedMax = Index{1} << 21;
// Rows (or, turned, outputs) of a block at least; at most four times as many.
inline constexpr Index kBlockRows = 16 * kChainRows;
// A right operand narrower than this is read where it lies though its rows are k: they are close
// enough for L1 and the page tables. On AVX2 a panel takes one line of each row, and at such
// strides these fall on few sets of L1: only what is as narrow as a panel lies ready.
inline constexpr Index kNarrow = HWY_TARGET == HWY_AVX3 ? 256 : kChainColumns;

// Of the tiles of many rows.
struct TileShape {
  Index rows = kChainRows;
  Index columns = kChainColumns;
};

// Images and other arithmetics have panels of their own width.
TileShape tile_of(const ProductCall& call) {
  constexpr bool kHasHigh = kRowsAtOnce<kHighVectors> == kHighRows;
  if (!kHasHigh || call.image != nullptr || call.panel != nullptr ||
      first_cache_ways() < kHighRows) {
    return {};
  }
  return {kHighRows, kHighVectors * kVectorLanes};
}

bool lies_ready(const ProductCall& call) {
  return call.widened.widen == nullptr && call.right_order == Order::outside &&
         call.right.stride <= kNarrow && call.columns % kVectorLanes == 0;
}

// Columns [first, +columns) and k [k.first, +k.depth): what is packed at once.
struct Piece {
  Index first = 0;
  Index columns = 0;
  Stretch k;
  TileShape tile;

  Index panels() const { return (columns + tile.columns - 1) / tile.columns; }
};

// A left operand whose rows are k, and so far apart by so even a stride that the lines of a tile
// fall on few sets of the caches: it is copied tile by tile. On AVX2, whose tiles are a quarter as
// wide, each line of it is met four times as often: there any stride of lines is even enough.
bool falls_together(const ProductCall& call) {
  constexpr Index kEven = HWY_TARGET == HWY_AVX2 ? 64 : 256;
  return call.left_order == Order::outside && call.left.stride % kEven == 0;
}

// Between two visits of the output. What is copied of the left operand, and what the next copy is
// made of, are to take half of the second cache at most.
Stretches stretches_of(const ProductCall& call, const Piece& piece) {
  if (!falls_together(call)) return Stretches(piece.k.depth);
  const Index copied = second_cache_bytes() / 4 / (kBlockRows * Index{sizeof(float)});
  return Stretches(piece.k.depth, std::clamp<Index>(copied, 256, Stretches::kDepthMax));
}

// Rows of a block: with a stretch of a panel they fill most of the second cache, as each block has
// the whole piece come from the third. A copy shares it with what the next one is made of.
Index rows_of_block(const ProductCall& call, const Piece& piece) {
  const Index line = stretches_of(call, piece).step * Index{sizeof(float)};
  const Index held = second_cache_bytes() / 8 * 7 - piece.tile.columns * line;
  const Index rows = held / line / (falls_together(call) ? 2 : 1);
  return std::clamp(rows / piece.tile.rows * piece.tile.rows, kBlockRows, 4 * kBlockRows);
}

RightView stretch_of(const ProductCall& call, const Piece& piece, const Stretch& k,
                     const float* packed) {
  if (call.image != nullptr) {
    return {call.image + piece.first * call.depth + (piece.k.first + k.first) * kImagePanel,
            kImagePanel, call.depth * kImagePanel, kImagePanel};
  }
  if (packed == nullptr) {
    return {call.right.row(piece.k.first + k.first) + piece.first, call.right.stride};
  }
  const Index columns = piece.tile.columns;
  return {packed + k.first * piece.panels() * columns, columns, k.depth * columns, columns};
}

void pack_piece(const Workers& workers, const ProductCall& call, const Piece& piece,
                float* packed) {
  const Stretches stretches = stretches_of(call, piece);
  const Index panels = piece.panels();
  workers.parallel_for(panels * stretches.count, 1, [&](int, Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Stretch k = stretches.at(i / panels);
      const Index width = piece.tile.columns;
      const Index offset = i % panels * width;
      float* const panel = packed + (stretch_of(call, piece, k, packed).at(offset) - packed);
      pack_right(call, piece.first + offset, std::min(width, piece.columns - offset),
                 {piece.k.first + k.first, k.depth}, panel, width);
    }
  });
}

// What the tiles of one panel ask for beside their chains: the panel after it.
Ahead next_panel(const RightView& right, Index offset, const Piece& piece) {
  const Index next = offset + piece.tile.columns;
  // Of an image or a packed operand only: rows that lie where they lie are narrow.
  if (right.k_stride > kImagePanel || next >= piece.columns) return {};
  return {right.at(next), right.k_stride, piece.tile.columns / 16};
}

// What is read after a block's last panel of a stretch: its next stretch, or the next block.
Ahead next_left(const ProductCall& call, const Piece& piece, const Stretch& rows,
                const Stretch& k) {
  const bool more = k.first + k.depth < piece.k.first + piece.k.depth;
  const float* const next = more ? left_at(call, rows.first, k.first + k.depth)
                                 : left_at(call, rows.first + rows.depth, piece.k.first);
  return {next, call.left.stride, rows.depth / 16};
}

// One block of rows over the whole piece.
void run_block(const ProductCall& call, const Piece& piece, const float* packed,
               const Stretch& rows, Arena& scratch) {
  const Product& args = *call.product;
  const Stretches stretches = stretches_of(call, piece);
  ArenaScope scope(scratch);
  const bool copied = falls_together(call);
  const auto [height, width] = piece.tile;
  const Index tiles = (rows.depth + height - 1) / height;
  float* const copy = copied ? scratch.floats(stretches.step * tiles * height) : nullptr;
  for (Index s = 0; s < stretches.count; ++s) {
    const Stretch k = stretches.at(s);
    const Stretch whole{piece.k.first + k.first, k.depth};
    if (copied) {
      copy_tiles(call.left.row_range(whole.first, k.depth).column_range(rows.first, rows.depth),
                 height, copy);
    }
    const RightView right = stretch_of(call, piece, k, packed);
    for (Index offset = 0; offset < piece.columns; offset += width) {
      const bool last = offset + width >= piece.columns;
      Ahead ahead =
          copied && last ? next_left(call, piece, rows, whole) : next_panel(right, offset, piece);
      const Index columns = std::min(width, piece.columns - offset);
      const Index column = piece.first + offset;
      // Panels that are not as wide as the others are run by lower tiles, within each copied one.
      const bool within = copied && columns < width;
      const Index together = within ? height : rows.depth;
      for (Index row = 0; row < rows.depth; row += together) {
        run_left_panel(
            call, std::min(together, rows.depth - row), columns,
            {.depth = k.depth,
             .left = copied ? copy + row * k.depth : left_at(call, rows.first, whole.first),
             .left_stride = copied ? height : call.left.stride,
             .left_tile = copied && !within ? height * k.depth : 0,
             .right = right.at(offset),
             .right_stride = right.k_stride,
             .output = args.output.row(rows.first + row) + column,
             .output_stride = args.output.stride,
             .start = start_of(args, whole),
             .ahead = &ahead});
      }
    }
  }
  // Of whole rows: what the ends read beside the output is then met in one stream.
  if (piece.k.first + piece.k.depth == call.depth) {
    finish(ends_of(args), args.output, {rows.first, rows.depth, piece.first, piece.columns});
  }
}

void product_piece(const Workers& workers, const ProductCall& call, const Piece& piece) {
  ArenaScope scope(workers.op_scratch());
  float* packed = nullptr;
  if (call.image == nullptr && !lies_ready(call)) {
    packed = workers.op_scratch().floats(piece.panels() * piece.tile.columns * piece.k.depth);
    pack_piece(workers, call, piece, packed);
  }
  // Enough blocks that the threads end together.
  const Index threads = workers.threads();
  const Index height = piece.tile.rows;
  const Index tiles = (call.rows + height - 1) / height;
  const Index tiles_in_block = std::clamp<Index>(threads == 1 ? tiles : tiles / (threads * 4), 1,
                                                 rows_of_block(call, piece) / height);
  const Index block = tiles_in_block * height;
  workers.parallel_for((call.rows + block - 1) / block, 1, [&](int thread, Index begin, Index end) {
    for (Index b = begin; b < end; ++b) {
      run_block(call, piece, packed, {b * block, std::min(block, call.rows - b * block)},
                workers.scratch(thread));
    }
  });
}

// Cut by k before by columns: each piece of columns reads the whole left operand.
void product_by_rows(const Workers& workers, const ProductCall& call) {
  const TileShape tile = tile_of(call);
  Index k_step = call.depth;
  Index columns_step = call.columns;
  if (call.image == nullptr) {
    const Index stretch = Stretches(call.depth).step;
    const Index columns = std::clamp<Index>(call.columns, 1, kPackedMax / stretch);
    k_step = std::max<Index>(1, kPackedMax / columns / stretch) * stretch;
    const Index pieces = (call.columns + columns - 1) / columns;
    columns_step =
        ((call.columns + pieces - 1) / pieces + tile.columns - 1) / tile.columns * tile.columns;
  }
  for (Index column = 0; column < call.columns; column += columns_step) {
    const Index columns = std::min(columns_step, call.columns - column);
    for (Index k = 0; k < call.depth; k += k_step) {
      product_piece(workers, call, {column, columns, {k, std::min(k_step, call.depth - k)}, tile});
    }
  }
}

// On AVX2 tiles are narrower than an image's panel: of each row they read one line of four, or two,
// which the machine does not foresee. So they ask for the panel's next stretch of k, line after
// line, each for as many as it reads of this one.
inline constexpr bool kImageStreams = HWY_TARGET == HWY_AVX2;

bool streams_image(const ProductCall& call) {
  return kImageStreams && call.image != nullptr && call.panel == nullptr;
}

// What the tiles of columns from `column` of its panel on ask for.
Ahead next_stretch(const float* panel, Index column, Index depth) {
  return {panel + depth * (kImagePanel + column), 16, 1};
}

// The left operand, a panel, and the next one on its way share the second cache. Of an image, the
// stretch that is read and the one that is asked for take half of it.
Stretches column_stretches(const ProductCall& call) {
  constexpr Index kFloats = 196608;
  Index depth = kFloats / (call.rows + 2 * kChainColumns);
  if (streams_image(call)) {
    depth = std::min(depth, second_cache_bytes() / 4 / (kImagePanel * Index{sizeof(float)}));
  }
  return Stretches(call.depth, std::clamp<Index>(depth, 256, Stretches::kDepthMax));
}

// Of a band of columns, one panel over one stretch of k; `next` is what the next packing tile
// reads.
void run_column_panel(const ProductCall& call, Index column, const Stretch& k, const float* next,
                      float* packed) {
  const Product& args = *call.product;
  const Index columns = std::min(kChainColumns, call.columns - column);
  ChainCall tile{.depth = k.depth,
                 .left = left_at(call, 0, k.first),
                 .left_stride = call.left.stride,
                 .right_stride = kChainColumns,
                 .output = args.output.data + column,
                 .output_stride = args.output.stride,
                 .start = start_of(args, k),
                 .packed = packed};
  if (call.image != nullptr) {
    const RightView view = stretch_of(call, {0, call.columns, {0, call.depth}, {}}, k, nullptr);
    tile.right = view.at(column);
    tile.right_stride = view.k_stride;
    const Index within = column % kImagePanel;
    Ahead ahead = next_stretch(tile.right - within, within, k.depth);
    if (streams_image(call)) tile.ahead = &ahead;
    run_left_panel(call, call.rows, columns, tile);
  } else if (columns < kChainColumns || call.panel != nullptr) {
    pack_right(call, column, columns, k, packed);
    tile.right = packed;
    run_left_panel(call, call.rows, columns, tile);
  } else {
    tile.right = call.right.row(k.first) + column;
    tile.right_stride = call.right.stride;
    Ahead ahead{next, call.right.stride, kChainColumns / 16};
    tile.ahead = &ahead;
    if (call.left_order == Order::inside) {
      run_chain_packing<LeftOrder::by_row>(call.rows, tile);
    } else {
      run_chain_packing<LeftOrder::by_depth>(call.rows, tile);
    }
  }
}

// A band of panels over all of k: a stretch of the left operand is read once for all of them.
void run_column_band(const ProductCall& call, Index first, Index columns, float* packed) {
  const Stretches stretches = column_stretches(call);
  const Index end = first + columns;
  for (Index s = 0; s < stretches.count; ++s) {
    const Stretch k = stretches.at(s);
    for (Index column = first; column < end; column += kChainColumns) {
      const float* next = nullptr;
      if (call.image == nullptr) {
        const bool last = column + kChainColumns >= end;
        const Index row = !last ? k.first : s + 1 < stretches.count ? k.first + k.depth : 0;
        const Index following = !last ? column + kChainColumns : row != 0 ? first : end;
        next = call.right.row(row) + following;
      }
      run_column_panel(call, column, k, next, packed);
    }
  }
}

// Of k, by few rows: 24 KB of a panel. The first cache keeps them until all columns have read them.
inline constexpr Index kImageStretch = 96;

// One panel of an image by few rows. Tiles as wide as it is read it as one stream, all of k at
// once; by AVX2 sums of more than three rows leave registers for two vectors of columns.
template <int kRows>
void run_image_rows(const ProductCall& call, Index column) {
  const Product& args = *call.product;
  constexpr int kWide = static_cast<int>(kImagePanel / kVectorLanes);
  constexpr int kMost = HWY_TARGET == HWY_AVX3 || kRows <= 3 ? 4 : 2;
  constexpr int kVectors = kRows == 1 ? kWide : std::min(kMost, kWide);
  constexpr Index kColumns = kVectors * kVectorLanes;
  constexpr bool kWhole = kColumns == kImagePanel;
  constexpr Beside kBeside = kImageStreams && !kWhole ? Beside::streams : Beside::nothing;
  const Index end = std::min(column + kImagePanel, call.columns);
  alignas(64) float sums[kRows * kImagePanel];
  const auto move = [&](auto&& copy) {
    for (int r = 0; r < kRows; ++r) {
      copy(args.output.row(r) + column, sums + r * kImagePanel,
           static_cast<std::size_t>(end - column));
    }
  };
  if (args.start == ChainStart::output) {
    move([](const float* output, float* sum, std::size_t n) { std::copy_n(output, n, sum); });
  }
  const Stretches stretches(call.depth, kWhole ? call.depth : kImageStretch);
  for (Index s = 0; s < stretches.count; ++s) {
    const Stretch k = stretches.at(s);
    const float* const panel = call.image + column * call.depth + k.first * kImagePanel;
    for (Index first = 0; first < end - column; first += kColumns) {
      Ahead ahead = next_stretch(panel, first, k.depth);
      run_chain_tile<LeftOrder::by_row, kRows, kVectors, kBeside>({.depth = k.depth,
                                                                   .left = call.left.data + k.first,
                                                                   .left_stride = call.left.stride,
                                                                   .right = panel + first,
                                                                   .right_stride = kImagePanel,
                                                                   .output = sums + first,
                                                                   .output_stride = kImagePanel,
                                                                   .start = start_of(args, k),
                                                                   .ahead = &ahead});
    }
  }
  move([](float* output, const float* sum, std::size_t n) { std::copy_n(sum, n, output); });
  finish(ends_of(args), args.output, {0, call.rows, column, end - column});
}

void product_by_image(const Workers& workers, const ProductCall& call) {
  using Run = void (*)(const ProductCall& call, Index column);
  constexpr Run kRuns[kChainRows] = {run_image_rows<1>, run_image_rows<2>, run_image_rows<3>,
                                     run_image_rows<4>, run_image_rows<5>, run_image_rows<6>};
  const Index panels = (call.columns + kImagePanel - 1) / kImagePanel;
  workers.parallel_for(panels, 1, [&](int, Index begin, Index end) {
    for (Index p = begin; p < end; ++p) kRuns[call.rows - 1](call, p * kImagePanel);
  });
}

// Each panel has all of the left operand pass by: bands of panels share what the second cache does
// not keep of it.
bool left_is_far(const ProductCall& call) {
  return call.rows * call.depth * Index{sizeof(float)} > second_cache_bytes();
}

void product_by_columns(const Workers& workers, const ProductCall& call) {
  const Index panels = (call.columns + kChainColumns - 1) / kChainColumns;
  const bool widened = call.widened.widen != nullptr;
  const bool band = widened || (call.image == nullptr && left_is_far(call));
  const Index most = (band ? kBandColumns : kImagePanel) / kChainColumns;
  const Index together =
      std::clamp<Index>(panels / (workers.threads() * 8), streams_image(call) ? most : 1, most);
  const Index floats =
      widened ? Stretches(call.depth, kBandDepth).step * together : column_stretches(call).step;
  workers.parallel_for(panels, together, [&](int thread, Index begin, Index end) {
    ArenaScope scope(workers.scratch(thread));
    float* const packed =
        call.image != nullptr ? nullptr : workers.scratch(thread).floats(floats * kChainColumns);
    // One thread alone is given all panels.
    for (Index panel = begin; panel < end; panel += together) {
      const Index first = panel * kChainColumns;
      const Index columns =
          std::min(std::min(panel + together, end) * kChainColumns, call.columns) - first;
      if (widened) {
        run_widened_band(call, first, columns, packed);
      } else {
        run_column_band(call, first, columns, packed);
      }
      finish(ends_of(*call.product), call.product->output, {0, call.rows, first, columns});
    }
  });
}

// The left operand as right panels of `width` rows, stretch after stretch.
struct TurnedLeft {
  const float* data = nullptr;
  Index width = 0;  // of a row of all panels
  Index panels = 0;

  // Rows of panel p, whole vectors.
  Index panel_rows(Index p) const { return std::min(kChainColumns, width - p * kChainColumns); }
  const float* panel(const Stretch& k, Index p) const {
    return data + k.first * width + p * kChainColumns * k.depth;
  }
};

TurnedLeft turn_left(const Workers& workers, const ProductCall& call, const Stretches& stretches) {
  TurnedLeft turned;
  turned.width = (call.rows + kVectorLanes - 1) / kVectorLanes * kVectorLanes;
  turned.panels = (turned.width + kChainColumns - 1) / kChainColumns;
  float* const data = workers.op_scratch().floats(turned.width * call.depth);
  turned.data = data;
  workers.parallel_for(stretches.count * turned.panels, 1, [&](int, Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Stretch k = stretches.at(i / turned.panels);
      const Index p = i % turned.panels;
      const Index row = p * kChainColumns;
      pack_panel_transposed(call.left.row_range(row, std::min(kChainColumns, call.rows - row))
                                .column_range(k.first, k.depth),
                            turned.panel_rows(p), data + (turned.panel(k, p) - data));
    }
  });
  return turned;
}

// What is made floats of a block shares the second cache with what the tiles read beside it.
Stretches turned_stretches(const ProductCall& call) {
  return Stretches(call.depth, call.widened.widen != nullptr ? 512 : Stretches::kDepthMax);
}

// Where a turned block has its sums, and its rows of a right operand that becomes floats.
struct TurnedRoom {
  float* sums = nullptr;
  float* right = nullptr;
};

// Rows of the right operand over a stretch of k.
ConstMatrix turned_right(const ProductCall& call, const Stretch& rows, const Stretch& k,
                         const TurnedRoom& room) {
  const WidenedRight& right = call.widened;
  if (right.widen == nullptr) {
    return call.right.row_range(rows.first, rows.depth).column_range(k.first, k.depth);
  }
  const Matrix made(room.right, rows.depth, k.depth, k.depth);
  right.widen(right.data, call.right.stride, rows, k, made);
  return made;
}

// Outputs [column, +columns) of all rows, computed as [column][row].
void run_turned_block(const ProductCall& call, const TurnedLeft& left, Index column, Index columns,
                      const TurnedRoom& room) {
  float* const sums = room.sums;
  const Product& args = *call.product;
  const Matrix output = args.output.column_range(column, columns);
  if (args.start == ChainStart::output) transpose_into(output, sums, left.width);
  const Stretches stretches = turned_stretches(call);
  for (Index s = 0; s < stretches.count; ++s) {
    const Stretch k = stretches.at(s);
    const ConstMatrix right = turned_right(call, {column, columns}, k, room);
    for (Index p = 0; p < left.panels; ++p) {
      const Index rows = left.panel_rows(p);
      const ChainCall tile{.depth = k.depth,
                           .left = right.data,
                           .left_stride = right.stride,
                           .right = left.panel(k, p),
                           .right_stride = rows,
                           .output = sums + p * kChainColumns,
                           .output_stride = left.width,
                           .start = start_of(args, k)};
      if (call.panel != nullptr) {
        call.panel(columns, rows, tile);
      } else {
        run_chain_panel<LeftOrder::by_row>(columns, rows, tile);
      }
    }
  }
  transpose_into(ConstMatrix(sums, columns, call.rows, left.width), output.data, output.stride);
  finish(ends_of(args), args.output, {0, call.rows, column, columns});
}

void product_turned(const Workers& workers, const ProductCall& call) {
  ArenaScope scope(workers.op_scratch());
  const TurnedLeft left = turn_left(workers, call, turned_stretches(call));
  const Index threads = workers.threads();
  const Index tiles = (call.columns + kChainRows - 1) / kChainRows;
  const Index block = kChainRows * std::clamp<Index>(threads == 1 ? tiles : tiles / (threads * 4),
                                                     1, kBlockRows / kChainRows);
  workers.parallel_for(
      (call.columns + block - 1) / block, 1, [&](int thread, Index begin, Index end) {
        Arena& scratch = workers.scratch(thread);
        ArenaScope thread_scope(scratch);
        TurnedRoom room{scratch.floats(kBlockRows * left.width)};
        if (call.widened.widen != nullptr) {
          room.right = scratch.floats(kBlockRows * turned_stretches(call).step);
        }
        for (Index b = begin; b < end; ++b) {
          run_turned_block(call, left, b * block, std::min(block, call.columns - b * block), room);
        }
      });
}

// One to four rows by a weight whose k lies inside: decoding.
void product_by_vector(const Workers& workers, const ProductCall& call) {
  const bool widens = call.widened.widen != nullptr;
  const Index step = widens ? 32 : 64;
  workers.parallel_for(call.columns, step, [&](int thread, Index begin, Index end) {
    Product part = *call.product;
    ArenaScope scope(workers.scratch(thread));
    if (widens) {
      const Stretch rows{begin, end - begin};
      part.right = turned_right(call, rows, {0, call.depth},
                                {.right = workers.scratch(thread).floats(rows.depth * call.depth)});
      part.output = part.output.column_range(begin, rows.depth);
      product_vector(part, 0, rows.depth);
    } else {
      product_vector(part, begin, end - begin);
    }
    finish(ends_of(*call.product), call.product->output, {0, call.rows, begin, end - begin});
  });
}

void image_panel_kernel(Index rows, Index columns, const ChainCall& call) {
  constexpr int kWide = static_cast<int>(kImagePanel / kVectorLanes);
  if (rows == 1 && columns == kImagePanel) {
    return run_chain_tile<LeftOrder::by_row, 1, kWide>(call);
  }
  for (Index offset = 0; offset < columns; offset += kChainColumns) {
    ChainCall part = call;
    part.right += offset;
    part.output += offset;
    run_chain_panel<LeftOrder::by_row>(rows, std::min(kChainColumns, columns - offset), part);
  }
}

// Whether turning the output would move more than packing the right operand does, and rows are
// blocks enough for all threads.
bool is_shallow(const Workers& workers, const ProductCall& call) {
  const Index threads = workers.threads();
  return call.image == nullptr && call.right_order == Order::inside && call.rows > kVectorRows &&
         call.rows > call.depth && (threads == 1 || call.rows / tile_of(call).rows >= threads);
}

void product_kernel(const Workers& workers, const ProductCall& call) {
  // The vector products are written for AVX2 alone.
  constexpr bool kHasVector = HWY_TARGET != HWY_SCALAR;
  if (call.rows > kFewRows || falls_together(call) || is_shallow(workers, call)) {
    return product_by_rows(workers, call);
  }
  if (call.image != nullptr && call.panel == nullptr && call.rows <= kChainRows) {
    return product_by_image(workers, call);
  }
  if (call.image == nullptr && call.right_order == Order::inside) {
    if (kHasVector && call.panel == nullptr && call.rows <= kVectorRows)
      return product_by_vector(workers, call);
    return product_turned(workers, call);
  }
  // Too few panels for the threads: rows are cut instead.
  const Index panels = (call.columns + kChainColumns - 1) / kChainColumns;
  const Index threads = workers.threads();
  if (threads > 1 && panels < threads * 4 && call.rows >= 4 * kChainRows) {
    return product_by_rows(workers, call);
  }
  product_by_columns(workers, call);
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

void run_image_panel(Index rows, Index columns, const ChainCall& call) {
  TUTTI_CPU_CALL(image_panel_kernel)(rows, columns, call);
}

void run_product(const Workers& workers, const ProductCall& call) {
  TUTTI_CPU_CALL(product_kernel)(workers, call);
}

}  // namespace tutti::kernels

#endif
