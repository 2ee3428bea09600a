#include "kernels/cpu/product/tiles/pack.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/product/pack_bf16.h"

namespace tutti::kernels {

namespace {

using Unit = std::uint32_t;

constexpr Index kSide = 16;               // rows of a tile, and its units
constexpr Index kGroupDepth = 2 * kSide;  // numbers of a group
constexpr Index kSquare = kSide * kSide;  // units of a tile
constexpr Index kPanel = kImagePanel;
constexpr Index kLine = 64;  // bytes

// Of functions, not of the file: what the linker keeps one copy of must run everywhere.
#define TUTTI_WIDE __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define TUTTI_WIDE_INLINE \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"), always_inline)) inline

// Sixteen numbers, rounded, in the upper halves: upper_half of each.
TUTTI_WIDE_INLINE __m512i upper_halves(const float* from) {
  const __m512i bits = _mm512_loadu_si512(from);
  const __m512i infinity = _mm512_set1_epi32(static_cast<int>(kInfinityBits));
  const __m512i size = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i added = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
  const __mmask16 finite = _mm512_cmplt_epu32_mask(size, infinity);
  const __mmask16 no_number = _mm512_cmpgt_epu32_mask(size, infinity);
  const __m512i rounded = _mm512_mask_add_epi32(bits, finite, bits, added);
  return _mm512_mask_or_epi32(rounded, no_number, rounded, _mm512_set1_epi32(0x400000));
}
TUTTI_WIDE_INLINE __m512i upper_halves(const Bf16* from) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
}

// One k of sixteen rows and the next one.
template <class Element>
TUTTI_WIDE_INLINE __m512i joined(const Element* even, const Element* odd) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(upper_halves(even), 16),
                                 upper_halves(odd));
}

// 32 k of one row, side by side.
TUTTI_WIDE_INLINE __m512i narrowed(const Bf16* from) { return _mm512_loadu_si512(from); }
TUTTI_WIDE_INLINE __m512i narrowed(const float* from) {
  alignas(64) static constexpr std::uint16_t kUpper[32] = {
      1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
      33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return _mm512_permutex2var_epi16(upper_halves(from), _mm512_load_si512(kUpper),
                                   upper_halves(from + kSide));
}

template <class Element>
Unit unit_of(Element even, Element odd) {
  return upper_half(even) >> 16 | (upper_half(odd) & 0xffff0000U);
}

// Units of k [2 * first, +2 * count) of one row, zeros behind `depth`.
template <class Element>
void take_row(const Element* row, Index depth, Index first, Index count, Unit* to) {
  for (Index u = 0; u < count; ++u) {
    const Index k = 2 * (first + u);
    to[u] = k >= depth ? 0U : unit_of(row[k], k + 1 < depth ? row[k + 1] : Element{0});
  }
}

// Where rows lie by multiples of 4 KiB, sixteen of them share a set of the first cache, which has
// eight ways or twelve: eight rows at a time.
//
// to[u * to_stride + r] = row r's unit u, eight rows.
TUTTI_WIDE_INLINE void turn_half(const std::byte* from, Index row_bytes, Unit* to,
                                 Index to_stride) {
  const auto four = [&](Index row, Index unit) __attribute__((always_inline)) {
    return _mm_loadu_si128(
        reinterpret_cast<const __m128i*>(from + row * row_bytes + unit * Index{sizeof(Unit)}));
  };
#pragma GCC unroll 2
  for (Index u = 0; u < kSide; u += 8) {
    __m512i rows[4];
#pragma GCC unroll 4
    for (Index r = 0; r < 4; ++r) {
      // Rows r and r + 4 of units u to u + 3, then of u + 4 to u + 7.
      const __m512i first = _mm512_castsi128_si512(four(r, u));
      const __m512i second = _mm512_inserti32x4(first, four(r + 4, u), 1);
      const __m512i third = _mm512_inserti32x4(second, four(r, u + 4), 2);
      rows[r] = _mm512_inserti32x4(third, four(r + 4, u + 4), 3);
    }
    const __m512i low01 = _mm512_unpacklo_epi32(rows[0], rows[1]);
    const __m512i low23 = _mm512_unpacklo_epi32(rows[2], rows[3]);
    const __m512i high01 = _mm512_unpackhi_epi32(rows[0], rows[1]);
    const __m512i high23 = _mm512_unpackhi_epi32(rows[2], rows[3]);
    const __m512i turned[4] = {
        _mm512_unpacklo_epi64(low01, low23), _mm512_unpackhi_epi64(low01, low23),
        _mm512_unpacklo_epi64(high01, high23), _mm512_unpackhi_epi64(high01, high23)};
#pragma GCC unroll 4
    for (Index i = 0; i < 4; ++i) {
      Unit* const place = to + (u + i) * to_stride;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(place), _mm512_castsi512_si256(turned[i]));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(place + 4 * to_stride),
                          _mm512_extracti64x4_epi64(turned[i], 1));
    }
  }
}

