// What the cases of ops that only a GPU has share: they run on the emulation, and on a real GPU in
// ops/gpu/check.
#pragma once

#include <catch2/catch.hpp>

#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/ops/random.h"
#include "tests/support/mapped_heap.h"

namespace tutti::test {

// On the emulation in three seeds of each of its orders; on a GPU twice.
void in_each_order(const std::function<void()>& run);

using Floats = std::vector<float>;

// Uniform in [-1, 1), a function of `stream` alone.
inline Floats draw(kernels::Index count, std::uint64_t stream) {
  Floats values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(kernels::random_uniform({11, stream}, i) * 2.0 - 1.0);
  }
  return values;
}

inline std::unique_ptr<kernels::cuda::CudaDevice> open_device_for(
    kernels::cuda::Products::Inputs inputs) {
  using kernels::cuda::DeviceOptions;
  auto opened = kernels::cuda::CudaDevice::open(
      {.inputs = inputs, .waiting = DeviceOptions::Waiting::after_each_op});
  REQUIRE(opened);
  open_heap();
  return *std::move(opened);
}

// Of numbers: a NaN is its bits, too.
template <class Value>
bool same_bits(const std::vector<Value>& a, const std::vector<Value>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(Value)) == 0;
}

// The same bits in every order.
template <class Value>
std::vector<Value> in_all_orders(kernels::cuda::CudaDevice& device,
                                 const std::function<std::vector<Value>()>& run) {
  std::vector<Value> first;
  in_each_order([&] {
    std::vector<Value> result = run();
    REQUIRE(device.synchronize());
    if (first.empty()) first = result;
    REQUIRE(same_bits(result, first));
  });
  return first;
}

}  // namespace tutti::test
