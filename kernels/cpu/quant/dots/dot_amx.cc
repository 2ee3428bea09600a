// int8 by int8 with AMX: tiles of sixteen rows by sixteen outputs, 64 inputs an instruction. The
// sums are of integers, so the bits are those of every other path.
//
// Compiled for that instruction set and called only where the machine has it.
#include <algorithm>

#include "kernels/cpu/quant/dots/amx_tiles.h"
#include "kernels/cpu/quant/dots/group_dot.h"
#include "kernels/cpu/quant/dots/vnni.h"

namespace tutti::kernels {

namespace {

constexpr Index kTileRows = 16;
constexpr Index kTileInputs = 64;
constexpr Index kTileBytes = kTileRows * kTileInputs;
constexpr int kGroupsAtOnce = 2;

// Eight registers of sixteen rows of 64 bytes.
constexpr TileConfig kShapes{.row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                             .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

// Tiles 0 to 3: sums, of the first and the second sixteen rows by both groups; 4, 5: rows; 6, 7:
// groups.
template <bool kBothRows, bool kBothGroups>
inline void add_step(const std::int8_t* x, Index x_stride, const std::uint8_t* codes,
                     Index group_step) {
  _tile_loadd(4, x, x_stride);
  _tile_loadd(6, codes, 64);
  _tile_dpbsud(0, 4, 6);
  if constexpr (kBothGroups) {
    _tile_loadd(7, codes + group_step, 64);
    _tile_dpbsud(1, 4, 7);
  }
  if constexpr (kBothRows) {
    _tile_loadd(5, x + kTileRows * x_stride, x_stride);
    _tile_dpbsud(2, 5, 6);
    if constexpr (kBothGroups) _tile_dpbsud(3, 5, 7);
  }
}

// The last half of a step, where inputs are an odd number of cells: the rest is zeros.
template <bool kBothRows, bool kBothGroups>
inline void add_half_step(const std::int8_t* x, Index x_stride, const std::uint8_t* codes,
                          Index group_step) {
  alignas(64) std::int8_t rows[2 * kTileBytes] = {};
  alignas(64) std::uint8_t groups[2 * kTileBytes] = {};
  for (Index r = 0; r < (kBothRows ? 2 : 1) * kTileRows; ++r) {
    std::memcpy(rows + r * kTileInputs, x + r * x_stride, kCell);
  }
  for (Index g = 0; g < (kBothGroups ? 2 : 1); ++g) {
    std::memcpy(groups + g * kTileBytes, codes + g * group_step, kTileBytes / 2);
  }
  settle();
  add_step<kBothRows, kBothGroups>(rows, kTileInputs, groups, kTileBytes);
}

// Sums of one piece of the inputs for all rows, in whole tiles of rows.
struct Piece {
  Index begin, end;           // of the inputs
  const std::uint8_t* ahead;  // what is read after these codes, if anything
};

template <bool kBothRows, bool kBothGroups>
inline void run_tiles(const GroupCall& call, Index row, Index group, const Piece& piece,
                      std::int32_t* sums) {
  constexpr CellLayout kLayout = layout_of(WeightFormat::int8_channel);
  constexpr Index kRowBytes = kGroupsAtOnce * kGroup * 4;
  const Index step = kLayout.group_bytes(call.cells);
  const Index inputs = call.cells * kCell;
  const std::int8_t* const x = call.x + row * inputs;
  const std::uint8_t* const codes = call.group + group * step + kLayout.header;
  std::int32_t* const lower = sums + kTileRows * kGroupsAtOnce * kGroup;
  if (piece.begin == 0) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, kRowBytes);
    if constexpr (kBothGroups) _tile_loadd(1, sums + kGroup, kRowBytes);
    if constexpr (kBothRows) _tile_loadd(2, lower, kRowBytes);
    if constexpr (kBothRows && kBothGroups) _tile_loadd(3, lower + kGroup, kRowBytes);
  }
  Index k = piece.begin;
  for (; k + kTileInputs <= piece.end; k += kTileInputs) {
    if (piece.ahead != nullptr) {
      for (Index g = 0; g < (kBothGroups ? 2 : 1); ++g) {
        for (Index line = 0; line < kTileBytes; line += 64) {
          __builtin_prefetch(piece.ahead + g * step + k * kGroup + line, 0, 2);
        }
      }
    }
    add_step<kBothRows, kBothGroups>(x + k, inputs, codes + k * kGroup, step);
  }
  if (k < piece.end) {
    add_half_step<kBothRows, kBothGroups>(x + k, inputs, codes + k * kGroup, step);
  }
  _tile_stored(0, sums, kRowBytes);
  if constexpr (kBothGroups) _tile_stored(1, sums + kGroup, kRowBytes);
  if constexpr (kBothRows) _tile_stored(2, lower, kRowBytes);
  if constexpr (kBothRows && kBothGroups) _tile_stored(3, lower + kGroup, kRowBytes);
}

// Rows whose sums wait on the stack between two pieces, and inputs of a piece: the codes of two
// groups stay in the first cache while all rows pass by.
constexpr Index kRowsAtOnce = 128;
constexpr Index kInputsAtOnce = 512;

template <bool kBothGroups>
void run_rows(const GroupCall& call, Index first, Index rows, Index group) {
  constexpr CellLayout kLayout = layout_of(WeightFormat::int8_channel);
  alignas(64) std::int32_t sums[kRowsAtOnce * kGroupsAtOnce * kGroup];
  const Index inputs = call.cells * kCell;
  for (Index k = 0; k < inputs; k += kInputsAtOnce) {
    Piece piece{k, std::min(inputs, k + kInputsAtOnce), nullptr};
    if (first == 0 && call.next != nullptr) {
      piece.ahead = call.next + group * kLayout.group_bytes(call.cells) + kLayout.header;
    }
    Index row = 0;
    for (; row + 2 * kTileRows <= rows; row += 2 * kTileRows) {
      run_tiles<true, kBothGroups>(call, first + row, group, piece,
                                   sums + row * kGroupsAtOnce * kGroup);
      piece.ahead = nullptr;
    }
    if (row < rows) {
      run_tiles<false, kBothGroups>(call, first + row, group, piece,
                                    sums + row * kGroupsAtOnce * kGroup);
    }
  }
  settle();
  constexpr Index kGroups = kBothGroups ? kGroupsAtOnce : 1;
  for (Index row = 0; row < rows; ++row) {
    Vnni::Ints totals[kGroups];
    for (Index g = 0; g < kGroups; ++g) {
      totals[g] = _mm512_load_si512(sums + (row * kGroupsAtOnce + g) * kGroup);
    }
    scale_channel<Vnni>(call, {first + row, 1}, {group, kGroups}, totals);
  }
}

// The call without its first rows.
GroupCall rows_from(GroupCall call, Index row) {
  call.rows -= row;
  call.x += row * call.cells * kCell;
  call.scales += row * call.cells;
  call.halves += row * 2 * call.cells;
  call.sums += row * call.sums_stride;
  if (call.terms != nullptr) call.terms += row * call.cells;
  if (row > 0) call.next = nullptr;
  return call;
}

void amx_channel_dot(const GroupCall& call) {
  const Index tiled = call.rows / kTileRows * kTileRows;
  if (tiled > 0) {
    _tile_loadconfig(&kShapes);
    for (Index first = 0; first < tiled; first += kRowsAtOnce) {
      const Index rows = std::min(kRowsAtOnce, tiled - first);
      Index group = 0;
      for (; group + kGroupsAtOnce <= call.groups; group += kGroupsAtOnce) {
        run_rows<true>(call, first, rows, group);
      }
      for (; group < call.groups; ++group) run_rows<false>(call, first, rows, group);
    }
    _tile_release();
  }
  if (tiled < call.rows) channel_dot<Vnni>(rows_from(call, tiled));
}

}  // namespace

GroupDot amx_dot(WeightFormat format) {
  return format == WeightFormat::int8_channel ? amx_channel_dot : dot_of<Vnni>(format);
}

}  // namespace tutti::kernels
