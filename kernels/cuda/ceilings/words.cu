#include "kernels/cuda/ceilings/words.h"

#include <algorithm>

#include "kernels/cuda/launch.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 256;
// Enough for every GPU to be full of them; each goes on behind the last.
constexpr std::int64_t kBlocksMax = 4096;

unsigned blocks_of(std::int64_t vectors) {
  return blocks_for(std::min(vectors, kBlocksMax * kThreads), kThreads);
}

__global__ void fill_words_kernel(uint4* memory, std::int64_t vectors, std::uint32_t seed) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < vectors;
       i += step) {
    const auto first = static_cast<std::uint64_t>(4 * i);
    memory[i] = make_uint4(known_word(first, seed), known_word(first + 1, seed),
                           known_word(first + 2, seed), known_word(first + 3, seed));
  }
}

// No sum of such words is 1, which the compiler does not know.
__global__ void read_words_kernel(const uint4* memory, std::int64_t vectors, std::uint32_t* sink) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  std::uint32_t found = 0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < vectors;
       i += step) {
    const uint4 four = __ldg(memory + i);
    found |= four.x | four.y | four.z | four.w;
  }
  if (found == 1) *sink = found;
}

}  // namespace

void fill_words(cudaStream_t stream, void* memory, std::size_t bytes, std::uint32_t seed) {
  const auto vectors = static_cast<std::int64_t>(bytes / sizeof(uint4));
  if (vectors == 0) return;
  TUTTI_LAUNCH(stream, (LaunchShape{.blocks = blocks_of(vectors), .threads = kThreads}),
               fill_words_kernel, static_cast<uint4*>(memory), vectors, seed);
}

void read_words(cudaStream_t stream, const void* memory, std::size_t bytes, std::uint32_t* sink) {
  const auto vectors = static_cast<std::int64_t>(bytes / sizeof(uint4));
  if (vectors == 0) return;
  TUTTI_LAUNCH(stream, (LaunchShape{.blocks = blocks_of(vectors), .threads = kThreads}),
               read_words_kernel, static_cast<const uint4*>(memory), vectors, sink);
}

}  // namespace tutti::kernels::cuda