TUTTI_WIDE_INLINE void turn_square(const void* from, Index row_bytes, Unit* to, Index to_stride) {
  const auto* const first = static_cast<const std::byte*>(from);
  turn_half(first, row_bytes, to, to_stride);
  turn_half(first + 8 * row_bytes, row_bytes, to + 8, to_stride);
}

// A square of units of `rows` rows whose k lie side by side, turned.
TUTTI_WIDE_INLINE void turn_whole(const Bf16* from, Index stride, Unit* to, Index to_stride) {
  turn_square(from, stride * Index{sizeof(Bf16)}, to, to_stride);
}
TUTTI_WIDE_INLINE void turn_whole(const float* from, Index stride, Unit* to, Index to_stride) {
  alignas(64) Unit square[kSquare];
  for (Index r = 0; r < kSide; ++r) {
    _mm512_store_si512(square + r * kSide, narrowed(from + r * stride));
  }
  turn_square(square, kSide * Index{sizeof(Unit)}, to, to_stride);
}

// Units of sixteen rows at most from `first` on, [16 rows][16 units], zeros where there is nothing.
template <class Element>
void take_edge(const BasicMatrix<const Element>& rows, Index first, Unit* to) {
  std::fill_n(to, kSquare, 0U);
  for (Index r = 0; r < rows.rows; ++r) {
    take_row(rows.row(r), rows.columns, first, kSide, to + r * kSide);
  }
}

// The same of rows that are columns: tiles of [16 units][16 columns], two of them together, then
// `step` units on. Rows lie too far apart for the machine to foresee: those of the next group are
// asked for.
template <class Element>
TUTTI_WIDE void join_group(const BasicMatrix<const Element>& part, Index first, Unit* to,
                           Index step) {
  const Index whole = part.columns / kSide * kSide;
  const Index bytes = part.columns * Index{sizeof(Element)};
  for (Index u = 0; u < kSide; ++u) {
    const Index k = 2 * (first + u);
    const auto row_at = [&](Index column) {
      return to + column / (2 * kSide) * step + column / kSide % 2 * kSquare + u * kSide;
    };
    Index c = 0;
    if (k + 1 < part.rows) {
      const Element* const even = part.row(k);
      const Element* const odd = even + part.stride;
      const auto ahead = reinterpret_cast<std::uintptr_t>(part.row(k)) +
                         static_cast<std::uintptr_t>(kGroupDepth * part.stride) * sizeof(Element);
      const auto odd_ahead = ahead + static_cast<std::uintptr_t>(part.stride) * sizeof(Element);
      for (Index byte = 0; byte < bytes; byte += kLine) {
        const auto at = static_cast<std::uintptr_t>(byte);
        _mm_prefetch(reinterpret_cast<const char*>(ahead + at), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(odd_ahead + at), _MM_HINT_T0);
      }
      for (; c < whole; c += kSide) _mm512_store_si512(row_at(c), joined(even + c, odd + c));
    }
    for (; c < part.columns; c += kSide) {
      Unit* const row = row_at(c);
      const Index there = k < part.rows ? std::min(kSide, part.columns - c) : 0;
      for (Index i = 0; i < there; ++i) {
        row[i] =
            unit_of(part.row(k)[c + i], k + 1 < part.rows ? part.row(k + 1)[c + i] : Element{0});
      }
      std::fill(row + there, row + kSide, 0U);
    }
  }
}

