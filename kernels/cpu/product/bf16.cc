// Products of bf16 numbers, and of fp32 ones that are rounded to them or to fp16: on the machinery
// of fp32, operands widened or as pairs of 32 bits for another tile, or by the tiles of AMX, which
// have their own.
#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/product/bf16_panels.h"
#include "kernels/cpu/product/bf16_row.h"
#include "kernels/cpu/product/finish.h"
#include "kernels/cpu/product/pack_bf16.h"
#include "kernels/cpu/product/product_call.h"
#include "kernels/cpu/product/rounded.h"
#include "kernels/cpu/product/tiles/blocks.h"
#include "kernels/cpu/product/tiles/product.h"
#include "kernels/cpu/row_split.h"
#include "kernels/ops/elementwise/fp16.h"
#include "kernels/ops/product_bf16.h"
#include "kernels/ops/weights/packed_bf16.h"
#include "protocol/base/cpu_features.h"

namespace tutti::kernels {

namespace {

// To the nearest that fp16 has, as fp32.
ConstMatrix in_fp16(const Workers& workers, const ConstMatrix& x) {
  const Matrix rounded = workers.op_scratch().matrix(x.rows, x.columns);
  workers.parallel_for(x.rows, rows_in_piece(x.columns), [&](int, Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const float* const from = x.row(r);
      float* const to = rounded.row(r);
      for (Index c = 0; c < x.columns; ++c) to[c] = rounded_to_fp16(from[c]);
    }
  });
  return rounded;
}

// Pairs of a sum, filled up to whole groups.
Index units_of(Bf16Arithmetic arithmetic, Index depth) {
  const Index group = arithmetic == Bf16Arithmetic::tiles ? kTileUnits : 1;
  return ((depth + 1) / 2 + group - 1) / group * group;
}

// Up to here the image of a widened weight is read; more rows share the cost of widening and
// packing the weight itself, into the layout that the fp32 tile likes better.
constexpr Index kImageRows = 256;

Result<> check(const char* op, ProductForm form, const Bf16Product& args, const ProductShape& s) {
  const PackedBf16Weight* const packed = args.packed;
  const bool matches =
      packed == nullptr || (form == ProductForm::nt && packed->arithmetic() == args.arithmetic &&
                            packed->outputs() == s.columns && packed->inputs() == s.depth);
  if (s.right_depth != s.depth || !outputs_fit(args, s.rows, s.columns) || !matches ||
      args.left.stride < args.left.columns || args.right.stride < args.right.columns) {
    return Error{ErrorCode::invalid_argument,
                 std::string(op) + ": left, right, its image, output or ends do not match"};
  }
  if (!has_bf16(args.arithmetic)) {
    return Error{ErrorCode::unsupported,
                 std::string(op) + ": the path in use has no such bf16 products"};
  }
  return {};
}

// The left operand is widened some rows at a time; the image as it is read.
Result<> run_widened_image(const OpContext& ctx, const Bf16Product& args) {
  return product_quantised(ctx, {.left = {},
                                 .right = &args.packed->widened(),
                                 .output = args.output,
                                 .activations = Activations::exact,
                                 .start = args.start,
                                 .bias = args.bias,
                                 .residual = args.residual,
                                 .activation = args.activation,
                                 .gate = args.gate,
                                 .narrow = args.narrow,
                                 .narrow_left = args.left});
}

// Operands of either type; `ends` has the output and what follows the sums.
template <class Element>
struct Operands {
  Bf16Arithmetic arithmetic;
  BasicMatrix<const Element> left;
  BasicMatrix<const Element> right;
  const float* image = nullptr;  // of `right`, if there is one
};

// Few rows read the right operand where it lies, if it is pairs already.
bool lies_paired(const Operands<float>&, const ProductShape&) { return false; }
bool lies_paired(const Operands<Bf16>& x, const ProductShape& s) {
  return x.image == nullptr && s.rows <= kImageRows && s.right_order == DepthOrder::inside;
}

template <class Element>
void run_tiles(const Workers& workers, const ProductShape& s, const Operands<Element>& x,
               Product& ends) {
  // Sums go on through memory in fp32, whatever they end as.
  if (ends.narrow) ends.output = workers.op_scratch().matrix(s.rows, s.columns);
  if (s.depth == 0) return finish_empty(ends, ends.output);
  product_by_tiles(workers, {x.left, s.left_order}, {x.right, s.right_order}, x.image, ends);
}

template <class Element>
void run_operands(const Workers& workers, ProductForm form, const Operands<Element>& x,
                  const Product& ends) {
  ArenaScope scope(workers.op_scratch());
  Product product = ends;
  if (x.arithmetic == Bf16Arithmetic::widened) {
    product.left = in_fp32(workers, x.left);
    product.right = {nullptr, x.right.rows, x.right.columns, x.right.stride};
    ProductCall call = call_of(form, product);
    call.widened = widened_right(x.right);
    return run_call(workers, call);
  }
  const ProductShape s = shape_of(form, x);
  if (x.arithmetic == Bf16Arithmetic::tiles) return run_tiles(workers, s, x, product);
  ProductCall call;
  call.rows = s.rows;
  call.columns = s.columns;
  call.depth = units_of(Bf16Arithmetic::native, s.depth);
  call.product = &product;
  call.image = x.image;
  call.panel = run_bf16_panel;
  call.left = pair_rows(workers, x.left, s.left_order, call.depth);
  if (lies_paired(x, s)) {
    call.right = pair_rows(workers, x.right, s.right_order, call.depth);
  } else if (call.image == nullptr) {
    call.image = pair_columns(workers, x.right, s.right_order, call.depth);
  }
  run_call(workers, call);
}

// As of an fp32 product, whose operands are another's.
Product ends_only(const Bf16Product& args) {
  return {.left = {},
          .right = {},
          .output = args.output,
          .start = args.start,
          .bias = args.bias,
          .residual = args.residual,
          .activation = args.activation,
          .gate = args.gate,
          .narrow = args.narrow};
}

constexpr Op kOps[] = {Op::product_bf16_nt, Op::product_bf16_nn, Op::product_bf16_tn};

Result<> run(const OpContext& ctx, const char* op, ProductForm form, const Bf16Product& args) {
  if (auto here = only_on_cpu(ctx, op); !here) return here;
  const ProductShape s = shape_of(form, args);
  if (auto checked = check(op, form, args, s); !checked) return checked;
  if (s.rows == 0 || s.columns == 0) return {};
  const bool widens = args.arithmetic == Bf16Arithmetic::widened;
  if (args.packed != nullptr && widens && (s.rows <= kImageRows || !args.right)) {
    return run_widened_image(ctx, args);  // which counts itself
  }
  const OpTimer timer(kOps[static_cast<int>(form)], work_of(args, s, sizeof(Bf16)));
  const bool by_pairs = args.packed != nullptr && !widens;
  run_operands(Workers(*ctx.pool), form,
               Operands<Bf16>{args.arithmetic, args.left, args.right,
                              by_pairs ? args.packed->pairs().image() : nullptr},
               ends_only(args));
  return {};
}

struct Profile {
  Bf16Arithmetic arithmetic;
  std::string_view name;
};
constexpr Profile kProfiles[] = {{Bf16Arithmetic::widened, "portable-bf16"},
                                 {Bf16Arithmetic::native, "avx512bf16-bf16"},
                                 {Bf16Arithmetic::tiles, "amx-bf16"}};

}  // namespace

