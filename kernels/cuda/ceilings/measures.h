// How device_measures.cc and exchange.cc measure; internal.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/tensor/device_measures.h"
#include "protocol/base/clock.h"

namespace tutti::kernels::cuda {

struct MeasureSizes {
  std::int64_t rows = 8192;                         // of square products
  std::size_t memory_bytes = std::size_t{1} << 30;  // beyond all caches of a GPU
  std::size_t copy_bytes = std::size_t{64} << 20;   // of one copy between memories
};
MeasureSizes sizes_of(DeviceMeasures::Size size);

// Seconds of the fastest round, of three at least and a quarter of a second; the first of all is
// not counted. `round` returns when it is done.
template <class Round>
Result<double> fastest_round(Round round) {
  constexpr Duration kRounds = std::chrono::milliseconds(250);
  constexpr int kRoundsMin = 3;
  if (auto warm = round(); !warm) return std::move(warm).error();
  double least = std::numeric_limits<double>::max();
  const Instant begun = monotonic_now();
  for (int i = 0; i < kRoundsMin || monotonic_now() - begun < kRounds; ++i) {
    const Instant from = monotonic_now();
    if (auto done = round(); !done) return std::move(done).error();
    least = std::min(least, std::chrono::duration<double>(monotonic_now() - from).count());
  }
  return std::max(least, 1e-9);
}

// Whether memory of the current device has the known words of the seed.
// Errors: corrupt, with `what` and the first byte that differs.
Result<> expect_words(cudaStream_t stream, const void* memory, std::size_t bytes,
                      std::uint32_t seed, std::string_view what);

// GPUs by their indices, each as a rank of one group over NCCL: what each sends in a second while
// all send to all.
Result<DeviceSpeed> exchange_of_all(std::span<const int> indices, const MeasureSizes& sizes);

}  // namespace tutti::kernels::cuda
