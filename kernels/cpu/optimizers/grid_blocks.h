// The loop that optimizers of the units element and block share: grid blocks handed out to threads,
// each hashed while it is in cache.
#pragma once

#include <algorithm>

#include "kernels/ops/weight_hash.h"

namespace tutti::kernels {

// update(begin, end) of each block, then its hash where hashes are wanted.
template <class Update>
void update_blocks(const OpContext& ctx, std::span<float> weight, std::span<Hash128> hashes,
                   const Update& update) {
  const auto size = static_cast<Index>(weight.size());
  ctx.pool->parallel_for(grid_blocks(size), 1, [&](int, Index begin, Index end) {
    for (Index block = begin; block < end; ++block) {
      const Index first = block * kGridBlock;
      const Index last = std::min(first + kGridBlock, size);
      update(first, last);
      if (!hashes.empty()) {
        hashes[static_cast<std::size_t>(block)] = hash_block(weight.subspan(
            static_cast<std::size_t>(first), static_cast<std::size_t>(last - first)));
      }
    }
  });
}

inline bool fits_blocks(std::size_t size, std::span<const Hash128> hashes) {
  return hashes.empty() ||
         hashes.size() == static_cast<std::size_t>(grid_blocks(static_cast<Index>(size)));
}

}  // namespace tutti::kernels
