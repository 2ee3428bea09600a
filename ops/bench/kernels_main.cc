// The CPU kernels at the shapes of the demo, of GPT-2 124M and of a 7B layer: products beside BLIS,
// oneDNN and PyTorch, the other ops beside PyTorch where it has them, each as a share of the
// arithmetic or the memory ceiling measured in the same run. What is to be bound by memory finds
// its operands there: runs go through as many sets of them as no cache holds (`operands_mb`).
//
// --quick measures each case for a fifth of the time, and leaves out what takes long all the same
// (heads for one token, quantised and padded ones, more sequences).
//
// With one thread, times are of that thread: a busy machine disturbs caches and clocks, not more.
// Threads are bound to cores, ours as the peers': the last ones, as a system's own work tends to
// the first (TUTTI_CORES names others).
//
// Ceilings are measured once, before all else, and shares are of those that are printed. Into a
// file, lines are added, and cases that it has of the same sources are left out, as are ceilings: a
// run that was ended goes on where it was, with the ceilings that it began with.
//
// --causes measures parts of ops, which misses of goals are made of, and no ops: no peers are
// needed, and with --quick two minutes.
//
// --profile runs each case that a regular expression finds for so many seconds, without peers and
// without ceilings: under perf, all but drawing its operands (fill_uniform, copies) is the op. With
// --causes the same of those cases. A file that has ceilings (--into) saves their time as well, but
// not the peers', and leaves out what it has:
//
//   perf record build/release/bin/bench_kernels --profile '^gpt2 up nn' 5
//
//   bench_kernels [--quick] [--threads N] [--only REGEX] [--into FILE] [--causes]
//                 [--without-peers] [--profile REGEX SECONDS]
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ceilings/ceilings.h"
#include "kernels/ops/cpu_path.h"
#include "kernels/tensor/cores.h"
#include "ops/bench/kernels_cases.h"
#include "ops/bench/peers/kernels_peers.h"

namespace tutti::bench {
namespace {

constexpr Duration kCeilingTime = std::chrono::milliseconds(100);
constexpr int kCeilingTries = 3;

using CeilingOf = kernels::Ceiling (*)(kernels::ThreadPool&, const kernels::MeasureTime&);

// What shares are of: the best of some tries, each the fastest of loops. Those of the path that a
// file has are taken from there, the others are measured and printed.
class Ceilings {
 public:
  Ceilings(kernels::ThreadPool& pool, const std::map<std::string, double>& known) {
    for (const kernels::CeilingKind& kind : kernels::ceiling_kinds()) {
      const std::string name(kind.name);
      const auto found = known.find(name);
      best_[kind.measure] = found != known.end() ? found->second : measured(pool, kind);
    }
  }
  // 0: the path has no such thing.
  double of(CeilingOf measure) const { return best_.at(measure); }

 private:
  static double measured(kernels::ThreadPool& pool, const kernels::CeilingKind& kind) {
    Samples rates;
    for (int i = 0; i < kCeilingTries; ++i) {
      const kernels::Ceiling rate = kind.measure(pool, {kCeilingTime});
      if (!rate) return 0.0;
      rates.seconds.push_back(*rate);
    }
    rates.finish();
    std::printf(R"({"bench":"kernels/ceilings","case":"%s","unit":"%s","min":%.2f,"p50":%.2f,)"
                R"("p99":%.2f,"n":%d,"value":%.2f,%s})"
                "\n",
                std::string(kind.name).c_str(), std::string(kind.unit).c_str(), rates.at(0.0),
                rates.median(), rates.at(0.99), kCeilingTries, rates.at(1.0), where_json().c_str());
    std::fflush(stdout);
    return rates.at(1.0);
  }

