// What ops/bench/gpu measures, and how: GPU time by events, a warm-up, then many runs.
//
// A case has a name that is known before it runs, the same as that of PyTorch's case in peers.py:
// ops/bench/gpu/run puts both in one line, and a test compares the names where there is no GPU.
//
// What a case runs is what its name says; or, where it is asked whether the bodies work (on the
// emulation, which has no speed), the same in tiny shapes, once.
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

enum class Extent { whole, small };
// Before a case runs.
void set_extent(Extent extent);
Extent extent();
template <class T>
T sized(T whole, T small) {
  return extent() == Extent::whole ? whole : small;
}

// The card: products in bf16 as training takes them, in fp32 as a server has them, the latter also
// without captured graphs.
class Card {
 public:
  static Result<Card> open();

  kernels::cuda::CudaDevice& training() const { return *training_; }
  kernels::cuda::CudaDevice& serving() const { return *serving_; }
  kernels::cuda::CudaDevice& without_graphs() const { return *without_graphs_; }
  // Bytes a second of a copy within the card: the ceiling of all that only moves memory.
  double bandwidth() const { return bandwidth_; }

 private:
  std::unique_ptr<kernels::cuda::CudaDevice> training_, serving_, without_graphs_;
  double bandwidth_ = 0;
};

struct Measured {
  std::vector<double> seconds;  // of each run, sorted
  double share = 0;             // of the ceiling, of the median run
  std::string ceiling;

  double at(double quantile) const;
};

struct Case {
  std::string name;
  std::function<Measured(const Card&)> run;
};

// `work`: bytes or operations in a run.
Measured of_bandwidth(const Card& card, std::vector<double> seconds, double work);
Measured of_peak(std::vector<double> seconds, double work);

// Seconds of each of `runs` calls, sorted; of one in small extent.
std::vector<double> timed(kernels::cuda::CudaDevice& device, int runs,
                          const std::function<void()>& body);

// cases.cc: one op each.
std::vector<Case> kernel_cases();
// models.cc: GPT-2 124M and 1.5B shaped decoders, a forward and backward pass, and a whole step
// with the optimizer as the trainer launches it, as model FLOP utilisation.
std::vector<Case> training_cases();
// served.cc: a decoder of the 8B shape as it is served: a prompt, against the tensor cores; then a
// token of each of eight sequences, against reading all weights, keys and values once.
std::vector<Case> serving_cases();

// Whether work of two streams runs at once: two long kernels together take less than 1.6 times one.
bool streams_overlap();

}  // namespace tutti::bench::gpu
