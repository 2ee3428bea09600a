// What 64 queries see of one block of keys, and the layouts in which the tile reads such a block's
// keys and scores.
#if defined(TUTTI_ATTENTION_BLOCK_VIEW_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_ATTENTION_BLOCK_VIEW_INL
#undef TUTTI_ATTENTION_BLOCK_VIEW_INL
#else
#define TUTTI_ATTENTION_BLOCK_VIEW_INL
#endif

#include <algorithm>

#include "kernels/cpu/attention/softmax-inl.h"
#include "kernels/cpu/attention/task.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// Left layouts of the tile: keys of a page, [D][64], and scores, [key][query].
struct LeftKeys {
  static constexpr Index kStride = kKeyBlock;
  static constexpr Index at(Index row, Index k) { return k * kStride + row; }
};
struct LeftScores {
  static constexpr Index kStride = kScoreStride;
  static constexpr Index at(Index row, Index k) { return k * kStride + row; }
};
// Keys as rows, the sum over queries.
struct LeftScoresByKey {
  static constexpr Index kStride = kScoreStride;
  static constexpr Index at(Index row, Index k) { return row * kStride + k; }
};

// Whether all queries see all of the block that begins at `start`.
HWY_INLINE Block block_kind(const AttentionShape& shape, const QueryRange& queries, Index start) {
  const Seen of_first = seen_from(shape, queries.position, queries.length);
  const Seen of_last = seen_from(shape, queries.position + queries.rows - 1, queries.length);
  return of_last.first <= start && of_first.end >= start + kKeyBlock ? Block::whole : Block::part;
}

// What each query sees of one block, relative to its begin; lanes beyond the last query repeat it,
// and their numbers are not used.
struct BlockView {
  void see(const AttentionShape& shape, const QueryRange& queries, Index start) {
    for (Index r = 0; r < kKeyBlock; ++r) {
      const Index place = queries.position + std::min(r, queries.rows - 1);
      const Seen seen = seen_from(shape, place, queries.length);
      span[r].first = std::clamp<Index>(seen.first - start, 0, kKeyBlock);
      span[r].end = std::clamp<Index>(seen.end - start, span[r].first, kKeyBlock);
      position[r] = static_cast<float>(place - start);
      first[r] = static_cast<float>(span[r].first);
      end[r] = static_cast<float>(span[r].end);
    }
  }

  // The end of what queries [query, query + count) see.
  Index end_of(Block block, Index query, Index count) const {
    if (block == Block::whole) return kKeyBlock;
    Index last = 0;
    for (Index r = query; r < std::min(query + count, kKeyBlock); ++r) {
      last = std::max(last, span[r].end);
    }
    return last;
  }

  alignas(64) float position[kKeyBlock];
  alignas(64) float first[kKeyBlock];
  alignas(64) float end[kKeyBlock];
  KeySpan span[kKeyBlock];
};

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
