// The next tokens of several sequences, chosen on the device: what leaves it is a few bytes a
// sequence, not its logits.
//
//   logits     [sequences, V]   fp32; not changed
//   requests   [sequences]      host memory
//   tokens     [sequences]      device memory, written
//
// The rules are those of kernels/ops/sampling.h (temperature, top-k, top-p, a draw keyed by seed
// and position, ties to the lower index, NaN never chosen), the sums are not: probabilities are
// fp32 exponentials added in double precision in a fixed order of threads, so a draw at the very
// border of two tokens may fall otherwise than on a CPU. A sequence's token depends on its logits
// and request only.
//
// Limits: top_k up to kTopKMax where it is set; top_p keeps at most kTopKMax candidates.
// Errors: invalid_argument.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cuda/device.h"
#include "kernels/ops/sampling.h"

namespace tutti::kernels::cuda {

inline constexpr std::int32_t kTopKMax = 1024;

struct SamplingRequest {
  SamplingSettings settings;
  std::uint64_t position = 0;  // of the token being drawn
};
Result<> sample_tokens(CudaDevice& device, const ConstMatrix& logits,
                       std::span<const SamplingRequest> requests, std::int32_t* tokens);

}  // namespace tutti::kernels::cuda
