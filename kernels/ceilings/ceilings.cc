#include "kernels/ceilings/ceilings.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "kernels/ceilings/fastest.h"
#include "kernels/ops/cpu_path.h"
#include "protocol/base/cpu_features.h"

namespace tutti::kernels {

namespace {

constexpr long kRounds = 200000;
constexpr double kChains = 12.0;

// Twelve independent chains keep the units of a core busy; in assembly, as no more is wanted of the
// compiler. Of zeros, which no unit takes its time for. The machine has the instructions where
// these are called.
#define TUTTI_CHAINS(instruction, of)                                           \
  instruction of "0\n" instruction of "1\n" instruction of "2\n" instruction of \
                 "3\n" instruction of "4\n" instruction of "5\n" instruction of \
                 "6\n" instruction of "7\n" instruction of "8\n" instruction of \
                 "9\n" instruction of "10\n" instruction of "11\n"
#define TUTTI_LOOP(prepare, chains)                                                          \
  __asm__ volatile(prepare "1:\n" chains "dec %0\n jnz 1b\n"                                 \
                   : "+r"(rounds)                                                            \
                   :                                                                         \
                   : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
                     "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc")

void fp32_scalar_loop(long rounds) {
  TUTTI_LOOP("vzeroall\n", TUTTI_CHAINS("vfmadd231ss", " %%xmm15, %%xmm14, %%xmm"));
}
void fp32_ymm_loop(long rounds) {
  TUTTI_LOOP("vzeroall\n", TUTTI_CHAINS("vfmadd231ps", " %%ymm15, %%ymm14, %%ymm"));
}
#define TUTTI_ZEROS "vpxord %%zmm30, %%zmm30, %%zmm30\n vpxord %%zmm31, %%zmm31, %%zmm31\n"
#define TUTTI_ZMM " %%zmm31, %%zmm30, %%zmm"
void fp32_zmm_loop(long rounds) {
  TUTTI_LOOP("vzeroall\n" TUTTI_ZEROS, TUTTI_CHAINS("vfmadd231ps", TUTTI_ZMM));
}
void bf16_loop(long rounds) { TUTTI_LOOP(TUTTI_ZEROS, TUTTI_CHAINS("vdpbf16ps", TUTTI_ZMM)); }
// Four tiles of sums, three times.
#define TUTTI_TILES(product)                                                      \
  product " %%tmm6, %%tmm4, %%tmm0\n" product " %%tmm7, %%tmm4, %%tmm1\n" product \
          " %%tmm6, %%tmm5, %%tmm2\n" product " %%tmm7, %%tmm5, %%tmm3\n"
#define TUTTI_TILES_LOOP(product) \
  __asm__ volatile("1:\n" TUTTI_TILES(product) TUTTI_TILES(product) TUTTI_TILES(product) "dec " \
                   "%0\n jnz 1b\n"                                                             \
                   : "+r"(rounds)                                                              \
                   :                                                                           \
                   : "cc")
// The registers' shapes, and back to what they were.
class TileShapes {
 public:
  TileShapes() {
    // Palette 1, and of each register 64 bytes a row and 16 rows (ldtilecfg's layout).
    alignas(64) std::array<std::uint8_t, 64> shapes = {1};
    for (std::size_t tile = 0; tile < 8; ++tile) {
      shapes[16 + 2 * tile] = 64;
      shapes[48 + tile] = 16;
    }
    __asm__ volatile("sttilecfg %0\n ldtilecfg %1\n" : "=m"(before_) : "m"(shapes));
  }
  TileShapes(const TileShapes&) = delete;
  TileShapes& operator=(const TileShapes&) = delete;
  ~TileShapes() { __asm__ volatile("ldtilecfg %0\n" : : "m"(before_)); }

