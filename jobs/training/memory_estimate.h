// What a training job takes of a device's memory, from shapes alone: known before anything is
// allocated, and without data.
//
// Every part but the last two is what the code that allocates it will ask for; what ops take for
// themselves is estimated from above.
//
// Threads: plain functions. Units: bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "jobs/models/decoder.h"
#include "jobs/models/parts/layer_bands.h"
#include "jobs/optimizers/optimizer.h"
#include "protocol/base/result.h"
#include "protocol/spec/job_spec.h"

namespace tutti::training {

// What ops take for themselves, of training and of serving.
inline constexpr std::uint64_t kOpsRoom = std::uint64_t{64} << 20;

struct MemoryPart {
  std::string name;
  std::uint64_t bytes = 0;
};

struct MemoryEstimate {
  std::vector<MemoryPart> parts;
  std::uint32_t ranks = 1;
  // Of those bytes: what it runs without, too, more slowly. In training: weights that are rounded
  // once a step, but for the room in which each product rounds them then.
  std::uint64_t spare = 0;

  std::uint64_t bytes() const;
  std::uint64_t least() const { return bytes() - spare; }
};

// Samples that go through the pass together: `train.micro`, at most a shard's. Where that is auto,
// a core's half second on CPUs; on a device as many as its products want and its memory can spare.
std::uint32_t micro_samples(const spec::JobSpec& spec, const models::Decoder& decoder,
                            bool on_device);

// Of a spec whose keys were checked: whether all but products of fp8 is as in bf16; what a product
// reads of each number, but of those; and what is kept.
bool is_in_bf16(const spec::JobSpec& spec);
std::uint32_t input_bytes(const spec::JobSpec& spec);
models::Recompute recompute_of(const spec::JobSpec& spec);
models::Kept kept_of(const spec::JobSpec& spec, const models::DecoderDescription& description);

// Of the rank that has most, where the job has so many; at most as many as it has shards.
MemoryEstimate estimate_memory(const spec::JobSpec& spec, const models::Decoder& decoder,
                               const optimizers::Optimizer& optimizer, std::uint32_t ranks);

// The largest of those for all numbers of ranks that the job may have.
MemoryEstimate largest_estimate(const spec::JobSpec& spec, const models::Decoder& decoder,
                                const optimizers::Optimizer& optimizer);

// Ways to make room that change no bit and cost time: settings of `train.recompute` that keep less
// than the spec's, the largest first.
struct LessKept {
  models::Recompute recompute = models::Recompute::none;
  std::uint64_t bytes = 0;  // of the whole job then, at least
};
std::vector<LessKept> less_kept(const spec::JobSpec& spec, const models::Decoder& decoder,
                                const optimizers::Optimizer& optimizer);

// Of a resolved spec of kind train. Errors: of its model and optimizer.
Result<MemoryEstimate> estimate_memory(const spec::JobSpec& spec);

}  // namespace tutti::training
