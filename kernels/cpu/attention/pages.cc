#include "kernels/ops/key_value_pages.h"

#include <immintrin.h>

#include <algorithm>
#include <string>

#include "kernels/cpu/attention/layout.h"
#include "kernels/cpu/product/bf16_row.h"
#include "kernels/cpu/product/pack.h"
#include "kernels/cpu/quant/activations.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

Index kv_page_floats(const AttentionShape& shape) {
  return KeyValueLayout(shape).head_bytes / static_cast<Index>(sizeof(float)) * shape.kv_heads;
}

namespace {

// Pairs of `rows` queries behind `before` tokens with what they see.
Index pairs(const AttentionShape& shape, Index before, Index rows) {
  if (shape.mask == AttentionMask::full) return rows * rows;
  if (shape.window == 0) return rows * before + rows * (rows + 1) / 2;
  return rows * std::min(shape.window, before + rows);
}

}  // namespace

OpWork work_of(const AttentionShape& shape, std::span<const std::int32_t> offsets,
               const AttentionCost& cost) {
  OpWork work;
  Index seen = 0;
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
    seen += pairs(shape, 0, offsets[s + 1] - offsets[s]);
  }
  const Index tokens = offsets.empty() ? 0 : offsets.back();
  work.flop = shape.heads * (seen * (cost.product * shape.head_width + cost.pair) +
                             tokens * cost.query * shape.head_width);
  // And the logarithm of each row's sum.
  work.bytes =
      4 * tokens *
      ((cost.wide * shape.heads + cost.narrow * shape.kv_heads) * shape.head_width + shape.heads);
  return work;
}

OpWork work_of(const AttentionShape& shape, std::span<const SequenceRows> sequences) {
  OpWork work;
  Index queries = 0;
  for (const SequenceRows& rows : sequences) {
    queries += rows.rows;
    work.flop += pairs(shape, rows.first_position, rows.rows);
    const Index seen = rows.first_position + rows.rows;
    work.bytes += shape.window > 0 ? std::min(seen, shape.window + rows.rows) : seen;
  }
  work.flop *= shape.heads * (kForwardCost.product * shape.head_width + kForwardCost.pair);
  work.bytes *= 2 * shape.kv_heads * shape.head_width * KeyValueLayout(shape).element_bytes;
  work.bytes += 8 * queries * shape.heads * shape.head_width;
  return work;
}

Result<> check_attention_shape(const char* op, const AttentionShape& shape) {
  const auto wrong = [op](const std::string& what) {
    return Error{ErrorCode::invalid_argument, std::string(op) + ": " + what};
  };
  if (shape.kv_heads < 1 || shape.heads < 1 || shape.heads % shape.kv_heads != 0 ||
      shape.head_width < 8 || shape.head_width % 8 != 0 || shape.head_width > kHeadWidthMax) {
    return wrong("heads " + std::to_string(shape.heads) + ", kv_heads " +
                 std::to_string(shape.kv_heads) + ", head width " +
                 std::to_string(shape.head_width) +
                 "; kv_heads must divide heads, the width be a multiple of 8 up to 256");
  }
  if (shape.window < 0 || (shape.window > 0 && shape.mask == AttentionMask::full)) {
    return wrong("window " + std::to_string(shape.window) +
                 "; it counts tokens of a causal mask, or is 0");
  }
  if (!(shape.soft_cap >= 0.0F)) return wrong("the soft cap is negative");
  return {};
}

Result<> check_sample_offsets(const char* op, std::span<const std::int32_t> offsets, Index tokens) {
  if (!offsets.empty() && offsets.front() == 0 && offsets.back() == tokens &&
      std::is_sorted(offsets.begin(), offsets.end())) {
    return {};
  }
  return Error{ErrorCode::invalid_argument,
               std::string(op) + ": sample offsets must ascend from 0 to the number of tokens, " +
                   std::to_string(tokens)};
}

