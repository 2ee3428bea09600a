// The loop that optimizers of the units element and block share: grid blocks handed out to threads,
// each hashed while it is in cache.
#pragma once

#include <algorithm>

#include "kernels/cpu/optimizers/block_hash.h"
#include "kernels/ops/weight_hash.h"

namespace tutti::kernels {

// Weights that are hashed right behind their update: with what else it reads and writes of them
// they are a half of the first cache. Of a whole block the second one has lost a part by then.
inline constexpr Index kHashedTogether = 1024;

// update(begin, end) of each block, or of pieces of it that begin at multiples of `together`; with
// the block's hash where hashes are wanted.
template <class Update>
void update_blocks(const OpContext& ctx, std::span<float> weight, std::span<Hash128> hashes,
                   const Update& update, Index together = kHashedTogether) {
  const auto size = static_cast<Index>(weight.size());
  ctx.pool->parallel_for(grid_blocks(size), 1, [&](int, Index begin, Index end) {
    for (Index block = begin; block < end; ++block) {
      const Index first = block * kGridBlock;
      const Index last = std::min(first + kGridBlock, size);
      if (hashes.empty()) {
        update(first, last);
        continue;
      }
      BlockHash hash;
      for (Index at = first; at < last; at += together) {
        const Index count = std::min(together, last - at);
        update(at, at + count);
        hash.take({weight.data() + at, static_cast<std::size_t>(count)});
      }
      hashes[static_cast<std::size_t>(block)] = hash.get();
    }
  });
}

inline bool fits_blocks(std::size_t size, std::span<const Hash128> hashes) {
  return hashes.empty() ||
         hashes.size() == static_cast<std::size_t>(grid_blocks(static_cast<Index>(size)));
}

}  // namespace tutti::kernels
