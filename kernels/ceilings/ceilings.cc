#include "kernels/ceilings/ceilings.h"

#include <immintrin.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <ctime>
#include <functional>
#include <limits>

#include "kernels/ops/cpu_path.h"
#include "kernels/tensor/buffer.h"
#include "protocol/base/cpu_features.h"

namespace tutti::kernels {

namespace {

constexpr long kRounds = 200000;
constexpr double kChains = 12.0;
constexpr int kLoopsMin = 3;

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
void int8_loop(long rounds) { TUTTI_LOOP(TUTTI_ZEROS, TUTTI_CHAINS("vpdpbusd", TUTTI_ZMM)); }
// Four tiles of sums, three times; the registers are handed back as they were.
#define TUTTI_TILES                                                       \
  "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n tdpbf16ps %%tmm7, %%tmm4, %%tmm1\n" \
  "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n tdpbf16ps %%tmm7, %%tmm5, %%tmm3\n"
void bf16_tiles_loop(long rounds) {
  // Palette 1, and of each register 64 bytes a row and 16 rows (ldtilecfg's layout).
  alignas(64) std::array<std::uint8_t, 64> config = {1};
  alignas(64) std::array<std::uint8_t, 64> before = {};
  for (std::size_t t = 0; t < 8; ++t) {
    config[16 + 2 * t] = 64;
    config[48 + t] = 16;
  }
  __asm__ volatile("sttilecfg %0\n ldtilecfg %1\n" : "=m"(before) : "m"(config));
  __asm__ volatile("1:\n" TUTTI_TILES TUTTI_TILES TUTTI_TILES "dec %0\n jnz 1b\n"
                   : "+r"(rounds)
                   :
                   : "cc");
  __asm__ volatile("ldtilecfg %0\n" : : "m"(before));
}
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

// Of the calling thread, or of the clock on the wall.
double seconds_of(const ThreadPool& pool) {
  timespec time = {};
  clock_gettime(pool.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Seconds of the fastest loop, after one to warm up.
double fastest(const ThreadPool& pool, Duration seconds, const std::function<void()>& loop) {
  loop();
  double least = std::numeric_limits<double>::infinity();
  const Instant end = monotonic_now() + seconds;
  for (int i = 0; i < kLoopsMin || monotonic_now() < end; ++i) {
    const double begin = seconds_of(pool);
    loop();
    least = std::min(least, seconds_of(pool) - begin);
  }
  return least;
}

// `operations`: of one instruction of a chain.
double loop_ceiling(ThreadPool& pool, Duration seconds, void (*loop)(long), double operations) {
  const double took = fastest(pool, seconds, [&] {
    pool.parallel_for(pool.threads(), 1, [&](int, Index, Index) { loop(kRounds); });
  });
  return kRounds * kChains * operations * pool.threads() / took * 1e-9;
}

enum class Pages { huge, small };

double read_ceiling(ThreadPool& pool, Duration seconds, Index floats, Pages pages) {
  FloatBuffer memory(floats);
  if (pages == Pages::small) {
    madvise(memory.data(), static_cast<std::size_t>(floats) * sizeof(float), MADV_NOHUGEPAGE);
  }
  const Index piece = std::min<Index>(floats / pool.threads(), 1 << 18);
  std::fill_n(memory.data(), floats, 1.0F);
  const double took = fastest(pool, seconds, [&] {
    pool.parallel_for(floats, piece, [&](int, Index begin, Index end) {
      __m256 sum[8] = {};
      for (Index i = begin; i + 64 <= end; i += 64) {
        for (int v = 0; v < 8; ++v) {
          sum[v] = _mm256_add_ps(sum[v], _mm256_loadu_ps(memory.data() + i + v * 8));
        }
      }
      for (int v = 1; v < 8; ++v) sum[0] = _mm256_add_ps(sum[0], sum[v]);
      volatile float keep = _mm256_cvtss_f32(sum[0]);
      static_cast<void>(keep);
    });
  });
  return static_cast<double>(floats) * sizeof(float) / took * 1e-9;
}

Index cache_floats(int name) {
  const long bytes = ::sysconf(name);
  return bytes > 0 ? bytes / static_cast<Index>(sizeof(float)) : 0;
}

// Four times the third cache, but not of a machine whose cache is larger than our patience.
Index memory_floats() {
  constexpr Index kMin = Index{64} << 20;
  constexpr Index kMax = Index{256} << 20;
  return std::clamp(4 * cache_floats(_SC_LEVEL3_CACHE_SIZE), kMin, kMax);
}

}  // namespace

Ceiling fp32_ceiling(ThreadPool& pool, Duration seconds) {
  switch (cpu_path()) {
    case CpuPath::scalar: return loop_ceiling(pool, seconds, fp32_scalar_loop, 2.0);
    case CpuPath::avx2: return loop_ceiling(pool, seconds, fp32_ymm_loop, 16.0);
    default: return loop_ceiling(pool, seconds, fp32_zmm_loop, 32.0);
  }
}

Ceiling bf16_ceiling(ThreadPool& pool, Duration seconds) {
  if (cpu_path() != CpuPath::avx512bf16) return std::nullopt;
  return loop_ceiling(pool, seconds, bf16_loop, 64.0);
}

Ceiling bf16_tiles_ceiling(ThreadPool& pool, Duration seconds) {
  if (cpu_path() != CpuPath::avx512bf16 || !has_amx_bf16()) return std::nullopt;
  return loop_ceiling(pool, seconds, bf16_tiles_loop, 16384.0);
}

Ceiling int8_ceiling(ThreadPool& pool, Duration seconds) {
  if (cpu_path() == CpuPath::scalar) return std::nullopt;
  if (cpu_path() != CpuPath::avx2 && __builtin_cpu_supports("avx512vnni") != 0) {
    return loop_ceiling(pool, seconds, int8_loop, 128.0);
  }
  return loop_ceiling(pool, seconds, int8_ymm_loop, 64.0);
}

Ceiling second_cache_ceiling(ThreadPool& pool, Duration seconds) {
  const Index floats = cache_floats(_SC_LEVEL2_CACHE_SIZE) / 2;
  if (floats == 0) return std::nullopt;
  return read_ceiling(pool, seconds, floats * pool.threads(), Pages::huge);
}

Ceiling third_cache_ceiling(ThreadPool& pool, Duration seconds) {
  const Index floats = cache_floats(_SC_LEVEL3_CACHE_SIZE) / 2;
  if (floats == 0) return std::nullopt;
  return read_ceiling(pool, seconds, floats, Pages::huge);
}

Ceiling memory_ceiling(ThreadPool& pool, Duration seconds) {
  return read_ceiling(pool, seconds, memory_floats(), Pages::huge);
}

Ceiling small_pages_ceiling(ThreadPool& pool, Duration seconds) {
  return read_ceiling(pool, seconds, memory_floats(), Pages::small);
}

std::span<const CeilingKind> ceiling_kinds() {
  static constexpr CeilingKind kKinds[] = {
      {"fp32 multiply-add", "GFLOP/s", fp32_ceiling},
      {"bf16 pairs", "GFLOP/s", bf16_ceiling},
      {"bf16 tiles", "GFLOP/s", bf16_tiles_ceiling},
      {"int8 quads", "GOP/s", int8_ceiling},
      {"read, second cache", "GB/s", second_cache_ceiling},
      {"read, third cache", "GB/s", third_cache_ceiling},
      {"read, memory", "GB/s", memory_ceiling},
      {"read, memory in small pages", "GB/s", small_pages_ceiling},
  };
  return kKinds;
}

}  // namespace tutti::kernels
