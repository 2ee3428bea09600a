#include "kernels/ops/key_value_pages.h"

#include <algorithm>
#include <string>

#include "kernels/cpu/key_value_layout.h"
#include "kernels/cpu/product/pack.h"

namespace tutti::kernels {

Index kv_page_floats(const AttentionShape& shape) {
  return KeyValueLayout(shape).head_floats * shape.kv_heads;
}

Result<> check_attention_shape(const char* op, const AttentionShape& shape) {
  if (shape.kv_heads >= 1 && shape.heads >= 1 && shape.heads % shape.kv_heads == 0 &&
      shape.head_width >= 8 && shape.head_width % 8 == 0 && shape.head_width <= kHeadWidthMax) {
    return {};
  }
  return Error{ErrorCode::invalid_argument,
               std::string(op) + ": heads " + std::to_string(shape.heads) + ", kv_heads " +
                   std::to_string(shape.kv_heads) + ", head width " +
                   std::to_string(shape.head_width) +
                   "; kv_heads must divide heads, the width be a multiple of 8 up to 256"};
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

void write_head(const KeyValueWrite& args, const SequenceRows& rows, Index kv_head) {
  const KeyValueLayout layout(args.shape);
  const Index width = args.shape.head_width;
  for (Index done = 0; done < rows.rows;) {
    const Index position = rows.first_position + done;
    const Index slot = position % kKeyBlock;
    const Index count = std::min(kKeyBlock - slot, rows.rows - done);
    float* const page = rows.pages[static_cast<std::size_t>(position / kKeyBlock)];
    const auto band = [&](const ConstMatrix& from) {
      return from.row_range(rows.first_row + done, count).column_range(kv_head * width, width);
    };
    transpose_into(band(args.k), layout.keys(page, kv_head) + slot, kKeyBlock);
    copy_rows(band(args.v), layout.values(page, kv_head) + slot * layout.value_stride,
              layout.value_stride);
    done += count;
  }
}

}  // namespace

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
  const Index tasks = static_cast<Index>(args.sequences.size()) * shape.kv_heads;
  ctx.pool->parallel_for(tasks, 1, [&](int, Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      write_head(args, args.sequences[static_cast<std::size_t>(task / shape.kv_heads)],
                 task % shape.kv_heads);
    }
  });
  return {};
}

}  // namespace tutti::kernels
