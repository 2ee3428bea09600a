#include "kernels/ops/weight_hash.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/op_counters.h"

#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <new>
#include <utility>

#include "kernels/cpu/optimizers/block_hash.h"

namespace tutti::kernels {

Hash128 hash_block(std::span<const float> values) {
  const XXH128_hash_t hash = XXH3_128bits(values.data(), values.size_bytes());
  return {hash.high64, hash.low64};
}

BlockHash::BlockHash() {
  static_assert(sizeof(XXH3_state_t) <= kStateBytes && alignof(XXH3_state_t) <= 64);
  XXH3_128bits_reset(new (state_) XXH3_state_t);
}

void BlockHash::take(std::span<const float> values) {
  auto* const state = std::launder(reinterpret_cast<XXH3_state_t*>(state_));
  XXH3_128bits_update(state, values.data(), values.size_bytes());
}

Hash128 BlockHash::get() const {
  const auto* const state = std::launder(reinterpret_cast<const XXH3_state_t*>(state_));
  const XXH128_hash_t hash = XXH3_128bits_digest(state);
  return {hash.high64, hash.low64};
}

std::string to_string(const Hash128& hash) {
  return fmt::format("{:016x}{:016x}", hash.high, hash.low);
}

Result<> hash_blocks(const OpContext& ctx, const HashBlocks& args) {
  for (const auto& [values, hashes] : args.ranges) {
    const Index blocks = grid_blocks(static_cast<Index>(values.size()));
    if (hashes.size() != static_cast<std::size_t>(blocks)) {
      return Error{ErrorCode::invalid_argument, "hash_blocks: one hash per grid block is needed"};
    }
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  for (const HashRange& range : args.ranges) {
    const OpTimer timer(Op::hash_blocks, {.bytes = 4 * static_cast<Index>(range.values.size())});
    ctx.pool->parallel_for(
        static_cast<Index>(range.hashes.size()), 1, [&](int, Index begin, Index end) {
          for (auto block = static_cast<std::size_t>(begin); std::cmp_less(block, end); ++block) {
            const std::size_t first = block * kGridBlock;
            const std::size_t count =
                std::min<std::size_t>(kGridBlock, range.values.size() - first);
            range.hashes[block] = hash_block(range.values.subspan(first, count));
          }
        });
  }
  return {};
}

Hash128 combine_hashes(std::span<const Hash128> hashes) {
  XXH3_state_t state;  // whole, as this file inlines the library: made without an allocation
  XXH3_128bits_reset(&state);
  constexpr std::size_t kTogether = 64;
  XXH128_canonical_t some[kTogether];
  for (std::size_t first = 0; first < hashes.size(); first += kTogether) {
    const std::size_t count = std::min(kTogether, hashes.size() - first);
    for (std::size_t i = 0; i < count; ++i) {
      const Hash128& hash = hashes[first + i];
      XXH128_canonicalFromHash(&some[i], XXH128_hash_t{hash.low, hash.high});
    }
    XXH3_128bits_update(&state, some, count * sizeof(XXH128_canonical_t));
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(&state);
  return {hash.high64, hash.low64};
}

}  // namespace tutti::kernels
