// Attention of a few queries: all heads that share a key head, keys in lanes, so that keys and
// values are read from memory once.
// A line is one query of one head. Pages are widened to fp32 in registers.
#if defined(TUTTI_ATTENTION_DECODE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_ATTENTION_DECODE_INL
#undef TUTTI_ATTENTION_DECODE_INL
#else
#define TUTTI_ATTENTION_DECODE_INL
#endif

#include "kernels/cpu/attention/score-inl.h"
#include "kernels/cpu/product/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// output[rows, kVectors] += left[rows][depth] right[depth][..]; left in LeftRows. `ahead`: what
// will be read next, as much, is asked for line after line, as the machine's streams follow; or
// null.
template <class Element>
struct DecodeCall {
  Index depth = 0;
  const float* left = nullptr;
  const Element* right = nullptr;
  Index right_stride = 0;
  float* output = nullptr;
  Index output_stride = 0;
  const std::byte* ahead = nullptr;
};

enum class Asks { nothing, next_block };

template <class Element, int kRows, int kVectors, Asks kAsks>
HWY_INLINE void decode_tile(const DecodeCall<Element>& call) {
  constexpr Index kBytes = kVectors * kVectorLanes * static_cast<Index>(sizeof(Element));
  const float* left = call.left;
  const Element* right = call.right;
  [[maybe_unused]] const std::byte* ahead = call.ahead;
  Vector sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      sum[r][c] = hn::LoadU(kTag, call.output + r * call.output_stride + c * kVectorLanes);
    }
  }
  for (Index k = call.depth; k > 0; --k) {
    Vector value[kVectors];
    if constexpr (kAsks == Asks::next_block) {
      for (Index at = 0; at < kBytes; at += 64) __builtin_prefetch(ahead + at, 0, 2);
      ahead += kBytes;
    }
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) value[c] = widen(right + c * kVectorLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vector factor = hn::Set(kTag, left[LeftRows::at(r, 0)]);
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) sum[r][c] = hn::MulAdd(factor, value[c], sum[r][c]);
    }
    right += call.right_stride;
    ++left;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      hn::StoreU(sum[r][c], kTag, call.output + r * call.output_stride + c * kVectorLanes);
    }
  }
}

inline constexpr int kDecodeSums = HWY_TARGET == HWY_AVX3 ? 16 : 8;  // that registers hold

template <class Element, int kVectors>
HWY_INLINE void decode_panel(Index rows, DecodeCall<Element> call) {
  constexpr int kHeight = std::min(4, kDecodeSums / kVectors);
  while (rows > 0) {
    const auto tile = [&](auto height) HWY_ATTR {
      constexpr int kRows = decltype(height)::value;
      if (call.ahead != nullptr)
        decode_tile<Element, kRows, kVectors, Asks::next_block>(call);
      else
        decode_tile<Element, kRows, kVectors, Asks::nothing>(call);
      call.ahead = nullptr;
      rows -= kRows;
      call.left += LeftRows::at(kRows, 0);
      call.output += kRows * call.output_stride;
    };
    if (rows >= kHeight)
      tile(std::integral_constant<int, kHeight>{});
    else if (rows >= 2)
      tile(std::integral_constant<int, 2>{});
    else
      tile(std::integral_constant<int, 1>{});
  }
}

// `columns` is a multiple of 32. Four rows widen each element once: on AVX2 by a narrow tile.
template <class Element>
HWY_NOINLINE void decode_band(Index rows, Index columns, DecodeCall<Element> call) {
  constexpr Index kWide = 4 * kVectorLanes;
  constexpr Index kNarrow = 2 * kVectorLanes;
  const auto step = [&](Index width) {
    columns -= width;
    call.right += width;
    call.output += width;
    if (call.ahead != nullptr)
      call.ahead += call.depth * width * static_cast<Index>(sizeof(Element));
  };
  const bool narrow = kDecodeSums < 16 && rows >= 4;
  while (!narrow && columns >= kWide) {
    decode_panel<Element, 4>(rows, call);
    step(kWide);
  }
  while (columns > 0) {
    decode_panel<Element, 2>(rows, call);
    step(kNarrow);
  }
}

