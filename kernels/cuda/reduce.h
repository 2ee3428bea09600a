// Sums, maxima and log-sums over a warp and over a block, always in the same order; for kernels.
//
// A warp folds by halves: lane i with lane i ^ 16, then 8, 4, 2, 1. A block folds its warps'
// results in ascending order. All threads of the block must call, and all get the result.
#pragma once

#include "kernels/cuda/elementary.h"
#include "kernels/cuda/launch.h"
#include "kernels/tensor/matrix.h"

namespace tutti::kernels::cuda {

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  for (unsigned half = kWarp / 2; half > 0; half /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, half);
  }
  return value;
}

// A NaN does not pass; the callers' other sums carry it.
__device__ __forceinline__ float warp_max(float value) {
  for (unsigned half = kWarp / 2; half > 0; half /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, value, half);
    value = other > value ? other : value;
  }
  return value;
}

// `room` is shared memory for one T a warp; it is free again when all have passed the next barrier.
template <class T>
__device__ __forceinline__ T block_sum(T value, T* room) {
  value = warp_sum(value);
  const unsigned warp = threadIdx.x / kWarp;
  if (threadIdx.x % kWarp == 0) room[warp] = value;
  __syncthreads();
  T total = room[0];
  for (unsigned w = 1; w < blockDim.x / kWarp; ++w) total += room[w];
  __syncthreads();
  return total;
}

__device__ __forceinline__ float block_max(float value, float* room) {
  value = warp_max(value);
  const unsigned warp = threadIdx.x / kWarp;
  if (threadIdx.x % kWarp == 0) room[warp] = value;
  __syncthreads();
  float top = room[0];
  for (unsigned w = 1; w < blockDim.x / kWarp; ++w) top = room[w] > top ? room[w] : top;
  __syncthreads();
  return top;
}

// log(sum(exp(x))) of a row in two numbers.
struct LogSum {
  float top, total;
  __device__ double value() const {
    return static_cast<double>(top) + log64(static_cast<double>(total));
  }
};

// Where `weights` is given, exp(x - top) is left there. `room`: a float a warp, shared.
template <unsigned kBlock>
__device__ LogSum log_sum(const float* x, float* weights, Index width, float* room) {
  float top = -INFINITY;
  for (Index i = threadIdx.x; i < width; i += kBlock) top = x[i] > top ? x[i] : top;
  top = block_max(top, room);
  float total = 0.0F;
  for (Index i = threadIdx.x; i < width; i += kBlock) {
    const float weight = exp32(x[i] - top);
    if (weights != nullptr) weights[i] = weight;
    total += weight;
  }
  return {top, block_sum(total, room)};
}

}  // namespace tutti::kernels::cuda
