// What ops/bench/gpu measures, and how: GPU time by events, a warm-up, then many runs.
//
// Units: seconds, bytes, operations. A case's share is of the ceiling that it names.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"

namespace tutti::bench::gpu {

// Of an H100 or H200, dense bf16, as the maker states it.
inline constexpr double kBf16Peak = 989e12;

struct Row {
  std::string name;
  std::string unit;  // what `best` and the others are in
  double best = 0;   // of the runs
  double median = 0;
  double worst = 0;  // the 99th percentile
  int runs = 0;
  double share = 0;  // of the ceiling
  std::string ceiling;
};

// Of sorted seconds: `work` in a run, beside what the ceiling is, a second.
Row row_of(const std::string& name, const std::vector<double>& seconds, double work, double ceiling,
           const std::string& ceiling_name);

// Seconds of each of `runs` calls, sorted.
std::vector<double> timed(kernels::cuda::CudaDevice& device, int runs,
                          const std::function<void()>& body);

// Bytes a second of a copy within the card: the ceiling of everything that only moves memory.
double copy_bandwidth(kernels::cuda::CudaDevice& device);

std::vector<Row> kernel_rows(kernels::cuda::CudaDevice& device);
// One token of several sequences by a layer's quantised weights of an 8B shape, against reading
// them.
std::vector<Row> quantised_rows(kernels::cuda::CudaDevice& device);

// models.cc: GPT-2 124M and 1.5B shaped decoders, a forward and backward pass, and a whole step
// with the update of all parameters, as model FLOP utilisation.
std::vector<Row> training_rows(kernels::cuda::CudaDevice& device);
// A decoder of the 8B shape as it is served: a prompt, against the tensor cores; then a token of
// each of eight sequences, against reading the weights in bf16 and the keys and values once.
std::vector<Row> serving_rows(kernels::cuda::CudaDevice& device);

// Whether work of two streams runs at once: two long kernels together take less than 1.6 times one.
bool streams_overlap();

}  // namespace tutti::bench::gpu
