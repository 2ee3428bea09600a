// What products by AMX tiles share. For sources that are compiled for AMX and called only where the
// machine has it (protocol/base/cpu_features.h).
#pragma once

#include <cstdint>

namespace tutti::kernels {
namespace {

// What LDTILECFG reads, of palette 1: bytes of a row and rows of each of the tile registers.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// The instructions are opaque to the compiler: what they read has been written by then, and what
// they wrote is read after them.
inline void settle() { __asm__ volatile("" ::: "memory"); }

}  // namespace
}  // namespace tutti::kernels
