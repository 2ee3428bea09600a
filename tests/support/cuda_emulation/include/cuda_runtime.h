// The part of CUDA's language and runtime that Tutti's GPU code uses, for building it with the host
// compiler and running it on the emulation. Names and meanings are CUDA's; the code is ours.
//
// Kernels run as grid.h says. Streams are worker threads with queues (runtime.cc), so that work of
// two streams overlaps and a missing event wait shows. Compiled into tests only.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#include "tests/support/cuda_emulation/dropped_waits.h"
#include "tests/support/cuda_emulation/grid.h"
#include "tests/support/cuda_emulation/own_work.h"

#define TUTTI_CUDA_EMULATION 1

// Language ---------------------------------------------------------------------------------------
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define threadIdx (::tutti::emulation::position().thread)
#define blockIdx (::tutti::emulation::position().block)
#define blockDim (::tutti::emulation::position().threads)
#define gridDim (::tutti::emulation::position().blocks)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline void __syncthreads(const tutti::emulation::WaitPlace& place = {}) {
  if (tutti::emulation::is_kept(place)) tutti::emulation::sync_threads();
}
inline void __threadfence() {}

namespace tutti::emulation {

// An exchange of values between the lanes of a warp.
template <class T>
struct Shuffle {
  T value;
  unsigned source;
  T result;
};

template <class T>
T shuffle(T value, unsigned source, const char* name) {
  Shuffle<T> own{value, source, value};
  meet_warp(
      &own,
      [](void** operands) {
        for (unsigned l = 0; l < kWarp; ++l) {
          auto* const one = static_cast<Shuffle<T>*>(operands[l]);
          if (one->source < kWarp)
            one->result = static_cast<Shuffle<T>*>(operands[one->source])->value;
        }
      },
      name);
  return own.result;
}

struct Vote {
  bool own;
  unsigned ballot;
};

inline unsigned ballot(bool own) {
  Vote vote{own, 0};
  meet_warp(
      &vote,
      [](void** operands) {
        unsigned bits = 0;
        for (unsigned l = 0; l < kWarp; ++l) {
          bits |= static_cast<Vote*>(operands[l])->own ? 1U << l : 0U;
        }
        for (unsigned l = 0; l < kWarp; ++l) static_cast<Vote*>(operands[l])->ballot = bits;
      },
      "vote");
  return vote.ballot;
}

}  // namespace tutti::emulation

template <class T>
T __shfl_xor_sync(unsigned, T value, unsigned mask) {
  return tutti::emulation::shuffle(value, tutti::emulation::lane() ^ mask, "__shfl_xor_sync");
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned by) {
  return tutti::emulation::shuffle(value, tutti::emulation::lane() + by, "__shfl_down_sync");
}
template <class T>
T __shfl_up_sync(unsigned, T value, unsigned by) {
  const unsigned lane = tutti::emulation::lane();
  return tutti::emulation::shuffle(value, lane < by ? lane : lane - by, "__shfl_up_sync");
}
template <class T>
T __shfl_sync(unsigned, T value, int source) {
  return tutti::emulation::shuffle(value, static_cast<unsigned>(source) % 32, "__shfl_sync");
}
inline void __syncwarp(const tutti::emulation::WaitPlace& place = {}) {
  if (tutti::emulation::is_kept(place)) tutti::emulation::ballot(false);
}
inline unsigned __ballot_sync(unsigned, bool own) { return tutti::emulation::ballot(own); }
inline bool __any_sync(unsigned, bool own) { return tutti::emulation::ballot(own) != 0; }
inline bool __all_sync(unsigned, bool own) { return tutti::emulation::ballot(own) == ~0U; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }

template <class T>
T __ldg(const T* from) {
  return *from;
}
// Blocks run one after the other and threads are fibers: a plain read-modify-write is atomic here.
template <class T>
T atomicAdd(T* at, T value) {
  static_assert(!std::is_floating_point_v<T>, "no floating-point atomics: their order is free");
  const T old = *at;
  *at = static_cast<T>(old + value);
  return old;
}
template <class T>
T atomicMax(T* at, T value) {
  const T old = *at;
  if (value > old) *at = value;
  return old;
}
template <class T>
T atomicExch(T* at, T value) {
  const T old = *at;
  *at = value;
  return old;
}

inline float __fdividef(float a, float b) { return a / b; }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((std::uint64_t{a} * b) >> 32);
}
// Four signed bytes of each word.
inline int __dp4a(int a, int b, int sum) {
  for (int i = 0; i < 32; i += 8) {
    sum += static_cast<std::int8_t>(a >> i) * static_cast<std::int8_t>(b >> i);
  }
  return sum;
}
inline std::uint64_t __umul64hi(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>((static_cast<Wide>(a) * b) >> 64);
}

// Runtime ----------------------------------------------------------------------------------------
enum cudaError_t : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInitializationError = 3,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevicePointer = 17,
  cudaErrorInvalidMemcpyDirection = 21,
  cudaErrorInsufficientDriver = 35,
  cudaErrorDevicesUnavailable = 46,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorInvalidPtx = 218,
  cudaErrorUnsupportedPtxVersion = 222,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchOutOfResources = 701,
  cudaErrorPeerAccessAlreadyEnabled = 704,
  cudaErrorLaunchFailure = 719,
  cudaErrorNotSupported = 801,
  cudaErrorSystemNotReady = 802,
  cudaErrorSystemDriverMismatch = 803,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorStreamCaptureWrongThread = 908,
};
using cudaStream_t = struct EmulatedStream*;
using cudaEvent_t = struct EmulatedEvent*;
using cudaGraph_t = struct EmulatedGraph*;
using cudaGraphExec_t = struct EmulatedGraph*;

enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4
};
enum cudaMemoryType {
  cudaMemoryTypeUnregistered = 0,
  cudaMemoryTypeHost = 1,
  cudaMemoryTypeDevice = 2
};
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

struct cudaUUID_t {
  char bytes[16];
};
struct cudaDeviceProp {
  char name[256];
  cudaUUID_t uuid;
  std::size_t totalGlobalMem;
  std::size_t sharedMemPerBlockOptin;
  int multiProcessorCount;
  int major;
  int minor;
  int pciBusID;
};
struct cudaFuncAttributes {
  std::size_t sharedSizeBytes;
};
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};

#define CUDART_VERSION 13000
constexpr unsigned cudaStreamNonBlocking = 1;
constexpr unsigned cudaEventDisableTiming = 2;
constexpr unsigned cudaHostAllocDefault = 0;
constexpr unsigned cudaHostRegisterMapped = 2;

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaMalloc(void** memory, std::size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaHostRegister(void* memory, std::size_t bytes, unsigned flags);
cudaError_t cudaHostUnregister(void* memory);
cudaError_t cudaHostGetDevicePointer(void** seen, void* memory, unsigned flags);
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device,
                                std::size_t bytes, cudaStream_t stream);
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer);
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags);
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

#include "tests/support/cuda_emulation/device_work.h"
