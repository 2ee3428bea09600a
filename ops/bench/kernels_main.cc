// The CPU kernels at the shapes of the demo and of GPT-2 124M: products beside BLIS and oneDNN, the
// other ops alone, each as a share of the fused multiply-add peak measured in the same run.
//
//   bench_kernels [--quick] [--threads N]
#include <immintrin.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>

#include "kernels/ops/cpu_path.h"
#include "kernels/tensor/buffer.h"
#include "ops/bench/kernels_cases.h"

namespace tutti::bench {
namespace {

// Twelve independent chains keep both units of a core busy; 256-bit, which is also the rate of
// 512-bit ones on Zen 4.
float peak_loop(long rounds) {
  __m256 sum[12];
  for (__m256& s : sum) s = _mm256_set1_ps(1.0F);
  const __m256 factor = _mm256_set1_ps(0.999F);
  for (long round = 0; round < rounds; ++round) {
    __asm__ volatile(
        "vfmadd213ps %12, %12, %0\n vfmadd213ps %12, %12, %1\n vfmadd213ps %12, %12, %2\n"
        "vfmadd213ps %12, %12, %3\n vfmadd213ps %12, %12, %4\n vfmadd213ps %12, %12, %5\n"
        "vfmadd213ps %12, %12, %6\n vfmadd213ps %12, %12, %7\n vfmadd213ps %12, %12, %8\n"
        "vfmadd213ps %12, %12, %9\n vfmadd213ps %12, %12, %10\n vfmadd213ps %12, %12, %11\n"
        : "+x"(sum[0]), "+x"(sum[1]), "+x"(sum[2]), "+x"(sum[3]), "+x"(sum[4]), "+x"(sum[5]),
          "+x"(sum[6]), "+x"(sum[7]), "+x"(sum[8]), "+x"(sum[9]), "+x"(sum[10]), "+x"(sum[11])
        : "x"(factor));
  }
  float total = 0.0F;
  for (const __m256& s : sum) total += s[0];
  return total;
}

double peak_gflops(kernels::ThreadPool& pool) {
  constexpr long kRounds = 200000;
  volatile float sink = 0.0F;
  const std::vector<std::function<void()>> loop = {[&] {
    pool.parallel_for(pool.threads(), 1,
                      [&](int, kernels::Index, kernels::Index) { sink = peak_loop(kRounds); });
  }};
  const auto samples = measure(loop, 0.2);
  return kRounds * 12.0 * 16.0 * pool.threads() / samples[0].at(0.0) * 1e-9;
}

int run(const Options& options) {
  kernels::ThreadPool pool(options.threads);
  const Bench bench{kernels::OpContext{&pool}, options, peak_gflops(pool)};
  std::fprintf(stderr, "path %s, %d thread(s), peak %.1f GFLOP/s\n",
               std::string(to_string(kernels::cpu_path())).c_str(), options.threads,
               bench.peak_gflops);
  bench_products(bench);
  bench_ops(bench);
  return 0;
}

}  // namespace
}  // namespace tutti::bench

int main(int argc, char** argv) {
  tutti::bench::Options options;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0) {
      options.seconds = 0.1;
    } else if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      options.threads = std::max(1, std::atoi(argv[++i]));
    } else {
      std::fprintf(stderr, "usage: bench_kernels [--quick] [--threads N]\n");
      return 2;
    }
  }
  // The peers read their thread counts when they are loaded: set them, and start over.
  const std::string threads = std::to_string(options.threads);
  const char* const set = std::getenv("OMP_NUM_THREADS");
  if (set == nullptr || threads != set) {
    setenv("OMP_NUM_THREADS", threads.c_str(), 1);
    setenv("BLIS_NUM_THREADS", threads.c_str(), 1);
    execv("/proc/self/exe", argv);
  }
  return tutti::bench::run(options);
}
