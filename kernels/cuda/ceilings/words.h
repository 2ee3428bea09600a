// Memory full of known words, and reading it: for measures of a GPU (device_measures.cc).
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace tutti::kernels::cuda {

// Words that products may read, as fp32 or as pairs of bf16, between 1/2 and 1 and of both signs:
// a card draws less power for numbers that are all alike, and is faster then.
__host__ __device__ inline std::uint32_t known_word(std::uint64_t index, std::uint32_t seed) {
  auto x = static_cast<std::uint32_t>(index * 2654435761U) ^ (seed * 0x9e3779b9U);
  x = (x ^ (x >> 16)) * 0x85ebca6bU;
  x = (x ^ (x >> 13)) * 0xc2b2ae35U;
  return ((x ^ (x >> 16)) & 0x807f807fU) | 0x3f003f00U;
}

// `bytes`: a multiple of 16. Enqueued; what fails shows in cudaGetLastError.
void fill_words(cudaStream_t stream, void* memory, std::size_t bytes, std::uint32_t seed);
// Reads all of it; `sink`, one word, is hardly ever written.
void read_words(cudaStream_t stream, const void* memory, std::size_t bytes, std::uint32_t* sink);

}  // namespace tutti::kernels::cuda
