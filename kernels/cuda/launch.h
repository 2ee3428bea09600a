// The one way in which a kernel is launched, and the few words of the language that differ between
// nvcc and the host compiler's emulation (tests/support/cuda_emulation).
//
//   __global__ void scale(float* x, float by, Index n) {...}
//   launch(stream, {.blocks = blocks_for(n, kThreads), .threads = kThreads}, scale, x, 2.0F, n);
//
// In a kernel, shared memory is declared by macros, because the emulation takes it from a poisoned
// arena:
//   TUTTI_SHARED(float, tile, 64 * 33);           static
//   TUTTI_DYNAMIC_SHARED(float, scores);          the launch's shared_bytes, 16-byte aligned
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/graphs/work_watch.h"

namespace tutti::kernels::cuda {

inline constexpr unsigned kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;
// Above this a kernel asks for its dynamic shared memory by an attribute. It must where that and
// what it has of static memory are more than 48 KiB together: no kernel has 16 KiB beside so much.
inline constexpr std::size_t kSharedBytesPlain = 32 * 1024;

struct LaunchShape {
  dim3 blocks;
  dim3 threads;
  std::size_t shared_bytes = 0;
};

inline unsigned blocks_for(std::int64_t items, std::int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

// Of an argument, what a captured launch keeps beside addresses: a number, a kind, whether there is
// a matrix at all. What of a struct differs between steps of one key its op says itself (enqueues).
template <class Arg>
void hear_argument(const Arg& arg) {
  if constexpr (std::is_integral_v<Arg> || std::is_enum_v<Arg>) {
    work_watch->hear(static_cast<std::uint64_t>(arg));
  } else if constexpr (std::is_floating_point_v<Arg>) {
    work_watch->hear(std::bit_cast<std::uint64_t>(static_cast<double>(arg)));
  } else if constexpr (std::is_pointer_v<Arg>) {
    work_watch->hear(arg == nullptr ? 0 : 1);
  }
}

// Whether the launch is to be enqueued (work_watch.h).
template <class... A>
bool launches(const char* name, const LaunchShape& shape, const A&... args) {
  if (work_watch == nullptr) return true;
  (hear_argument(args), ...);
  return enqueues(name, shape.blocks.x, shape.blocks.y, shape.blocks.z, shape.threads.x,
                  shape.threads.y, shape.threads.z, shape.shared_bytes);
}

#ifdef TUTTI_CUDA_EMULATION

#define TUTTI_SHARED(type, name, count) \
  static const char name##_site = 0;    \
  type* const name =                    \
      static_cast<type*>(::tutti::emulation::static_shared(&name##_site, sizeof(type) * (count)))
#define TUTTI_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::tutti::emulation::dynamic_shared())

#else

#define TUTTI_SHARED(type, name, count) __shared__ alignas(16) type name[count]
#define TUTTI_DYNAMIC_SHARED(type, name)                                       \
  extern __shared__ __align__(16) unsigned char tutti_dynamic_shared_memory[]; \
  type* const name = reinterpret_cast<type*>(tutti_dynamic_shared_memory)

#endif

// A launch of this thread that asked for more shared memory than the device gives a block. Every op
// looks at its end.
struct LaunchRefusal {
  const char* kernel = nullptr;
  std::size_t shared_bytes = 0;
};
inline thread_local LaunchRefusal launch_refusal;

// Only nvcc can take a kernel's address, so launches stand in .cu files. What else fails shows in
// cudaGetLastError, which every op asks for at its end.
template <class... P, class... A>
void launch_named(const char* name, cudaStream_t stream, const LaunchShape& shape,
                  void (*kernel)(P...), A... args) {
  if (!launches(name, shape, args...)) return;
  const auto* const address = reinterpret_cast<const void*>(kernel);
  if (shape.shared_bytes > kSharedBytesPlain &&
      cudaFuncSetAttribute(address, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(shape.shared_bytes)) != cudaSuccess) {
    launch_refusal = {name, shape.shared_bytes};
    return;
  }
#ifdef TUTTI_CUDA_EMULATION
  const ::tutti::emulation::OwnWork own;
  const auto extent = [](const dim3& d) { return ::tutti::emulation::Extent{d.x, d.y, d.z}; };
  ::tutti::emulation::GridLaunch launch{
      name, address, {extent(shape.blocks), extent(shape.threads), shape.shared_bytes}};
  (::tutti::emulation::add_words(launch.words, static_cast<P>(args)), ...);
  static_cast<void>(::tutti::emulation::enqueue_grid(
      stream, launch, [kernel, args...] { kernel(static_cast<P>(args)...); }));
#else
  const auto run = [&](P... values) {
    void* pointers[] = {static_cast<void*>(&values)...};
    static_cast<void>(cudaLaunchKernel(address, shape.blocks, shape.threads, pointers,
                                       shape.shared_bytes, stream));
  };
  run(static_cast<P>(args)...);
#endif
}

#define TUTTI_LAUNCH(stream, shape, kernel, ...) \
  ::tutti::kernels::cuda::launch_named(#kernel, stream, shape, kernel, __VA_ARGS__)

}  // namespace tutti::kernels::cuda