// A line's part of the online softmax over one block.
struct DecodeLine {
  float* scores = nullptr;  // [64], become weights
  float* sums = nullptr;    // [width], value sums under `top`
  Index width = 0;
  float& top;
  float& total;
  float position = 0.0F;  // relative to the block, as what it sees
  float first = 0.0F;
  float end = 0.0F;
  const float* key_scales = nullptr;  // of int8 pages, else null
  const float* value_scales = nullptr;
};

template <Block kBlock, Rule kRule>
HWY_INLINE void soften_line(const DecodeLine& line, const ScoreRule& rule) {
  static_assert(kKeyBlock == 4 * kLanes);
  alignas(64) static constexpr float kPlaces[kLanes] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                        8, 9, 10, 11, 12, 13, 14, 15};
  const auto score = [&](Index i) HWY_ATTR {
    Lanes s = load(line.scores + i);
    const Lanes place = load(kPlaces) + splat(static_cast<float>(i));
    if constexpr (kRule == Rule::plain) {
      s = s * splat(rule.scale);
    } else {
      if (line.key_scales != nullptr) s = s * load(line.key_scales + i);
      s = scored(rule, s, splat(line.position) - place);
    }
    if constexpr (kBlock == Block::part) {
      s = select_less(place, splat(line.end), s, lowest());
      s = select_less(place, splat(line.first), lowest(), s);
    }
    return s;
  };
  const Lanes s[4] = {score(0), score(16), score(32), score(48)};
  const float block_top = max_lanes(max(max(s[0], s[1]), max(s[2], s[3])));
  if (block_top > line.top) {
    alignas(64) float shrink[kLanes];
    store(exp(splat(line.top - block_top)), shrink);
    line.top = block_top;
    line.total *= shrink[0];
    scale_sums(line.sums, line.width, shrink[0]);
  }
  const Lanes offset = offset_under(splat(line.top));
  Lanes w[4];
  for (int i = 0; i < 4; ++i) {
    w[i] = exp(s[i] - offset);
    if (kRule == Rule::any && line.value_scales != nullptr) {
      store(w[i] * load(line.value_scales + i * kLanes), line.scores + i * kLanes);
    } else {
      store(w[i], line.scores + i * kLanes);
    }
  }
  line.total += sum_lanes((w[0] + w[1]) + (w[2] + w[3]));
}

HWY_INLINE void soften_line(const DecodeLine& line, const ScoreRule& rule) {
  const bool plain = rule.plain() && line.key_scales == nullptr;
  const bool whole = line.first <= 0.0F && line.end >= static_cast<float>(kKeyBlock);
  if (whole && plain)
    soften_line<Block::whole, Rule::plain>(line, rule);
  else if (whole)
    soften_line<Block::whole, Rule::any>(line, rule);
  else if (plain)
    soften_line<Block::part, Rule::plain>(line, rule);
  else
    soften_line<Block::part, Rule::any>(line, rule);
}

struct DecodeScratch {
  DecodeScratch(Arena& arena, Index lines, const KeyValueLayout& layout)
      : queries(arena.floats(lines * LeftRows::kStride)),
        scores(arena.floats(lines * LeftRows::kStride)),
        sums(arena.floats(lines * layout.value_stride)) {
    std::fill(sums, sums + lines * layout.value_stride, 0.0F);
    std::fill(top, top + lines, -std::numeric_limits<float>::infinity());
    std::fill(total, total + lines, 0.0F);
  }

  float* queries;  // LeftRows
  float* scores;   // LeftRows
  float* sums;     // [line][value_stride]
  float top[kDecodeLines];
  float total[kDecodeLines];
};

