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

namespace {

constexpr long kRounds = 200000;
constexpr double kChains = 12.0;

// Twelve independent chains in assembly, as no more is wanted of the compiler; the machine has the
// instructions where these are called.
#define TUTTI_CHAINS(instruction)                                                                 \
  instruction " %%zmm31, %%zmm30, %%zmm0\n" instruction " %%zmm31, %%zmm30, %%zmm1\n" instruction \
              " %%zmm31, %%zmm30, %%zmm2\n" instruction " %%zmm31, %%zmm30, %%zmm3\n" instruction \
              " %%zmm31, %%zmm30, %%zmm4\n" instruction " %%zmm31, %%zmm30, %%zmm5\n" instruction \
              " %%zmm31, %%zmm30, %%zmm6\n" instruction " %%zmm31, %%zmm30, %%zmm7\n" instruction \
              " %%zmm31, %%zmm30, %%zmm8\n" instruction " %%zmm31, %%zmm30, %%zmm9\n" instruction \
              " %%zmm31, %%zmm30, %%zmm10\n" instruction " %%zmm31, %%zmm30, %%zmm11\n"
#define TUTTI_CLOBBERED                                                                    \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "cc"

void bf16_loop(long rounds) {
  __asm__ volatile("1:\n" TUTTI_CHAINS("vdpbf16ps") "dec %0\n jnz 1b\n"
                   : "+r"(rounds)
                   :
                   : TUTTI_CLOBBERED);
}
void int8_loop(long rounds) {
  __asm__ volatile("1:\n" TUTTI_CHAINS("vpdpbusd") "dec %0\n jnz 1b\n"
                   : "+r"(rounds)
                   :
                   : TUTTI_CLOBBERED);
}

double loop_gops(kernels::ThreadPool& pool, void (*loop)(long), double operations) {
  if (kernels::cpu_path() != kernels::CpuPath::avx512bf16) return 0.0;
  const std::vector<std::function<void()>> runs = {[&] {
    pool.parallel_for(pool.threads(), 1,
                      [&](int, kernels::Index, kernels::Index) { loop(kRounds); });
  }};
  const auto samples = measure(runs, 0.2);
  return kRounds * kChains * operations * pool.threads() / samples[0].at(0.0) * 1e-9;
}

void print_one(const char* name, const char* unit, double value) {
  std::printf(R"({"bench":"kernels/ceilings","case":"%s","unit":"%s","value":%.1f})"
              "\n",
              name, unit, value);
}

}  // namespace

double bf16_gops(kernels::ThreadPool& pool) { return loop_gops(pool, bf16_loop, 64.0); }
double int8_gops(kernels::ThreadPool& pool) { return loop_gops(pool, int8_loop, 128.0); }

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
  const auto samples = measure(loop, 0.2);
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
