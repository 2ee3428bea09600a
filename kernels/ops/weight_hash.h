// The hash of a model's weights: XXH3-128 of each grid block's fp32 bytes, then XXH3-128 over the
// block hashes.
//
// The same whatever the sharding: whoever owns a block hashes it (adamw.h does so while it is in
// cache), and the hashes are combined over parameters in name order. Seed 0; a block hash enters
// the combination as its 16 canonical (big-endian) bytes.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "kernels/ops/grid.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

struct Hash128 {
  std::uint64_t high = 0;
  std::uint64_t low = 0;

  bool operator==(const Hash128&) const = default;
};
static_assert(sizeof(Hash128) == 16);

// 32 lower-case hexadecimal digits, most significant first.
std::string to_string(const Hash128& hash);

// XXH3-128 of the bytes of `values`: one grid block.
Hash128 hash_block(std::span<const float> values);

// The arguments of hash_blocks, as a device takes them.
struct HashRange {
  std::span<const float> values;
  std::span<Hash128> hashes;
};
struct HashBlocks {
  std::span<const HashRange> ranges;
};

// hashes[b] of block b of `values`, which begin on the grid. hashes.size() ==
// grid_blocks(values.size()). Errors: invalid_argument; nothing is written then, for none of the
// ranges.
Result<> hash_blocks(const OpContext& ctx, const HashBlocks& args);
inline Result<> hash_blocks(const OpContext& ctx, std::span<const float> values,
                            std::span<Hash128> hashes) {
  const HashRange range{values, hashes};
  return hash_blocks(ctx, HashBlocks{.ranges = {&range, 1}});
}

// One hash of many, in the order given.
Hash128 combine_hashes(std::span<const Hash128> hashes);

}  // namespace tutti::kernels
