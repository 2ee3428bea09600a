// The memory that the GPU's cases stand on.
#include "tests/support/mapped_heap.h"

#include <cuda_runtime.h>

#include <catch2/catch.hpp>

#include "kernels/tensor/device.h"
#include "tests/parity/harness.h"
#include "tests/support/poison.h"

namespace tutti::test {

TEST_CASE("heap: what a case allocates is memory that the GPU sees, of any size") {
  for (const std::size_t count : {1, 2, 3, 4, 1000, 20'000'000}) {
    const std::vector<float> values(count, 1.0F);
    cudaPointerAttributes attributes = {};
    REQUIRE(cudaPointerGetAttributes(&attributes, values.data()) == cudaSuccess);
    CHECK(attributes.type == cudaMemoryTypeHost);
  }
}

#ifdef TUTTI_CUDA_EMULATION
TEST_CASE("heap: where the GPU is told of no memory, there is none, and that is known before") {
  CHECK(heap_works());
  ::setenv("TUTTI_EMULATION_REGISTER", "0", 1);
  MappedHeap other;
  CHECK(other.take(12) == nullptr);
  CHECK(other.take(20'000'000) == nullptr);
  CHECK_FALSE(heap_works());
  ::unsetenv("TUTTI_EMULATION_REGISTER");
}
#endif

TEST_CASE("heap: a write of the GPU beyond a vector is found, in use and given back") {
  if (kWatched) return;  // AddressSanitizer ends the process at such a write
  MappedHeap other;
  const auto write = [&](std::byte* at) {
    REQUIRE(kernels::parity::single().device->zero(at, 4));
    REQUIRE(kernels::parity::single().device->synchronize());
  };
  auto* const piece = static_cast<std::byte*>(other.take(12));
  REQUIRE(piece != nullptr);
  write(piece + 8);
  CHECK(other.overrun() == "");
  write(piece + 16);
  CHECK(other.overrun() == "a vector of 12 bytes was written 4 bytes behind its end");
  MappedHeap third;
  auto* const before = static_cast<std::byte*>(third.take(4000));
  write(before - 4);
  CHECK(third.give_back(before));
  CHECK(third.overrun() == "a vector of 4000 bytes was written 4 bytes before its start");
  CHECK_FALSE(third.give_back(before));
}

}  // namespace tutti::test
