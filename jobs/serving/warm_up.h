// What a server does before it says that it is ready: steps of no request, so that the first one
// waits for nothing that is made once.
//
// On a GPU the first launch of a kernel loads it, the first product of a shape chooses its
// algorithm, ops take their scratch memory, and the second decoding step of a number of sequences
// is captured as a graph, whatever their lengths. So one prompt fills a step, one sequence decodes
// at the greatest length, and each number of sequences up to batch_max decodes twice. No bit of any
// request depends on it: caches of its own are thrown away.
//
// Threads: the engine's. Errors: the pass's; exhausted is thrown as AllocationFailure.
#pragma once

#include <cstdint>

#include "jobs/models/inference_pass.h"

namespace tutti::serving {

// Batches of more sequences are captured when they first come: a device keeps so many graphs only.
inline constexpr std::uint32_t kWarmBatchMax = 128;

struct WarmUp {
  const models::DecoderDescription& description;
  const models::ServingWeights& images;
  std::uint32_t batch_max = 0;
  std::uint32_t step_tokens = 0;  // of the prompt; the context is at least as long
  std::uint32_t tokens_max = 0;   // of the longest sequence that there is room for
};
Result<> warm_up(const kernels::OpContext& ctx, models::InferencePass& pass, const WarmUp& what);

}  // namespace tutti::serving