namespace {

// Rows of keys and values of one head that go to slots [slot, slot + keys.rows) of a page.
struct Slots {
  const KeyValueLayout& layout;
  float* page = nullptr;
  Index kv_head = 0;
  Index slot = 0;
  ConstMatrix keys;
  ConstMatrix values;
};

void write_f32(const Slots& s) {
  const Index stride = s.layout.value_stride;
  transpose_into(s.keys, s.layout.keys<float>(s.page, s.kv_head) + s.slot, kKeyBlock);
  copy_rows(s.values, s.layout.values<float>(s.page, s.kv_head) + s.slot * stride, stride);
}

// Eight keys of eight numbers, `stride` apart, become eight numbers of eight keys, 64 apart.
inline void turn_8x8(const std::uint16_t* from, Index stride, std::uint16_t* to) {
  __m128i row[8];
  for (int r = 0; r < 8; ++r) {
    row[r] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + r * stride));
  }
  __m128i two[8];  // keys r, r + 1 side by side
  for (int r = 0; r < 8; r += 2) {
    two[r] = _mm_unpacklo_epi16(row[r], row[r + 1]);
    two[r + 1] = _mm_unpackhi_epi16(row[r], row[r + 1]);
  }
  for (int half = 0; half < 2; ++half) {
    const __m128i a = _mm_unpacklo_epi32(two[half], two[2 + half]);
    const __m128i b = _mm_unpackhi_epi32(two[half], two[2 + half]);
    const __m128i c = _mm_unpacklo_epi32(two[4 + half], two[6 + half]);
    const __m128i d = _mm_unpackhi_epi32(two[4 + half], two[6 + half]);
    const __m128i turned[4] = {_mm_unpacklo_epi64(a, c), _mm_unpackhi_epi64(a, c),
                               _mm_unpacklo_epi64(b, d), _mm_unpackhi_epi64(b, d)};
    for (int i = 0; i < 4; ++i) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + (half * 4 + i) * kKeyBlock), turned[i]);
    }
  }
}

inline void turn_8x8(const std::int8_t* from, Index stride, std::int8_t* to) {
  const auto row = [&](int r) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + r * stride));
  };
  const __m128i ab = _mm_unpacklo_epi8(row(0), row(1));
  const __m128i cd = _mm_unpacklo_epi8(row(2), row(3));
  const __m128i ef = _mm_unpacklo_epi8(row(4), row(5));
  const __m128i gh = _mm_unpacklo_epi8(row(6), row(7));
  const __m128i low[2] = {_mm_unpacklo_epi16(ab, cd), _mm_unpackhi_epi16(ab, cd)};
  const __m128i high[2] = {_mm_unpacklo_epi16(ef, gh), _mm_unpackhi_epi16(ef, gh)};
  for (int half = 0; half < 2; ++half) {
    const __m128i turned[2] = {_mm_unpacklo_epi32(low[half], high[half]),
                               _mm_unpackhi_epi32(low[half], high[half])};
    for (int i = 0; i < 2; ++i) {
      std::int8_t* const place = to + (half * 4 + 2 * i) * kKeyBlock;
      _mm_storel_epi64(reinterpret_cast<__m128i*>(place), turned[i]);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(place + kKeyBlock),
                       _mm_unpackhi_epi64(turned[i], turned[i]));
    }
  }
}

// Rows of keys, [count][width], to their slots of a page's [width][64]; the width is a multiple of
// eight.
template <class Code>
void put_keys(const Code* rows, Index count, Index width, Code* slots) {
  const Index whole = count / 8 * 8;
  for (Index i = 0; i < width; i += 8) {
    for (Index r = 0; r < whole; r += 8) {
      turn_8x8(rows + r * width + i, width, slots + i * kKeyBlock + r);
    }
  }
  for (Index i = 0; i < width; ++i) {
    for (Index r = whole; r < count; ++r) slots[i * kKeyBlock + r] = rows[r * width + i];
  }
}

// Rows lie too far apart for the machine to foresee; a prefetch behind the last is ignored.
inline void ask_ahead(const Slots& s, Index row) {
  constexpr Index kRowsAhead = 16;
  constexpr Index kLine = 16;
  const auto ask = [&](const ConstMatrix& from) {
    const auto first = reinterpret_cast<std::uintptr_t>(from.data);
    for (Index c = 0; c < from.columns; c += kLine) {
      const auto at = static_cast<std::uintptr_t>((row + kRowsAhead) * from.stride + c);
      _mm_prefetch(reinterpret_cast<const char*>(first + at * sizeof(float)), _MM_HINT_T1);
    }
  };
  ask(s.keys);
  ask(s.values);
}