bool can_round(const Rounding& rounding) {
  const auto* const arithmetic = std::get_if<Bf16Arithmetic>(&rounding);
  return arithmetic == nullptr || has_bf16(*arithmetic);
}

void run_bf16(const Workers& workers, ProductForm form, const Bf16Product& args) {
  run_operands(workers, form, Operands<Bf16>{args.arithmetic, args.left, args.right},
               ends_only(args));
}

void run_rounded(const Workers& workers, ProductForm form, const Product& args,
                 const Rounding& rounding) {
  if (const auto* const arithmetic = std::get_if<Bf16Arithmetic>(&rounding)) {
    return run_operands(workers, form, Operands<float>{*arithmetic, args.left, args.right}, args);
  }
  ArenaScope scope(workers.op_scratch());
  Product product = args;
  product.left = in_fp16(workers, args.left);
  product.right = in_fp16(workers, args.right);
  run_call(workers, call_of(form, product));
}

bool has_bf16(Bf16Arithmetic arithmetic) {
  if (arithmetic == Bf16Arithmetic::widened) return true;
  return cpu_path() == CpuPath::avx512bf16 &&
         (arithmetic == Bf16Arithmetic::native || has_amx_bf16());
}

Bf16Arithmetic fastest_bf16() {
  for (const auto arithmetic : {Bf16Arithmetic::tiles, Bf16Arithmetic::native}) {
    if (has_bf16(arithmetic)) return arithmetic;
  }
  return Bf16Arithmetic::widened;
}

