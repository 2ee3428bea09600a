// Integers in loops that the compiler turns into vectors; the rounding is that of to_bf16.
#include "kernels/cpu/product/pack_bf16.h"

#include <algorithm>

#include "kernels/cpu/product/bf16_row.h"
#include "kernels/cpu/product/pack.h"
#include "kernels/cpu/product/rounded.h"
#include "kernels/cpu/row_split.h"

namespace tutti::kernels {

namespace {

using Unit = std::uint32_t;

// What is turned at once: with what it is made of it stays in the first cache.
constexpr Index kBlock = 64;
// Units of a panel that one piece of work has.
constexpr Index kUnitsInPiece = 256;

// A machine that multiplies pairs has these. Of a function, not of the file: what the linker keeps
// one copy of must run everywhere.
#define TUTTI_WIDE_LOOPS \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")))

// One k of many rows, and the next; `odd` null: there is none.
template <class Element>
TUTTI_WIDE_LOOPS void join(const Element* __restrict even, const Element* __restrict odd,
                           Index count, Unit* __restrict to) {
  if (odd == nullptr) {
    for (Index i = 0; i < count; ++i) to[i] = upper_half(even[i]) >> 16;
    return;
  }
  for (Index i = 0; i < count; ++i) {
    to[i] = upper_half(even[i]) >> 16 | (upper_half(odd[i]) & 0xffff0000U);
  }
}

template <class Element>
TUTTI_WIDE_LOOPS void narrow(const Element* __restrict from, Index count, Bf16* __restrict to) {
  for (Index i = 0; i < count; ++i) to[i] = static_cast<Bf16>(upper_half(from[i]) >> 16);
}

// By value what the loop is bound by: stores of floats may be to any place in memory, so that what
// is read through a reference would be read again each time, and no loop become vectors.
template <class Element>
void widen_row(const Element* __restrict from, Index count, float* __restrict to) {
  for (Index c = 0; c < count; ++c) to[c] = value_of(from[c]);
}

// Units [first, +count) of an operand whose rows are k; `from` is its part of `width` columns.
template <class Element>
void join_rows(const BasicMatrix<const Element>& from, Index first, Index count, Unit* to,
               Index to_stride) {
  for (Index u = 0; u < count; ++u) {
    Unit* const row = to + u * to_stride;
    const Index k = 2 * (first + u);
    if (k >= from.rows) {
      std::fill_n(row, from.columns, 0U);
    } else {
      join(from.row(k), k + 1 < from.rows ? from.row(k + 1) : nullptr, from.columns, row);
    }
  }
}

// Units [first, +count) of one row of k.
template <class Element>
void join_along(const Element* from, Index depth, Index first, Index count, Unit* to) {
  auto* const halves = reinterpret_cast<Bf16*>(to);
  const Index there = std::clamp<Index>(depth - 2 * first, 0, 2 * count);
  const Element* const k = from + 2 * first;
  narrow(k, there, halves);
  std::fill(halves + there, halves + 2 * count, Bf16{0});
}

Unit* units_at(float* to) { return reinterpret_cast<Unit*>(to); }
const float* floats_of(const Unit* units) { return reinterpret_cast<const float*>(units); }

// Where k is the operand's row: blocks of units, turned.
template <class Element>
void turn_rows(const Workers& workers, const BasicMatrix<const Element>& x, const Matrix& to) {
  const Index bands = (to.rows + kBlock - 1) / kBlock;
  workers.parallel_for(bands, 1, [&](int, Index begin, Index end) {
    alignas(64) Unit block[kBlock * kBlock];
    for (Index band = begin; band < end; ++band) {
      const Index row = band * kBlock;
      const Index rows = std::min(kBlock, to.rows - row);
      const auto from = x.column_range(row, rows);
      for (Index u = 0; u < to.columns; u += kBlock) {
        const Index count = std::min(kBlock, to.columns - u);
        join_rows(from, u, count, block, kBlock);
        transpose_into({floats_of(block), count, rows, kBlock}, to.row(row) + u, to.stride);
      }
    }
  });
}

template <class Element>
ConstMatrix rows_of(const Workers& workers, const BasicMatrix<const Element>& x, DepthOrder order,
                    Index units) {
  const bool inside = order == DepthOrder::inside;
  const Matrix to = workers.op_scratch().matrix(inside ? x.rows : x.columns, units);
  if (!inside) {
    turn_rows(workers, x, to);
    return to;
  }
  workers.parallel_for(x.rows, rows_in_piece(x.columns), [&](int, Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      join_along(x.row(r), x.columns, 0, units, units_at(to.row(r)));
    }
  });
  return to;
}

// Columns [0, width) of a panel, units [first, +count).
template <class Element>
void fill_panel(const BasicMatrix<const Element>& part, DepthOrder order, Index first, Index count,
                float* panel) {
  float* const to = panel + first * kImagePanel;
  if (order == DepthOrder::outside) {
    join_rows(part, first, count, units_at(to), kImagePanel);
    for (Index u = 0; u < count && part.columns < kImagePanel; ++u) {
      std::fill(to + u * kImagePanel + part.columns, to + (u + 1) * kImagePanel, 0.0F);
    }
    return;
  }
  alignas(64) Unit block[kImagePanel * kBlock];
  for (Index u = 0; u < count; u += kBlock) {
    const Index here = std::min(kBlock, count - u);
    for (Index r = 0; r < part.rows; ++r) {
      join_along(part.row(r), part.columns, first + u, here, block + r * kBlock);
    }
    pack_panel_transposed({floats_of(block), part.rows, here, kBlock}, kImagePanel,
                          to + u * kImagePanel);
  }
}

template <class Element>
const float* columns_of(const Workers& workers, const BasicMatrix<const Element>& x,
                        DepthOrder order, Index units) {
  const bool inside = order == DepthOrder::inside;
  const Index columns = inside ? x.rows : x.columns;
  const Index panels = (columns + kImagePanel - 1) / kImagePanel;
  const Index pieces = (units + kUnitsInPiece - 1) / kUnitsInPiece;
  float* const image = workers.op_scratch().floats(panels * units * kImagePanel);
  workers.parallel_for(panels * pieces, 1, [&](int, Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Index column = i / pieces * kImagePanel;
      const Index width = std::min(kImagePanel, columns - column);
      const Index first = i % pieces * kUnitsInPiece;
      fill_panel(inside ? x.row_range(column, width) : x.column_range(column, width), order, first,
                 std::min(kUnitsInPiece, units - first), image + column * units);
    }
  });
  return image;
}

