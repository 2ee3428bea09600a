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
  if (args.right == nullptr || !has_integer_codes(args.right->format())) return false;
  const Index inputs = args.right->inputs();
  const bool channel = args.right->format() == WeightFormat::int8_channel;
  return args.codes.columns == inputs && args.codes.stride >= inputs &&
         (!channel || (inputs <= kChannelInputsMax && args.scales.columns == 1)) &&
         scales_fit(args.scales, args.codes.rows, inputs) &&
         outputs_fit(args, args.codes.rows, args.right->outputs());
}

// The rows as the integer kernels read them; none where a code is -128, whose negative is no int8.
Int8Rows take_rows(const OpContext& ctx, const Int8Product& args) {
  const BasicMatrix<const std::int8_t>& codes = args.codes;
  Int8Rows rows = make_int8_rows(ctx, codes.rows, codes.columns);
  std::atomic<bool> wrong{false};
  ctx.pool->parallel_for(
      codes.rows, rows_in_piece(codes.columns), [&](int, Index begin, Index end) {
        for (Index r = begin; r < end; ++r) {
          std::int8_t* const own = rows.codes + r * rows.inputs();
          std::memcpy(own, codes.row(r), static_cast<std::size_t>(codes.columns));
          std::memset(own + codes.columns, 0,
                      static_cast<std::size_t>(rows.inputs() - codes.columns));
          const float* const scales = args.scales.row(r);
          const Index step = args.scales.columns == 1 ? 0 : 1;
          for (Index c = 0; c < rows.cells; ++c) rows.scales[r * rows.cells + c] = scales[c * step];
          const std::int8_t* const end_of_row = own + rows.inputs();
          if (std::find(static_cast<const std::int8_t*>(own), end_of_row,
                        std::numeric_limits<std::int8_t>::min()) != end_of_row) {
            wrong = true;
          }
          sum_halves(rows, r);
        }
      });
  return wrong ? Int8Rows() : rows;
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
  ArenaScope scope(ctx.pool->op_scratch());
  const Int8Rows x = take_rows(ctx, args);
  if (x.codes == nullptr && weight->inputs() > 0) return refused("product_int8: a code is -128");
  const QuantisedProduct product{.left = ConstMatrix(nullptr, rows, weight->inputs()),
                                 .right = weight,
                                 .output = args.output,
                                 .start = args.start,
                                 .bias = args.bias,
                                 .residual = args.residual,
                                 .activation = args.activation,
                                 .gate = args.gate,
                                 .narrow = args.narrow};
  const OpTimer timer(Op::product_low_precision, work_of(product, *weight, weight->bytes()));
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
  const OpTimer timer(Op::to_int8_rows, {.bytes = 5 * x.rows * x.columns});
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
