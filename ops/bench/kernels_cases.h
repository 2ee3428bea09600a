// The cases of bench_kernels.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "kernels/tensor/buffer.h"
#include "kernels/tensor/op_context.h"
#include "ops/bench/samples.h"

namespace tutti::bench {

struct Options {
  int threads = 1;
  double seconds = 0.5;  // per case, ours and peers together
  std::string only;      // cases whose name holds this; empty: all
};

struct Bench {
  kernels::OpContext ctx;
  Options options;
  double peak_gflops = 0.0;
  double read_gbps = 0.0;  // of memory beyond the caches
  double bf16_gops = 0.0;  // of native dot products; 0: none
  double tiles_gops = 0.0;
  double int8_gops = 0.0;

  Clock clock() const { return options.threads == 1 ? Clock::thread : Clock::wall; }
};

bool wanted(const Bench& bench, const std::string& name);

// Uniform in [-1, 1), a function of `stream`.
kernels::FloatBuffer numbers(const Bench& bench, kernels::Index count, std::uint64_t stream);

// One case beside PyTorch where that knows it and is there. Its share is of the arithmetic ceiling
// where flops are given, else of the memory ceiling.
struct BesideCase {
  std::string name;
  std::string peer_case = {};  // empty: no peer
  double flops = 0.0;
  double bytes = 0.0;
  std::optional<double> ceiling = {};  // in GFLOP/s, where it is not that of fp32; 0: none known
};
void bench_beside(const Bench& bench, const BesideCase& c, const std::function<void()>& run);

void bench_attention(const Bench& bench);
void bench_large_rows(const Bench& bench);
void bench_products(const Bench& bench);
void bench_tokens(const Bench& bench);
void bench_ops(const Bench& bench);

}  // namespace tutti::bench
