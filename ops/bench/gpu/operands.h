// What a benchmark computes with: numbers as a model has them. On zeros a card draws less power, so
// its clocks stay higher than in any real use.
#pragma once

#include <span>
#include <vector>

#include "jobs/models/parameters.h"
#include "kernels/cuda/device.h"
#include "kernels/ops/weights/weight_format.h"
#include "kernels/tensor/buffer.h"

namespace tutti::bench::gpu {

// Normal, the same 2^20 numbers again and again.
void fill(kernels::cuda::CudaDevice& device, std::span<float> numbers, double deviation = 1.0);
kernels::FloatBuffer drawn(kernels::cuda::CudaDevice& device, kernels::Index count,
                           double deviation = 1.0);
// As a decoder's weights begin.
void initialise(kernels::cuda::CudaDevice& device, const models::ParameterLayout& layout,
                std::span<float> weights);
// Rows of normal numbers in the format; some, again and again.
std::vector<std::byte> quantised_rows(kernels::WeightFormat format, kernels::Index rows,
                                      kernels::Index inputs);

}  // namespace tutti::bench::gpu