  std::map<CeilingOf, double> best_;
};

void measure_all(const Bench& bench) {
  bench_products(bench);
  bench_ops(bench);
}

int run(const Options& options) {
  describe_setting(
      {.path = std::string(to_string(kernels::cpu_path())), .threads = options.threads});
  kernels::ThreadPool pool(options.threads);
  Measured measured;
  if (!options.into.empty()) {
    measured = measured_in(options.into);
    if (std::freopen(options.into.c_str(), "a", stdout) == nullptr) {
      std::fprintf(stderr, "bench_kernels: cannot write %s\n", options.into.c_str());
      return 1;
    }
  }
  if (options.profile > 0.0) {
    // Of zero: lines have no shares.
    for (const kernels::CeilingKind& kind : kernels::ceiling_kinds()) {
      measured.ceilings[std::string(kind.name)] = 0.0;
    }
  }
  const Ceilings ceilings(pool, measured.ceilings);
  Progress progress;
  const Bench bench{.ctx = kernels::OpContext{&pool},
                    .options = options,
                    .peak_gflops = ceilings.of(kernels::fp32_ceiling),
                    .read_gbps = std::max(ceilings.of(kernels::memory_ceiling),
                                          ceilings.of(kernels::small_pages_ceiling)),
                    .copy_gbps = std::max({ceilings.of(kernels::copy_ceiling),
                                           ceilings.of(kernels::streamed_copy_ceiling),
                                           ceilings.of(kernels::update_ceiling)}),
                    .bf16_gops = ceilings.of(kernels::bf16_ceiling),
                    .tiles_gops = ceilings.of(kernels::bf16_tiles_ceiling),
                    .int8_gops = ceilings.of(kernels::int8_ceiling),
                    .measured = std::move(measured.cases),
                    .progress = &progress};
  std::fprintf(
      stderr, "path %s, %d thread(s), peak %.1f GFLOP/s, memory read %.1f GB/s, copied %.1f GB/s\n",
      std::string(to_string(kernels::cpu_path())).c_str(), options.threads, bench.peak_gflops,
      bench.read_gbps, bench.copy_gbps);
  progress.begin = progress.told = now_seconds();
  if (options.causes) {
    bench_causes(bench);
    return 0;
  }
  progress.counting = true;
  measure_all(bench);
  progress.counting = false;
  progress.begin = progress.told = now_seconds();
  measure_all(bench);
  return 0;
}

// What libraries read when they are loaded: their threads, the cores of those, and the widest
// instructions that they may use, which are those of our path. BLIS of Debian has no name for them
// but the number of a kind of core.
void set_for_peers(int threads) {
  const std::string count = std::to_string(threads);
  setenv("OMP_NUM_THREADS", count.c_str(), 1);
  setenv("BLIS_NUM_THREADS", count.c_str(), 1);
  // Threads that wait look for work some 50 us, as ours do. OpenMP's own measure is milliseconds,
  // in which they would take a core from whoever is measured next.
  setenv("GOMP_SPINCOUNT", "3000", 0);
  if (std::getenv("TUTTI_CORES") == nullptr) {
    const std::vector<int> cores = kernels::cores_of_machine();
    const auto wanted = static_cast<std::size_t>(threads);
    std::string list;
    for (std::size_t i = cores.size(); wanted <= cores.size() && i > cores.size() - wanted; --i) {
      list += (list.empty() ? "" : ",") + std::to_string(cores[i - 1]);
    }
    if (!list.empty()) setenv("TUTTI_CORES", list.c_str(), 1);
  }
  if (const char* const cores = std::getenv("TUTTI_CORES"); cores != nullptr) {
    setenv("GOMP_CPU_AFFINITY", cores, 1);
  }
  const std::string_view path = to_string(kernels::cpu_path());
  const bool narrow = path == "avx2" || path == "scalar";
  if (narrow || path == "avx512") {
    const char* const onednn = narrow ? "AVX2" : "AVX512_CORE_VNNI";
    setenv("DNNL_MAX_CPU_ISA", onednn, 1);
    setenv("ONEDNN_MAX_CPU_ISA", onednn, 1);
    setenv("ATEN_CPU_CAPABILITY", narrow ? "avx2" : "avx512", 1);
    setenv("MKL_ENABLE_INSTRUCTIONS", narrow ? "AVX2" : "AVX512", 1);
  }
  setenv("BLIS_ARCH_TYPE", blis_of(!narrow).c_str(), 1);
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
    } else if (std::strcmp(argv[i], "--without-peers") == 0) {
      options.without_peers = true;
    } else if (std::strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
      options.only = argv[++i];
    } else if (std::strcmp(argv[i], "--into") == 0 && i + 1 < argc) {
      options.into = argv[++i];
    } else if (std::strcmp(argv[i], "--profile") == 0 && i + 2 < argc) {
      options.only = argv[++i];
      options.profile = std::max(0.1, std::atof(argv[++i]));
      options.without_peers = true;
    } else if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      options.threads = std::max(1, std::atoi(argv[++i]));
    } else {
      std::fprintf(
          stderr,
          "usage: bench_kernels [--quick] [--threads N] [--only REGEX] [--into FILE] [--causes] "
          "[--without-peers] [--profile REGEX SECONDS]\n");
      return 2;
    }
  }
  if (!options.without_peers && !options.causes && !tutti::bench::all_peers_there()) {
    std::fprintf(stderr,
                 "bench_kernels: PyTorch (PEERS_VENV), BLIS or oneDNN is not there: a ratio beside "
                 "the rest is none; --without-peers measures all the same\n");
    return 2;
  }
  // Once, and start over: what is loaded has read its environment by now.
  if (std::getenv("TUTTI_BENCH_SET") == nullptr) {
    setenv("TUTTI_BENCH_SET", "1", 1);
    tutti::bench::set_for_peers(options.threads);
    execv("/proc/self/exe", argv);
  }
  return tutti::bench::run(options);
}
