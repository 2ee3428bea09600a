// XXH3-128 of one grid block's bytes.
#pragma once

#include <span>

#include "kernels/ops/weight_hash.h"

namespace tutti::kernels {

Hash128 hash_block(std::span<const float> values);

}  // namespace tutti::kernels