void write_bf16(const Slots& s) {
  const Index width = s.keys.columns;
  const Index stride = s.layout.value_stride;
  std::uint16_t keys[kKeyBlock * kHeadWidthMax];
  std::uint16_t* const values = s.layout.values<std::uint16_t>(s.page, s.kv_head) + s.slot * stride;
  for (Index r = 0; r < s.keys.rows; ++r) {
    ask_ahead(s, r);
    round_to_bf16(s.keys.row(r), keys + r * width, width);
    round_to_bf16(s.values.row(r), values + r * stride, width);
  }
  put_keys(keys, s.keys.rows, width, s.layout.keys<std::uint16_t>(s.page, s.kv_head) + s.slot);
}

void write_int8(const Slots& s) {
  const Index width = s.keys.columns;
  const Index stride = s.layout.value_stride;
  std::int8_t keys[kKeyBlock * kHeadWidthMax];
  std::int8_t* const values = s.layout.values<std::int8_t>(s.page, s.kv_head) + s.slot * stride;
  for (Index r = 0; r < s.keys.rows; ++r) {
    const Index slot = s.slot + r;
    ask_ahead(s, r);
    s.layout.key_scales(s.page, s.kv_head)[slot] =
        round_to_int8(s.keys.row(r), width, keys + r * width);
    s.layout.value_scales(s.page, s.kv_head)[slot] =
        round_to_int8(s.values.row(r), width, values + r * stride);
  }
  put_keys(keys, s.keys.rows, width, s.layout.keys<std::int8_t>(s.page, s.kv_head) + s.slot);
}

}  // namespace

void write_key_head(const KeyValueWrite& args, const SequenceRows& rows, Index kv_head) {
  const KeyValueLayout layout(args.shape);
  const Index width = args.shape.head_width;
  for (Index done = 0; done < rows.rows;) {
    const Index position = rows.first_position + done;
    const Index slot = position % kKeyBlock;
    const Index count = std::min(kKeyBlock - slot, rows.rows - done);
    const auto band = [&](const ConstMatrix& from) {
      return from.row_range(rows.first_row + done, count).column_range(kv_head * width, width);
    };
    const Slots slots{layout,       rows.pages[static_cast<std::size_t>(position / kKeyBlock)],
                      kv_head,      slot,
                      band(args.k), band(args.v)};
    switch (args.shape.cache) {
      case CacheType::f32: write_f32(slots); break;
      case CacheType::bf16: write_bf16(slots); break;
      case CacheType::int8: write_int8(slots); break;
    }
    done += count;
  }
}

Result<> kv_write(const OpContext& ctx, const KeyValueWrite& args) {
  const AttentionShape& shape = args.shape;
  if (auto checked = check_attention_shape("kv_write", shape); !checked) return checked;
  if (args.k.columns != shape.kv_heads * shape.head_width || args.v.columns != args.k.columns ||
      args.v.rows != args.k.rows) {
    return Error{ErrorCode::invalid_argument,
                 "kv_write: k and v must be [tokens, kv_heads * head_width]"};
  }
  for (const SequenceRows& rows : args.sequences) {
    if (rows.first_row < 0 || rows.rows < 0 || rows.first_row + rows.rows > args.k.rows ||
        rows.first_position < 0 ||
        static_cast<Index>(rows.pages.size()) < kv_pages_for(rows.first_position + rows.rows)) {
      return Error{ErrorCode::invalid_argument,
                   "kv_write: a sequence's rows are not in the batch, or it has too few pages"};
    }
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const Index bytes = 2 * (4 + KeyValueLayout(shape).element_bytes);
  const OpTimer timer(Op::kv_write, {.bytes = bytes * args.k.rows * args.k.columns});
  const Index tasks = static_cast<Index>(args.sequences.size()) * shape.kv_heads;
  ctx.pool->parallel_for(tasks, 1, [&](int, Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      write_key_head(args, args.sequences[static_cast<std::size_t>(task / shape.kv_heads)],
                     task % shape.kv_heads);
    }
  });
  return {};
}

}  // namespace tutti::kernels
