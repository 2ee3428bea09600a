// The key of a folder's images in the cache (image_cache.h): a hash of what they are made from, and
// how.
//
// That is the layouts of this build, the format, the CPU path, and of each parameter its name, its
// shape and its values. Of a matrix whose codes stay as they are stored it is the codes, scales,
// zeros and groups themselves, as their files have them, and what is made of them; so a start with
// kept images dequantises nothing and puts no row together.
//
// Ownership: plain data. Threads: any. Errors: those of reading the folder.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "jobs/models/decoder.h"
#include "jobs/models/stored/stored_parameters.h"
#include "kernels/ops/weight_hash.h"
#include "kernels/tensor/op_context.h"

namespace tutti::models {

// An image of codes, before it is made.
struct CodesShape {
  kernels::WeightFormat format{};
  Index outputs = 0;
  Index inputs = 0;
};

struct ImageKey {
  kernels::Hash128 hash;
  // By parameter, where codes stay; none of one that is read in fp32.
  std::vector<std::optional<CodesShape>> codes;
};

// Of images that are made from fp32 in this format, whatever the folder keeps.
Result<ImageKey> key_of_values(const kernels::OpContext& ctx, const Decoder& decoder,
                               const StoredParameters& stored, std::string_view format);
// Of images whose codes are the folder's.
Result<ImageKey> key_of_codes(const kernels::OpContext& ctx, const Decoder& decoder,
                              const StoredParameters& stored);

// All but embeddings, which are looked up and not multiplied by: their table is made from values.
bool may_stay_codes(const Parameter& parameter);

}  // namespace tutti::models
