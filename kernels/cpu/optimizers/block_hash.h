// hash_block of a block that comes a few numbers at a time, each still in the first cache.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/ops/weight_hash.h"

namespace tutti::kernels {

class BlockHash {
 public:
  BlockHash();
  void take(std::span<const float> values);
  Hash128 get() const;

 private:
  // Of the library's state, which no header of ours includes; checked where it is made.
  static constexpr std::size_t kStateBytes = 576;
  alignas(64) std::byte state_[kStateBytes];
};

}  // namespace tutti::kernels