// The sequence's blocks for one task; a line is row * heads + head of the task's.
template <class Element>
HWY_INLINE void decode_blocks(const AttentionCached& args, const AttentionTask& task,
                              DecodeScratch& scratch) {
  const AttentionShape& shape = args.shape;
  const KeyValueLayout layout(shape);
  const Index lines = task.rows * task.heads;
  const Index head = task.head * (shape.heads / shape.kv_heads) + task.first;
  const Index stride = layout.value_stride;
  const Index begin = seen_from(shape, task.position, task.length).first / kKeyBlock;
  const Index end = seen_from(shape, task.position + task.rows - 1, task.length).end;
  for (Index block = begin; block * kKeyBlock < end; ++block) {
    const Index start = block * kKeyBlock;
    float* const page = task.sequence->pages[static_cast<std::size_t>(block)];
    const bool last = start + kKeyBlock >= end;
    float* const next = last ? nullptr : task.sequence->pages[static_cast<std::size_t>(block + 1)];
    const std::byte* const ahead = last ? nullptr : layout.head(next, task.head);
    std::fill(scratch.scores, scratch.scores + (lines - 1) * LeftRows::kStride + kKeyBlock, 0.0F);
    decode_band<Element>(lines, kKeyBlock,
                         {.depth = shape.head_width,
                          .left = scratch.queries,
                          .right = layout.keys<Element>(page, task.head),
                          .right_stride = kKeyBlock,
                          .output = scratch.scores,
                          .output_stride = LeftRows::kStride,
                          .ahead = ahead});
    const bool scaled = shape.cache == CacheType::int8;
    for (Index row = 0; row < task.rows; ++row) {
      const Seen seen = seen_from(shape, task.position + row, task.length);
      const Index from = std::max<Index>(seen.first - start, 0);
      const Index to = std::min(seen.end - start, kKeyBlock);
      if (from >= to) continue;
      for (Index h = 0; h < task.heads; ++h) {
        const Index line = row * task.heads + h;
        soften_line({.scores = scratch.scores + LeftRows::at(line, 0),
                     .sums = scratch.sums + line * stride,
                     .width = stride,
                     .top = scratch.top[line],
                     .total = scratch.total[line],
                     .position = static_cast<float>(task.position + row - start),
                     .first = static_cast<float>(from),
                     .end = static_cast<float>(to),
                     .key_scales = scaled ? layout.key_scales(page, task.head) : nullptr,
                     .value_scales = scaled ? layout.value_scales(page, task.head) : nullptr},
                    ScoreRule(shape, head + h));
      }
      decode_band<Element>(task.heads, stride,
                           {.depth = to - from,
                            .left = scratch.scores + LeftRows::at(row * task.heads, from),
                            .right = layout.values<Element>(page, task.head) + from * stride,
                            .right_stride = stride,
                            .output = scratch.sums + row * task.heads * stride,
                            .output_stride = stride,
                            .ahead = row == 0 && !last ? ahead + layout.values_at : nullptr});
    }
  }
}

void decode_task(const AttentionCached& args, const LogSums& lse, const AttentionTask& task,
                 Arena& arena) {
  const AttentionShape& shape = args.shape;
  const KeyValueLayout layout(shape);
  const Index width = shape.head_width;
  const Index first = task.head * (shape.heads / shape.kv_heads) + task.first;
  ArenaScope scope(arena);
  DecodeScratch scratch(arena, task.rows * task.heads, layout);
  for (Index row = 0; row < task.rows; ++row) {
    const float* const q = args.q.row(task.row + row) + first * width;
    for (Index h = 0; h < task.heads; ++h) {
      std::copy(q + h * width, q + (h + 1) * width,
                scratch.queries + LeftRows::at(row * task.heads + h, 0));
    }
  }
  switch (shape.cache) {
    case CacheType::f32: decode_blocks<float>(args, task, scratch); break;
    case CacheType::bf16: decode_blocks<std::uint16_t>(args, task, scratch); break;
    case CacheType::int8: decode_blocks<std::int8_t>(args, task, scratch); break;
  }
  for (Index line = 0; line < task.rows * task.heads; ++line) {
    const Index row = task.row + line / task.heads;
    const Index head = first + line % task.heads;
    finish_head(scratch.sums + line * layout.value_stride, scratch.total[line], width,
                args.out.row(row) + head * width);
    if (lse.data != nullptr) {
      lse.data[row * lse.stride + head] = log_sum(scratch.top[line], scratch.total[line]);
    }
  }
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