std::string_view profile_of(Bf16Arithmetic arithmetic) {
  return kProfiles[static_cast<int>(arithmetic)].name;
}

std::optional<Bf16Arithmetic> arithmetic_of(std::string_view profile) {
  for (const Profile& row : kProfiles) {
    if (row.name == profile) return row.arithmetic;
  }
  return std::nullopt;
}

Result<PackedBf16Weight> pack_bf16_weight(const OpContext& ctx, const Bf16Matrix& weight,
                                          Bf16Arithmetic arithmetic) {
  if (auto here = only_on_cpu(ctx, "pack_bf16_weight"); !here) return here.error();
  if (weight.stride < weight.columns) {
    return Error{ErrorCode::invalid_argument, "pack_bf16_weight: the weight's rows overlap"};
  }
  PackedBf16Weight made;
  made.arithmetic_ = arithmetic;
  made.outputs_ = weight.rows;
  made.inputs_ = weight.columns;
  if (!has_bf16(arithmetic)) {
    return Error{ErrorCode::unsupported,
                 "pack_bf16_weight: the path in use has no such bf16 products"};
  }
  const OpTimer timer(Op::pack_bf16_weight, {.bytes = 4 * weight.rows * weight.columns});
  if (arithmetic != Bf16Arithmetic::widened) {
    ArenaScope scope(ctx.pool->op_scratch());
    const Index units = units_of(arithmetic, weight.columns);
    auto pairs = pack_weight(ctx, pair_rows(Workers(*ctx.pool), weight, DepthOrder::inside, units));
    if (!pairs) return pairs.error();
    made.pairs_ = *std::move(pairs);
    return made;
  }
  const auto columns = static_cast<std::size_t>(weight.columns);
  std::vector<Bf16> rows(static_cast<std::size_t>(weight.rows) * columns);
  for (Index r = 0; r < weight.rows; ++r) {
    std::copy_n(weight.row(r), columns,
                rows.begin() + static_cast<std::ptrdiff_t>(r) * weight.columns);
  }
  auto widened = pack_rows(ctx, WeightFormat::bf16, std::as_bytes(std::span(rows)), weight.rows);
  if (!widened) return widened.error();
  made.widened_ = *std::move(widened);
  return made;
}

Result<> product_bf16_nt(const OpContext& ctx, const Bf16Product& args) {
  return run(ctx, "product_bf16_nt", ProductForm::nt, args);
}
Result<> product_bf16_nn(const OpContext& ctx, const Bf16Product& args) {
  return run(ctx, "product_bf16_nn", ProductForm::nn, args);
}
Result<> product_bf16_tn(const OpContext& ctx, const Bf16Product& args) {
  return run(ctx, "product_bf16_tn", ProductForm::tn, args);
}

}  // namespace tutti::kernels