template <class Element>
ConstMatrix fp32_of(const Workers& workers, const BasicMatrix<const Element>& x) {
  const Matrix wide = workers.op_scratch().matrix(x.rows, x.columns);
  workers.parallel_for(x.rows, rows_in_piece(x.columns), [&](int, Index begin, Index end) {
    for (Index r = begin; r < end; ++r) widen_row(x.row(r), x.columns, wide.row(r));
  });
  return wide;
}

// Rows are asked for some kilobytes ahead, up to eight rows: they lie too far apart for the machine
// to foresee.
constexpr std::uintptr_t kBytesAhead = 4096;

template <class Element>
void widen_part(const void* data, Index stride, const Stretch& rows, const Stretch& columns,
                const Matrix& to) {
  const auto* const first = static_cast<const Element*>(data) + columns.first;
  const auto bytes = static_cast<std::uintptr_t>(columns.depth) * sizeof(Element);
  const auto rows_ahead = std::clamp<std::uintptr_t>(kBytesAhead / (bytes + 1), 1, 8);
  for (Index r = 0; r < rows.depth; ++r) {
    const Element* const from = first + (rows.first + r) * stride;
    // Of rows behind the last, too, which are widened next as a rule; what is not there is ignored.
    const auto ahead = reinterpret_cast<std::uintptr_t>(from) +
                       rows_ahead * static_cast<std::uintptr_t>(stride) * sizeof(Element);
    for (std::uintptr_t byte = 0; byte < bytes; byte += 64) {
      __builtin_prefetch(reinterpret_cast<const void*>(ahead + byte));
    }
    widen_row(from, columns.depth, to.row(r));
  }
}

}  // namespace

WidenedRight widened_right(const BasicMatrix<const Bf16>& x) {
  return {x.data, sizeof(Bf16), widen_part<Bf16>};
}
WidenedRight widened_right(const ConstMatrix& x) {
  return {x.data, sizeof(float), widen_part<float>};
}

ConstMatrix in_fp32(const Workers& workers, const BasicMatrix<const Bf16>& x) {
  return fp32_of(workers, x);
}
ConstMatrix in_fp32(const Workers& workers, const ConstMatrix& x) { return fp32_of(workers, x); }

ConstMatrix pair_rows(const Workers& workers, const BasicMatrix<const Bf16>& x, DepthOrder order,
                      Index units) {
  const bool whole = x.columns == 2 * units && x.stride % 2 == 0 &&
                     reinterpret_cast<std::uintptr_t>(x.data) % 4 == 0;
  if (order == DepthOrder::inside && whole) {
    return {reinterpret_cast<const float*>(x.data), x.rows, units, x.stride / 2};
  }
  return rows_of(workers, x, order, units);
}
ConstMatrix pair_rows(const Workers& workers, const ConstMatrix& x, DepthOrder order, Index units) {
  return rows_of(workers, x, order, units);
}

const float* pair_columns(const Workers& workers, const BasicMatrix<const Bf16>& x,
                          DepthOrder order, Index units) {
  return columns_of(workers, x, order, units);
}
const float* pair_columns(const Workers& workers, const ConstMatrix& x, DepthOrder order,
                          Index units) {
  return columns_of(workers, x, order, units);
}

}  // namespace tutti::kernels