template <class Element>
TUTTI_WIDE void left_inside(const BasicMatrix<const Element>& rows, const Stretch& groups,
                            Unit* to) {
  const Index depth = rows.columns;
  for (Index g = groups.first; g < groups.first + groups.depth; ++g, to += kSquare) {
    if (rows.rows < kSide || (g + 1) * kGroupDepth > depth) {
      take_edge(rows, g * kSide, to);
      continue;
    }
    const Element* const from = rows.data + g * kGroupDepth;
    for (Index r = 0; r < kSide; ++r) {
      _mm512_store_si512(to + r * kSide, narrowed(from + r * rows.stride));
    }
  }
}

// Up to kPanel rows of the product, as columns of x.
template <class Element>
TUTTI_WIDE void left_outside(const BasicMatrix<const Element>& part, const Stretch& groups,
                             Unit* to) {
  alignas(64) Unit block[kSide * kPanel];
  const Index tiles = (part.columns + kSide - 1) / kSide;
  for (Index g = 0; g < groups.depth; ++g) {
    join_group(part, (groups.first + g) * kSide, block, 2 * kSquare);
    for (Index t = 0; t < tiles; ++t) {
      turn_square(block + t * kSquare, kSide * Index{sizeof(Unit)},
                  to + (t * groups.depth + g) * kSquare, kSide);
    }
  }
}

template <class Element>
TUTTI_WIDE void right_inside(const BasicMatrix<const Element>& columns, const Stretch& groups,
                             Unit* to) {
  for (Index column = 0; column < columns.rows; column += kSide) {
    const Index width = std::min(kSide, columns.rows - column);
    const auto part = columns.row_range(column, width);
    Unit* const tiles =
        to + column / (2 * kSide) * 2 * groups.depth * kSquare + column / kSide % 2 * kSquare;
    for (Index g = 0; g < groups.depth; ++g) {
      Unit* const place = tiles + g * 2 * kSquare;
      const Index group = groups.first + g;
      if (width == kSide && (group + 1) * kGroupDepth <= columns.columns) {
        turn_whole(part.data + group * kGroupDepth, part.stride, place, kSide);
      } else {
        alignas(64) Unit square[kSquare];
        take_edge(part, group * kSide, square);
        turn_square(square, kSide * Index{sizeof(Unit)}, place, kSide);
      }
    }
  }
}

template <class Element>
void left_tiles(const TileOperand<Element>& x, const Stretch& rows, const Stretch& groups,
                Unit* to) {
  const bool inside = x.order == DepthOrder::inside;
  const Index together = inside ? kSide : kPanel;
  for (Index row = 0; row < rows.depth; row += together) {
    const Index count = std::min(together, rows.depth - row);
    Unit* const tiles = to + row * kSide * groups.depth;
    if (inside) {
      left_inside(x.x.row_range(rows.first + row, count), groups, tiles);
    } else {
      left_outside(x.x.column_range(rows.first + row, count), groups, tiles);
    }
  }
}

template <class Element>
void right_tiles(const TileOperand<Element>& x, const Stretch& columns, const Stretch& groups,
                 Unit* to) {
  if (x.order == DepthOrder::inside) {
    return right_inside(x.x.row_range(columns.first, columns.depth), groups, to);
  }
  const auto part = x.x.column_range(columns.first, columns.depth);
  const Index step = 2 * groups.depth * kSquare;
  for (Index g = 0; g < groups.depth; ++g) {
    join_group(part, (groups.first + g) * kSide, to + g * 2 * kSquare, step);
  }
}

}  // namespace

void pack_left_tiles(const TileOperand<Bf16>& x, const Stretch& rows, const Stretch& groups,
                     Unit* to) {
  left_tiles(x, rows, groups, to);
}
void pack_left_tiles(const TileOperand<float>& x, const Stretch& rows, const Stretch& groups,
                     Unit* to) {
  left_tiles(x, rows, groups, to);
}
void pack_right_tiles(const TileOperand<Bf16>& x, const Stretch& columns, const Stretch& groups,
                      Unit* to) {
  right_tiles(x, columns, groups, to);
}
void pack_right_tiles(const TileOperand<float>& x, const Stretch& columns, const Stretch& groups,
                      Unit* to) {
  right_tiles(x, columns, groups, to);
}

}  // namespace tutti::kernels
