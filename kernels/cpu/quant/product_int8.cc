#include "kernels/ops/weights/product_int8.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/product/finish.h"
#include "kernels/cpu/quant/groups.h"
#include "kernels/cpu/quant/row_groups.h"
#include "kernels/cpu/row_split.h"

namespace tutti::kernels {

namespace {

Error refused(const char* what) { return Error{ErrorCode::invalid_argument, what}; }

// Whether there is one scale for each row, or for each of its cells.
template <class T>
bool scales_fit(const BasicMatrix<T>& scales, Index rows, Index inputs) {
  return scales.rows == rows && (scales.columns == 1 || scales.columns == cells_of(inputs)) &&
         scales.stride >= scales.columns && (rows == 0 || scales.columns == 0 || scales);
}

bool fits(const Int8Product& args) {
  if (args.right == nullptr) return false;
  const Index inputs = args.right->inputs();
  const bool channel = args.right->format() == WeightFormat::int8_channel;
  return args.codes.columns == inputs && args.codes.stride >= inputs &&
         (!channel || (inputs <= kChannelInputsMax && args.scales.columns == 1)) &&
         scales_fit(args.scales, args.codes.rows, inputs) &&
         outputs_fit(args, args.codes.rows, args.right->outputs());
}

bool has_lowest(const std::int8_t* codes, Index count) {
  constexpr std::int8_t kLowest = std::numeric_limits<std::int8_t>::min();
  return std::find(codes, codes + count, kLowest) != codes + count;
}

// use(row) for all rows; whether none of them has a code of -128, whose negative is no int8.
template <class Use>
bool each_row(const OpContext& ctx, const Int8Product& args, const Use& use) {
  const BasicMatrix<const std::int8_t>& codes = args.codes;
  std::atomic<bool> wrong{false};
  ctx.pool->parallel_for(codes.rows, rows_in_piece(codes.columns),
                         [&](int, Index begin, Index end) {
                           for (Index r = begin; r < end; ++r) {
                             use(r);
                             if (has_lowest(codes.row(r), codes.columns)) wrong = true;
                           }
                         });
  return !wrong;
}

// The rows as the integer kernels read them.
bool take_rows(const OpContext& ctx, const Int8Product& args, const Int8Rows& rows) {
  return each_row(ctx, args, [&](Index r) {
    std::int8_t* const own = rows.codes + r * rows.inputs();
    const Index inputs = args.codes.columns;
    std::memcpy(own, args.codes.row(r), static_cast<std::size_t>(inputs));
    std::memset(own + inputs, 0, static_cast<std::size_t>(rows.inputs() - inputs));
    const float* const scales = args.scales.row(r);
    const Index step = args.scales.columns == 1 ? 0 : 1;
    for (Index c = 0; c < rows.cells; ++c) rows.scales[r * rows.cells + c] = scales[c * step];
    sum_halves(rows, r);
  });
}

// Rows [first, first + count) as they are computed with.
QuantisedProduct rows_of(const Int8Product& args, Index first, Index count) {
  const auto some = [&](const auto& x) { return x ? x.row_range(first, count) : x; };
  return {.left = ConstMatrix(nullptr, count, args.codes.columns),
          .right = args.right,
          .output = some(args.output),
          .start = args.start,
          .bias = args.bias,
          .residual = some(args.residual),
          .activation = args.activation,
          .gate = some(args.gate),
          .narrow = some(args.narrow)};
}

void widen_row(const Int8Product& args, Index row, float* to) {
  const std::int8_t* const codes = args.codes.row(row);
  const float* const scales = args.scales.row(row);
  const bool by_row = args.scales.columns == 1;
  for (Index i = 0; i < args.codes.columns; ++i) {
    to[i] = scales[by_row ? 0 : i / kCell] * static_cast<float>(codes[i]);
  }
}

// By a weight whose values are no integers times a scale: rows in fp32, some at a time.
Result<> by_values(const OpContext& ctx, const Int8Product& args) {
  constexpr Index kTogether = 256;
  if (!each_row(ctx, args, [](Index) {})) return refused("product_int8: a code is -128");
  const Index rows = args.codes.rows;
  const Index inputs = args.codes.columns;
  ArenaScope scope(ctx.pool->op_scratch());
  const Matrix values = ctx.pool->op_scratch().matrix(std::min(rows, kTogether), inputs);
  for (Index first = 0; first < rows; first += kTogether) {
    const Index count = std::min(kTogether, rows - first);
    ctx.pool->parallel_for(count, rows_in_piece(inputs), [&](int, Index begin, Index end) {
      for (Index r = begin; r < end; ++r) widen_row(args, first + r, values.row(r));
    });
    QuantisedProduct some = rows_of(args, first, count);
    some.left = values.row_range(0, count);
    some.activations = Activations::exact;
    if (auto done = product_quantised(ctx, some); !done) return done;
  }
  return {};
}

}  // namespace

Result<> product_int8(const OpContext& ctx, const Int8Product& args) {
  if (auto here = only_on_cpu(ctx, "product_int8"); !here) return here;
  if (!fits(args)) {
    return refused("product_int8: codes, scales, weight, output or ends do not match");
  }
  const Index rows = args.codes.rows;
  const QuantisedWeight* const weight = args.right;
  if (rows == 0 || weight->outputs() == 0) return {};
  if (!has_integer_codes(weight->format())) return by_values(ctx, args);
  ArenaScope scope(ctx.pool->op_scratch());
  const Int8Rows x = make_int8_rows(ctx, rows, weight->inputs());
  if (!take_rows(ctx, args, x)) return refused("product_int8: a code is -128");
  const QuantisedProduct product = rows_of(args, 0, rows);
  const OpTimer timer(Op::product_int8, work_of(product, *weight, weight->bytes()));
  run_integer_groups(ctx, product, {{&weight, 1}, {&rows, 1}}, x);
  return {};
}

Result<> to_int8_rows(const OpContext& ctx, const ToInt8Rows& args) {
  if (auto here = only_on_cpu(ctx, "to_int8_rows"); !here) return here;
  const ConstMatrix& x = args.x;
  if (args.codes.rows != x.rows || args.codes.columns != x.columns ||
      args.codes.stride < x.columns || x.stride < x.columns ||
      !scales_fit(args.scales, x.rows, x.columns)) {
    return refused("to_int8_rows: x, codes or scales do not match");
  }
  const OpTimer timer(Op::to_int8_rows,
                      {.flop = x.rows * x.columns, .bytes = 5 * x.rows * x.columns});
  const Index width = args.scales.columns == 1 ? x.columns : kCell;
  ctx.pool->parallel_for(x.rows, rows_in_piece(x.columns), [&](int, Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      for (Index c = 0; c < args.scales.columns; ++c) {
        const Index first = c * width;
        args.scales.row(r)[c] = round_to_int8(x.row(r) + first, std::min(width, x.columns - first),
                                              args.codes.row(r) + first);
      }
    }
  });
  return {};
}

}  // namespace tutti::kernels
