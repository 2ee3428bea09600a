// The cases of bench_kernels.
#pragma once

#include <string>

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

  Clock clock() const { return options.threads == 1 ? Clock::thread : Clock::wall; }
};

void bench_products(const Bench& bench);
void bench_ops(const Bench& bench);

}  // namespace tutti::bench
