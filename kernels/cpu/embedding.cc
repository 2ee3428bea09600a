// Copies and additions of whole rows; plain C++, which both instruction sets run alike.
#include "kernels/ops/embedding.h"
#include "kernels/tensor/device.h"

#include <algorithm>
#include <string>

#include "kernels/cpu/product/bf16_row.h"
#include "kernels/cpu/row_split.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

namespace {

Result<> check(const char* op, std::span<const std::int32_t> tokens, const ConstMatrix& table,
               const ConstMatrix& rows) {
  if (rows.rows != static_cast<Index>(tokens.size()) || rows.columns != table.columns) {
    return Error{ErrorCode::invalid_argument,
                 std::string(op) + ": tokens, rows and table do not match"};
  }
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= table.rows) {
      return Error{ErrorCode::invalid_argument,
                   std::string(op) + ": token " + std::to_string(token) +
                       " is not in the table of " + std::to_string(table.rows)};
    }
  }
  return {};
}

void widen(const Bf16* from, Index count, float* to) {
  for (Index i = 0; i < count; ++i) to[i] = widened(from[i]);
}

// Columns that one thread adds for all tokens: whole cache lines.
constexpr Index kColumnsInPiece = 32;

}  // namespace

Result<> embedding_forward(const OpContext& ctx, const EmbeddingForward& args) {
  if (auto checked = check("embedding_forward", args.tokens, args.table, args.output); !checked) {
    return checked;
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::embedding_forward, {.bytes = 8 * args.output.rows * args.output.columns});
  const Index width = args.table.columns;
  ctx.pool->parallel_for(args.output.rows, rows_in_piece(args.output.columns),
                         [&](int, Index begin, Index end) {
                           for (Index row = begin; row < end; ++row) {
                             const Index token = args.tokens[static_cast<std::size_t>(row)];
                             float* const to = args.output.row(row);
                             if (args.bf16 != nullptr) {
                               widen(args.bf16 + token * width, width, to);
                             } else {
                               std::copy_n(args.table.row(token), width, to);
                             }
                           }
                         });
  return {};
}

Result<> embedding_backward(const OpContext& ctx, const EmbeddingBackward& args) {
  if (auto checked = check("embedding_backward", args.tokens, args.dtable, args.dout); !checked) {
    return checked;
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::embedding_backward, {.flop = args.dout.rows * args.dout.columns,
                                               .bytes = 12 * args.dout.rows * args.dout.columns});
  // Threads share the columns, not the tokens: each sum is then one chain in token order.
  const Index pieces = (args.dout.columns + kColumnsInPiece - 1) / kColumnsInPiece;
  const Index grain = (pieces + ctx.pool->threads() - 1) / ctx.pool->threads();
  ctx.pool->parallel_for(pieces, grain, [&](int, Index begin, Index end) {
    const Index first = begin * kColumnsInPiece;
    const Index last = std::min(end * kColumnsInPiece, args.dout.columns);
    for (Index row = 0; row < args.dout.rows; ++row) {
      float* const to = args.dtable.row(args.tokens[static_cast<std::size_t>(row)]);
      const float* const from = args.dout.row(row);
      for (Index c = first; c < last; ++c) to[c] += from[c];
    }
  });
  return {};
}

}  // namespace tutti::kernels
