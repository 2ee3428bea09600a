// cp.async: copies from global to shared memory that a thread starts and later waits for; for
// kernels.
//
//   copy_async_16(to, from); commit_async_copies(); ... wait_async_copies<1>(); __syncthreads();
//
// A wait covers the thread's own copies, the barrier those of the others. Addresses are multiples
// of the size; 16-byte copies go around the first-level cache.
#pragma once

#include "kernels/cuda/launch.h"

namespace tutti::kernels::cuda {

#ifdef TUTTI_CUDA_EMULATION

inline void copy_async_4(void* to, const void* from) {
  ::tutti::emulation::copy_async(to, from, 4, 4);
}
// `bytes` of the sixteen are read, the others become zero.
inline void copy_async_16(void* to, const void* from, unsigned bytes = 16) {
  ::tutti::emulation::copy_async(to, from, 16, bytes);
}
inline void commit_async_copies() { ::tutti::emulation::commit_copies(); }
template <unsigned kGroups>
void wait_async_copies(const ::tutti::emulation::WaitPlace& place = {}) {
  if (::tutti::emulation::is_kept(place)) ::tutti::emulation::wait_copies(kGroups);
}

#elif defined(__CUDACC__)  // the host compiler reads declarations beside these

__device__ __forceinline__ unsigned shared_address(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}
__device__ __forceinline__ void copy_async_4(void* to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from)
               : "memory");
}
__device__ __forceinline__ void copy_async_16(void* to, const void* from, unsigned bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void commit_async_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <unsigned kGroups>
__device__ __forceinline__ void wait_async_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

#endif

}  // namespace tutti::kernels::cuda
