#include "ops/bench/kernels_ceilings.h"

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/ops/cpu_path.h"
#include "kernels/tensor/buffer.h"
#include "ops/bench/kernels_cases.h"
#include "ops/bench/samples.h"

namespace tutti::bench {

using kernels::CpuPath;

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

// As the cases are measured (Bench::clock): a busy machine lowers both or neither.
Clock clock_of(const kernels::ThreadPool& pool) {
  return pool.threads() == 1 ? Clock::thread : Clock::wall;
}

// `operations`: of one instruction of a chain.
double loop_gops(kernels::ThreadPool& pool, void (*loop)(long), double operations) {
  const std::vector<std::function<void()>> runs = {[&] {
    pool.parallel_for(pool.threads(), 1,
                      [&](int, kernels::Index, kernels::Index) { loop(kRounds); });
  }};
  const auto samples = measure(runs, 0.2, clock_of(pool));
  return kRounds * kChains * operations * pool.threads() / samples[0].at(0.0) * 1e-9;
}

void print_one(const char* name, const char* unit, double value) {
  std::printf(R"({"bench":"kernels/ceilings","case":"%s","unit":"%s","value":%.1f})"
              "\n",
              name, unit, value);
}

}  // namespace

double fp32_gflops(kernels::ThreadPool& pool) {
  switch (kernels::cpu_path()) {
    case CpuPath::scalar: return loop_gops(pool, fp32_scalar_loop, 2.0);
    case CpuPath::avx2: return loop_gops(pool, fp32_ymm_loop, 16.0);
    default: return loop_gops(pool, fp32_zmm_loop, 32.0);
  }
}

double bf16_gops(kernels::ThreadPool& pool) {
  return kernels::cpu_path() == CpuPath::avx512bf16 ? loop_gops(pool, bf16_loop, 64.0) : 0.0;
}

double int8_gops(kernels::ThreadPool& pool) {
  switch (kernels::cpu_path()) {
    case CpuPath::scalar: return 0.0;
    case CpuPath::avx2: return loop_gops(pool, int8_ymm_loop, 64.0);
    default: break;
  }
  return __builtin_cpu_supports("avx512vnni") ? loop_gops(pool, int8_loop, 128.0)
                                              : loop_gops(pool, int8_ymm_loop, 64.0);
}

double read_speed(kernels::ThreadPool& pool, kernels::Index floats, Pages pages) {
  kernels::FloatBuffer memory(floats);
  if (pages == Pages::small) {
    madvise(memory.data(), static_cast<std::size_t>(floats) * sizeof(float), MADV_NOHUGEPAGE);
  }
  const kernels::Index piece = std::min<kernels::Index>(floats / pool.threads(), 1 << 18);
  std::fill_n(memory.data(), floats, 1.0F);
  const std::vector<std::function<void()>> loop = {[&] {
    pool.parallel_for(floats, piece, [&](int, kernels::Index begin, kernels::Index end) {
      __m256 sum[8] = {};
      for (kernels::Index i = begin; i + 64 <= end; i += 64) {
        for (int v = 0; v < 8; ++v) {
          sum[v] = _mm256_add_ps(sum[v], _mm256_loadu_ps(memory.data() + i + v * 8));
        }
      }
      for (int v = 1; v < 8; ++v) sum[0] = _mm256_add_ps(sum[0], sum[v]);
      volatile float keep = _mm256_cvtss_f32(sum[0]);
      static_cast<void>(keep);
    });
  }};
  const auto samples = measure(loop, 0.2, clock_of(pool));
  return static_cast<double>(floats) * sizeof(float) / samples[0].at(0.0) * 1e-9;
}

void print_ceilings(const Bench& bench) {
  kernels::ThreadPool& pool = *bench.ctx.pool;
  const kernels::Index kib = 256;
  print_one("fp32 multiply-add", "GFLOP/s", bench.peak_gflops);
  print_one("bf16 pairs", "GFLOP/s", bench.bf16_gops);
  print_one("int8 quads", "GOP/s", bench.int8_gops);
  print_one("read, 512 KiB a thread", "GB/s",
            read_speed(pool, 512 * kib * pool.threads(), Pages::huge));
  print_one("read, 8 MiB", "GB/s", read_speed(pool, 8192 * kib, Pages::huge));
  print_one("read, 256 MiB", "GB/s", bench.read_gbps);
  print_one("read, 256 MiB in small pages", "GB/s", read_speed(pool, 262144 * kib, Pages::small));
}

}  // namespace tutti::bench