 private:
  alignas(64) std::array<std::uint8_t, 64> before_ = {};
};
void bf16_tiles_loop(long rounds) {
  const TileShapes shapes;
  TUTTI_TILES_LOOP("tdpbf16ps");
}
void int8_tiles_loop(long rounds) {
  const TileShapes shapes;
  TUTTI_TILES_LOOP("tdpbssd");
}
void int8_loop(long rounds) { TUTTI_LOOP(TUTTI_ZEROS, TUTTI_CHAINS("vpdpbusd", TUTTI_ZMM)); }
// Without VNNI: pairs into 16 bits, pairs of those into 32, and the sum.
#define TUTTI_QUAD(chain)                                                               \
  "vpmaddubsw %%ymm15, %%ymm14, %%ymm12\n vpmaddwd %%ymm13, %%ymm12, %%ymm12\n vpaddd " \
  "%%ymm12, %%ymm" chain ", %%ymm" chain "\n"
void int8_ymm_loop(long rounds) {
  TUTTI_LOOP("vzeroall\n",
             TUTTI_QUAD("0") TUTTI_QUAD("1") TUTTI_QUAD("2") TUTTI_QUAD("3") TUTTI_QUAD("4")
                 TUTTI_QUAD("5") TUTTI_QUAD("6") TUTTI_QUAD("7") TUTTI_QUAD("8") TUTTI_QUAD("9")
                     TUTTI_QUAD("10") TUTTI_QUAD("11"));
}

// `operations`: of one instruction of a chain.
Ceiling loop_ceiling(ThreadPool& pool, const MeasureTime& time, void (*loop)(long),
                     double operations) {
  const std::function<void()> run = [&] {
    pool.parallel_for(pool.threads(), 1, [&](int, Index, Index) { loop(kRounds); });
  };
  return rate_of(kRounds * kChains * operations * pool.threads(),
                 fastest(pool, time, std::span(&run, 1)));
}

}  // namespace

Ceiling fp32_ceiling(ThreadPool& pool, const MeasureTime& time) {
  switch (cpu_path()) {
    case CpuPath::scalar: return loop_ceiling(pool, time, fp32_scalar_loop, 2.0);
    case CpuPath::avx2: return loop_ceiling(pool, time, fp32_ymm_loop, 16.0);
    default: return loop_ceiling(pool, time, fp32_zmm_loop, 32.0);
  }
}

Ceiling bf16_ceiling(ThreadPool& pool, const MeasureTime& time) {
  if (cpu_path() != CpuPath::avx512bf16) return std::nullopt;
  return loop_ceiling(pool, time, bf16_loop, 64.0);
}

Ceiling bf16_tiles_ceiling(ThreadPool& pool, const MeasureTime& time) {
  if (cpu_path() != CpuPath::avx512bf16 || !has_amx_bf16()) return std::nullopt;
  return loop_ceiling(pool, time, bf16_tiles_loop, 16384.0);
}

Ceiling int8_ceiling(ThreadPool& pool, const MeasureTime& time) {
  if (cpu_path() == CpuPath::scalar) return std::nullopt;
  if (cpu_path() == CpuPath::avx512bf16 && has_amx_int8()) {
    return loop_ceiling(pool, time, int8_tiles_loop, 32768.0);
  }
  if (cpu_path() != CpuPath::avx2 && __builtin_cpu_supports("avx512vnni") != 0) {
    return loop_ceiling(pool, time, int8_loop, 128.0);
  }
  return loop_ceiling(pool, time, int8_ymm_loop, 64.0);
}

std::span<const CeilingKind> ceiling_kinds() {
  static constexpr CeilingKind kKinds[] = {
      {"fp32 multiply-add", "GFLOP/s", fp32_ceiling},
      {"bf16 pairs", "GFLOP/s", bf16_ceiling},
      {"bf16 tiles", "GFLOP/s", bf16_tiles_ceiling},
      {"int8 multiply-add", "GOP/s", int8_ceiling},
      {"read, second cache", "GB/s", second_cache_ceiling},
      {"read, third cache", "GB/s", third_cache_ceiling},
      {"read, memory", "GB/s", memory_ceiling},
      {"read, memory in small pages", "GB/s", small_pages_ceiling},
      {"copy, memory", "GB/s", copy_ceiling},
      {"copy past the caches, memory", "GB/s", streamed_copy_ceiling},
      {"update in place, memory", "GB/s", update_ceiling},
  };
  return kKinds;
}

}  // namespace tutti::kernels
