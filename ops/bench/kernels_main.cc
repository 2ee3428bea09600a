// The CPU kernels at the shapes of the demo, of GPT-2 124M and of a 7B layer: products beside BLIS,
// oneDNN and PyTorch, the other ops beside PyTorch where it has them, each as a share of the
// arithmetic or the memory ceiling measured in the same run. What is to be bound by memory finds
// its operands there: runs go through as many sets of them as no cache holds (`operands_mb`).
//
// --quick measures each case for a fifth of the time, and leaves out what takes long all the same
// (heads of large vocabularies, more numbers of rows and of sequences).
//
// With one thread, times are of that thread: a busy machine disturbs caches and clocks, not more.
//
// Into a file, lines are added, and cases that it has are left out: a run that was ended goes on
// where it was.
//
// --causes measures parts of ops, which misses of goals are made of, and no ops.
//
//   bench_kernels [--quick] [--threads N] [--only REGEX] [--into FILE] [--causes]
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <utility>

#include "kernels/ceilings/ceilings.h"
#include "kernels/ops/cpu_path.h"
#include "kernels/tensor/buffer.h"
#include "ops/bench/kernels_cases.h"

namespace tutti::bench {
namespace {

constexpr Duration kCeilingTime = std::chrono::milliseconds(200);

int run(const Options& options) {
  describe_setting(
      {.path = std::string(to_string(kernels::cpu_path())), .threads = options.threads});
  kernels::ThreadPool pool(options.threads);
  const auto ceiling = [&](const auto& measure) {
    return measure(pool, kernels::MeasureTime{kCeilingTime}).value_or(0.0);
  };
  std::set<std::string> measured;
  if (!options.into.empty()) {
    measured = measured_in(options.into);
    if (std::freopen(options.into.c_str(), "a", stdout) == nullptr) {
      std::fprintf(stderr, "bench_kernels: cannot write %s\n", options.into.c_str());
      return 1;
    }
  }
  const Bench bench{.ctx = kernels::OpContext{&pool},
                    .options = options,
                    .peak_gflops = ceiling(kernels::fp32_ceiling),
                    .read_gbps = std::max(ceiling(kernels::memory_ceiling),
                                          ceiling(kernels::small_pages_ceiling)),
                    .copy_gbps = std::max({ceiling(kernels::copy_ceiling),
                                           ceiling(kernels::streamed_copy_ceiling),
                                           ceiling(kernels::update_ceiling)}),
                    .bf16_gops = ceiling(kernels::bf16_ceiling),
                    .tiles_gops = ceiling(kernels::bf16_tiles_ceiling),
                    .int8_gops = ceiling(kernels::int8_ceiling),
                    .measured = std::move(measured)};
  std::fprintf(
      stderr, "path %s, %d thread(s), peak %.1f GFLOP/s, memory read %.1f GB/s, copied %.1f GB/s\n",
      std::string(to_string(kernels::cpu_path())).c_str(), options.threads, bench.peak_gflops,
      bench.read_gbps, bench.copy_gbps);
  for (const kernels::CeilingKind& kind : kernels::ceiling_kinds()) {
    const std::string name(kind.name);
    if (options.causes || !options.only.empty() || bench.measured.contains(name)) continue;
    std::printf(R"({"bench":"kernels/ceilings","case":"%s","unit":"%s","value":%.1f,%s})"
                "\n",
                name.c_str(), std::string(kind.unit).c_str(), ceiling(kind.measure),
                where_json().c_str());
  }
  if (options.causes) {
    bench_causes(bench);
    return 0;
  }
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
      options.quick = true;
    } else if (std::strcmp(argv[i], "--causes") == 0) {
      options.causes = true;
    } else if (std::strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
      options.only = argv[++i];
    } else if (std::strcmp(argv[i], "--into") == 0 && i + 1 < argc) {
      options.into = argv[++i];
    } else if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      options.threads = std::max(1, std::atoi(argv[++i]));
    } else {
      std::fprintf(
          stderr,
          "usage: bench_kernels [--quick] [--threads N] [--only REGEX] [--into FILE] [--causes]\n");
      return 2;
    }
  }
  // The peers read their thread counts when they are loaded: set them, and start over.
  const std::string threads = std::to_string(options.threads);
  const char* const set = std::getenv("OMP_NUM_THREADS");
  if (set == nullptr || threads != set) {
    setenv("OMP_NUM_THREADS", threads.c_str(), 1);
    setenv("BLIS_NUM_THREADS", threads.c_str(), 1);
    // Threads that wait look for work some 50 us, as ours do. OpenMP's own measure is milliseconds,
    // in which they would take a core from whoever is measured next.
    setenv("GOMP_SPINCOUNT", "3000", 0);
    execv("/proc/self/exe", argv);
  }
  return tutti::bench::run(options);
}
