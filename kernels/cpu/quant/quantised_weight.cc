#include "kernels/ops/weights/quantised_weight.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/product/finish.h"
#include "kernels/cpu/product/product_call.h"
#include "kernels/cpu/product/rounded.h"
#include "kernels/cpu/quant/activations.h"
#include "kernels/cpu/quant/bf16_rows.h"
#include "kernels/cpu/quant/cells.h"
#include "kernels/cpu/quant/fp8_rows.h"
#include "kernels/cpu/quant/groups.h"
#include "kernels/cpu/quant/image.h"
#include "kernels/cpu/quant/nf4_rows.h"
#include "kernels/cpu/quant/row_groups.h"
#include "kernels/cpu/quant/zero_rows.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/not_on_device.h"
#include "kernels/tensor/op_counters.h"
#include "protocol/base/cpu_features.h"

namespace tutti::kernels {

namespace {

Error refused(std::string what) { return Error{ErrorCode::invalid_argument, std::move(what)}; }

// VNNI came with Cascade Lake, bf16 later: either path of AVX-512 may have it.
bool has_integer_dots() {
  static const bool has = __builtin_cpu_supports("avx512vnni") != 0;
  return has;
}

GroupDot dot_for(WeightFormat format) {
  switch (cpu_path()) {
    case CpuPath::scalar: return scalar_dot(format);
    case CpuPath::avx2: return avx2_dot(format);
    case CpuPath::avx512: return has_integer_dots() ? vnni_dot(format) : avx2_dot(format);
    case CpuPath::avx512bf16: return has_amx_int8() ? amx_dot(format) : vnni_dot(format);
  }
  return scalar_dot(format);
}

void end_rows(const QuantisedProduct& args, const Stretch& rows, Index column, Index columns) {
  finish(ends_of(args), args.output, {rows.first, rows.depth, column, columns});
}

void take_sums(const QuantisedProduct& args, const Stretch& rows, Index column, Index columns,
               float* sums) {
  const auto bytes = static_cast<std::size_t>(columns) * sizeof(float);
  std::memset(sums, 0, static_cast<std::size_t>(rows.depth * kTaskOutputs) * sizeof(float));
  for (Index r = 0; args.start == ChainStart::output && r < rows.depth; ++r) {
    std::memcpy(sums + r * kTaskOutputs, args.output.row(rows.first + r) + column, bytes);
  }
}

void give_sums(const QuantisedProduct& args, const Stretch& rows, Index column, Index columns,
               const float* sums) {
  const auto bytes = static_cast<std::size_t>(columns) * sizeof(float);
  for (Index r = 0; r < rows.depth; ++r) {
    std::memcpy(args.output.row(rows.first + r) + column, sums + r * kTaskOutputs, bytes);
  }
  end_rows(args, rows, column, columns);
}

// Of all rows and cells; null where the format has none.
const CellTerm* terms_of(const OpContext& ctx, WeightFormat format, Index rows, const Int8Rows& x) {
  const bool channel = format == WeightFormat::int8_channel;
  if (!channel && !starts_cells(format) && !has_minimum(format)) return nullptr;
  auto* const terms = reinterpret_cast<CellTerm*>(
      ctx.pool->op_scratch().take(static_cast<std::size_t>(rows * x.cells) * sizeof(CellTerm)));
  for (Index r = 0; r < rows; ++r) {
    CellTerm* const own = terms + r * x.cells;
    const std::int16_t* const halves = x.halves + r * 2 * x.cells;
    std::int32_t total = 0;
    for (Index c = 0; c < x.cells; ++c) {
      const std::int32_t sum = halves[2 * c] + halves[2 * c + 1];
      total += sum;
      if (has_minimum(format)) {
        own[c].sum = static_cast<float>(sum);
      } else {
        own[c].start = -zero_of(format) * sum;
      }
    }
    if (channel && x.cells > 0) own[0].start = -zero_of(format) * total;
  }
  return terms;
}

// Rows whose codes stay in half of the second cache while the weight passes by, but not too few of
// them: whole tiles, 32 rows by AMX, else six and four.
Index rows_together(WeightFormat format, Index inputs) {
  const bool by_amx =
      format == WeightFormat::int8_channel && cpu_path() == CpuPath::avx512bf16 && has_amx_int8();
  const Index tiles = by_amx ? 32 : 12;
  const Index rows = second_cache_bytes() / 2 / std::max<Index>(1, inputs);
  return std::max(4 * tiles, rows / tiles * tiles);
}

// Rows of one group that are computed at once.
struct Piece {
  Index group = 0;
  Stretch rows;
};

// Of all rows in [strip.first, +depth), in their order and counted from there; `step` at most each.
std::span<const Piece> pieces_of(Arena& arena, const RowGroups& groups, const Stretch& strip,
                                 Index step) {
  const std::size_t most = groups.ends.size() + static_cast<std::size_t>(strip.depth / step);
  auto* const pieces = reinterpret_cast<Piece*>(arena.take(most * sizeof(Piece)));
  std::size_t count = 0;
  Index row = 0;
  for (std::size_t g = 0; g < groups.ends.size(); ++g) {
    const Index end = std::min(groups.ends[g] - strip.first, strip.depth);
    for (; row < end; row += pieces[count++].rows.depth) {
      pieces[count] = {static_cast<Index>(g), {row, std::min(step, end - row)}};
    }
  }
  return {pieces, count};
}

// `prepare(scratch)` gives what computes `task(product, panel, rows)` with memory of that thread;
// all panels of all pieces, threads sharing them.
template <class Prepare>
void each_panel(const OpContext& ctx, const QuantisedProduct& args, const RowGroups& groups,
                std::span<const Piece> pieces, const Prepare& prepare) {
  const Index panels = groups_of(groups.weights.front()->outputs()) / kTaskGroups;
  const auto count = static_cast<Index>(pieces.size());
  ctx.pool->parallel_for(count * panels, 1, [&](int thread, Index begin, Index end) {
    ArenaScope scope(ctx.pool->scratch(thread));
    const auto task = prepare(ctx.pool->scratch(thread));
    for (Index i = begin; i < end; ++i) {
      const Piece& piece = pieces[static_cast<std::size_t>(i / panels)];
      task(product_of(args, groups, piece.group), i % panels, piece.rows);
    }
  });
}

void run_integers(const OpContext& ctx, const QuantisedProduct& args, const RowGroups& groups,
                  const Int8Rows& x) {
  const WeightFormat format = groups.weights.front()->format();
  const bool channel = format == WeightFormat::int8_channel;
  const GroupDot dot = dot_for(format);
  const Index total = rows_of(args);
  ArenaScope scope(ctx.pool->op_scratch());
  const CellTerm* const terms = terms_of(ctx, format, total, x);
  const Index step = std::min(total, rows_together(format, x.inputs()));
  const auto pieces = pieces_of(ctx.pool->op_scratch(), groups, {0, total}, step);
  const auto task = [&](const QuantisedProduct& product, Index panel, const Stretch& rows,
                        float* sums) {
    const QuantisedWeight& weight = *product.right;
    const Index column = panel * kTaskOutputs;
    const Index columns = std::min(kTaskOutputs, weight.outputs() - column);
    const bool last = column + columns == weight.outputs();
    take_sums(product, rows, column, columns, sums);
    const Index cell = rows.first * x.cells;
    dot({.group = group_at(weight, panel * kTaskGroups),
         .cells = x.cells,
         .rows = rows.depth,
         .x = x.codes + cell * kCell,
         .scales = x.scales + cell,
         .halves = x.halves + 2 * cell,
         .sums = sums,
         .sums_stride = kTaskOutputs,
         .groups = channel ? kTaskGroups : (columns + kGroup - 1) / kGroup,
         .terms = terms != nullptr ? terms + cell : nullptr,
         .next = last ? nullptr : group_at(weight, (panel + 1) * kTaskGroups)});
    give_sums(product, rows, column, columns, sums);
  };
  each_panel(ctx, args, groups, pieces, [&](Arena& scratch) {
    float* const sums = scratch.floats(step * kTaskOutputs);
    return [&task, sums](const QuantisedProduct& product, Index panel, const Stretch& rows) {
      task(product, panel, rows, sums);
    };
  });
}

// Rows of a panel's product that one thread takes at once, where panels are too few for the
// threads.
constexpr Index kExactRows = 256;
// Rows of bf16 that are widened together.
constexpr Index kWidenedRows = 256;

// Whether the format's weights become fp32 in registers for so few rows.
bool widens_in_registers(WeightFormat format, Index rows) {
  if (cpu_path() == CpuPath::scalar) return false;
  return (format == WeightFormat::bf16 && rows <= kBf16RowsMax) ||
         (format == WeightFormat::nf4 && rows <= kNf4RowsMax) ||
         (is_fp8(format) && rows <= kFp8RowsMax) || (has_zeros(format) && rows <= kZeroRowsMax);
}

void run_register_panel(const QuantisedProduct& args, Index panel, const Stretch& rows,
                        float* sums) {
  const QuantisedWeight& weight = *args.right;
  const Index column = panel * kTaskOutputs;
  const Index columns = std::min(kTaskOutputs, weight.outputs() - column);
  const std::uint8_t* const groups = group_at(weight, panel * kTaskGroups);
  const ConstMatrix left = args.left.row_range(rows.first, rows.depth);
  take_sums(args, rows, column, columns, sums);
  const Index bytes = layout_of(weight.format()).group_bytes(cells_of(weight.inputs()));
  if (weight.format() == WeightFormat::bf16) {
    run_bf16_rows(left, reinterpret_cast<const std::uint16_t*>(groups), sums);
  } else if (is_fp8(weight.format())) {
    run_fp8_rows(weight.format(), left, groups, bytes, sums);
  } else if (has_zeros(weight.format())) {
    run_zero_rows(weight.format(), left, groups, bytes, sums);
  } else {
    const bool wide = cpu_path() != CpuPath::avx2;
    (wide ? run_nf4_rows_wide : run_nf4_rows)(left, groups, bytes, sums);
  }
  give_sums(args, rows, column, columns, sums);
}

// A panel of outputs by some rows: the weight is read as f32 piece by piece into the first cache
// (with more rows, the second), and the chains go on from piece to piece.
void run_exact_panel(const QuantisedProduct& args, Index panel, const Stretch& rows,
                     float* values) {
  const QuantisedWeight& weight = *args.right;
  const Index cells = cells_of(weight.inputs());
  const Index column = panel * kTaskOutputs;
  const Index columns = std::min(kTaskOutputs, weight.outputs() - column);
  if (widens_in_registers(weight.format(), rows.depth)) {
    return run_register_panel(args, panel, rows, values);
  }
  const Index together = rows.depth <= 4 ? 2 : kSuperCells;
  for (Index cell = 0; cell < cells; cell += together) {
    const Index count = std::min(together, cells - cell);
    for (Index g = 0; g < (columns + kGroup - 1) / kGroup; ++g) {
      read_cells(weight.format(), group_at(weight, panel * kTaskGroups + g), cell, count,
                 values + g * kGroup, kTaskOutputs);
    }
    run_image_panel(rows.depth, columns,
                    {.depth = std::min(count * kCell, weight.inputs() - cell * kCell),
                     .left = args.left.row(rows.first) + cell * kCell,
                     .left_stride = args.left.stride,
                     .right = values,
                     .right_stride = kTaskOutputs,
                     .output = args.output.row(rows.first) + column,
                     .output_stride = args.output.stride,
                     .start = cell == 0 ? args.start : ChainStart::output});
  }
  end_rows(args, rows, column, columns);
}

// `args` has the rows of `strip` as fp32.
void run_exact_strip(const OpContext& ctx, const QuantisedProduct& args, const RowGroups& groups,
                     const Stretch& strip) {
  ArenaScope scope(ctx.pool->op_scratch());
  const Index panels = groups_of(groups.weights.front()->outputs()) / kTaskGroups;
  const bool many = panels >= 4 * ctx.pool->threads();
  const auto pieces =
      pieces_of(ctx.pool->op_scratch(), groups, strip, many ? strip.depth : kExactRows);
  each_panel(ctx, args, groups, pieces, [](Arena& scratch) {
    // Of groups that do not exist, zeros.
    constexpr Index kFloats = kSuperCells * kCell * kTaskOutputs;
    float* const values = scratch.floats(kFloats);
    std::memset(values, 0, kFloats * sizeof(float));
    return [values](const QuantisedProduct& product, Index panel, const Stretch& rows) {
      run_exact_panel(product, panel, rows, values);
    };
  });
}

void run_exact(const OpContext& ctx, const QuantisedProduct& args, const RowGroups& groups) {
  const Index rows = rows_of(args);
  if (!args.narrow_left) return run_exact_strip(ctx, args, groups, {0, rows});
  for (Index first = 0; first < rows; first += kWidenedRows) {
    const Stretch strip{first, std::min(kWidenedRows, rows - first)};
    ArenaScope scope(ctx.pool->op_scratch());
    QuantisedProduct wide = row_range(args, strip);
    wide.left = in_fp32(Workers(*ctx.pool), wide.narrow_left);
    wide.narrow_left = {};
    run_exact_strip(ctx, wide, groups, strip);
  }
}

// `run` gives the sums an fp32 output; without inputs there is nothing but ends.
template <class Run>
void with_output(const OpContext& ctx, const QuantisedProduct& args, const RowGroups& groups,
                 const Run& run) {
  const QuantisedWeight& weight = *groups.weights.front();
  ArenaScope scope(ctx.pool->op_scratch());
  QuantisedProduct whole = args;
  if (args.narrow) whole.output = ctx.pool->op_scratch().matrix(rows_of(args), weight.outputs());
  if (weight.inputs() > 0) return run(whole);
  for (const Piece& piece :
       pieces_of(ctx.pool->op_scratch(), groups, {0, rows_of(args)}, rows_of(args))) {
    const QuantisedProduct part = row_range(product_of(whole, groups, piece.group), piece.rows);
    finish_empty(part, part.output);
  }
}

}  // namespace

// With room for the last loads behind it; in whole cache lines, as a kept file has it.
std::size_t QuantisedWeight::image_bytes(WeightFormat format, Index outputs, Index inputs) {
  const Index groups = groups_of(outputs) * layout_of(format).group_bytes(cells_of(inputs));
  const auto bytes = static_cast<std::size_t>(groups + kGroup * 4);
  return (bytes + 63) / 64 * 64;
}

QuantisedWeight QuantisedWeight::view(WeightFormat format, Index outputs, Index inputs,
                                      const std::byte* image) {
  QuantisedWeight weight;
  weight.format_ = format;
  weight.outputs_ = outputs;
  weight.inputs_ = inputs;
  weight.elsewhere_ = image;
  return weight;
}

Result<QuantisedWeight> pack_rows(const OpContext& ctx, WeightFormat format,
                                  std::span<const std::byte> rows, Index outputs) {
  // Bytes of a row tell its inputs.
  const std::size_t row = outputs > 0 ? rows.size() / static_cast<std::size_t>(outputs) : 0;
  const Index inputs = outputs > 0 ? inputs_of(format, row) : 0;
  if (outputs < 0 || inputs < 0 || row * static_cast<std::size_t>(outputs) != rows.size()) {
    return refused("pack_rows: " + std::to_string(rows.size()) + " bytes are no " +
                   std::to_string(outputs) + " rows of " + std::string(to_string(format)));
  }
  QuantisedWeight weight;
  weight.format_ = format;
  weight.outputs_ = outputs;
  weight.inputs_ = inputs;
  const Index cells = cells_of(weight.inputs_);
  AlignedBytes laid_out(QuantisedWeight::image_bytes(format, outputs, weight.inputs_));
  const OpTimer timer(Op::pack_rows, {.bytes = static_cast<Index>(rows.size() + laid_out.size())});
  auto* const image = reinterpret_cast<std::uint8_t*>(laid_out.data());
  const Index groups = (outputs + kGroup - 1) / kGroup;
  std::atomic<const char*> fault{nullptr};
  ctx.pool->parallel_for(groups, 1, [&](int, Index begin, Index end) {
    RowCodes codes;
    for (Index o = begin * kGroup; o < std::min(end * kGroup, outputs); ++o) {
      take_apart(format, rows.data() + static_cast<std::size_t>(o) * row, weight.inputs_, codes);
      if (const char* const found = fault_of(format, codes, weight.inputs_); found != nullptr) {
        fault = found;
        return;
      }
      lay_out_row(format, codes, cells, o % kGroup,
                  image + group_offset(format, cells, o / kGroup));
    }
  });
  if (const char* const found = fault; found != nullptr) {
    return refused("pack_rows: " + std::string(to_string(format)) + " with " + found);
  }
  if (ctx.device == nullptr) {
    weight.image_ = std::move(laid_out);
    return weight;
  }
  weight.image_ = AlignedBytes(laid_out.size(), ctx.device);
  auto sent = ctx.device->upload(weight.image_.data(), laid_out.data(), laid_out.size());
  if (!sent) return std::move(sent).error();
  return weight;
}

Result<QuantisedWeight> quantise_weight(const OpContext& ctx, WeightFormat format,
                                        ConstMatrix weight) {
  const std::size_t row = row_bytes(format, weight.columns);
  std::vector<std::byte> rows(row * static_cast<std::size_t>(weight.rows));
  if (weight.columns % block_inputs(format) != 0) {
    return refused("quantise_weight: " + std::to_string(weight.columns) +
                   " inputs are no whole blocks of " + std::string(to_string(format)));
  }
  const OpTimer timer(Op::quantise_weight, {.flop = weight.rows * weight.columns,
                                            .bytes = 4 * weight.rows * weight.columns +
                                                     static_cast<Index>(rows.size())});
  std::atomic<bool> failed{false};
  ctx.pool->parallel_for(weight.rows, 4, [&](int, Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const std::span<const float> values(weight.row(r), static_cast<std::size_t>(weight.columns));
      if (!quantise_row(format, values,
                        std::span(rows).subspan(static_cast<std::size_t>(r) * row, row))) {
        failed = true;
      }
    }
  });
  if (failed) {
    return refused("quantise_weight: a weight is not finite, or too large for its scale");
  }
  return pack_rows(ctx, format, rows, weight.rows);
}

Result<> check_quantised(std::string_view op, const QuantisedProduct& args,
                         const QuantisedWeight& weight) {
  const auto no = [&](const std::string& what) { return refused(std::string(op) + what); };
  const BasicMatrix<const Bf16>& half = args.narrow_left;
  const bool narrow = half || half.rows > 0 || half.columns > 0;
  const auto fits = [&](const auto& left) {
    return left.columns == weight.inputs() && left.stride >= left.columns;
  };
  if (!(narrow ? fits(half) && !args.left && args.left.rows == 0 : fits(args.left)) ||
      !outputs_fit(args, rows_of(args), weight.outputs())) {
    return no(": left, right, output or ends do not match");
  }
  if (args.activations == Activations::exact) return {};
  if (!has_integer_codes(weight.format())) {
    return no(": " + std::string(to_string(weight.format())) +
              " has no integer codes; use exact activations");
  }
  if (weight.format() == WeightFormat::int8_channel && weight.inputs() > kChannelInputsMax) {
    return no(": int8_channel sums at most 131,072 inputs");
  }
  return {};
}

QuantisedProduct product_of(const QuantisedProduct& args, const RowGroups& groups, Index group) {
  QuantisedProduct product = args;
  product.right = groups.weights[static_cast<std::size_t>(group)];
  if (args.bias != nullptr) product.bias += group * groups.bias_step;
  return product;
}

QuantisedProduct row_range(const QuantisedProduct& args, const Stretch& rows) {
  QuantisedProduct part = args;
  const auto take = [&](auto& matrix) {
    if (matrix) matrix = matrix.row_range(rows.first, rows.depth);
  };
  take(part.left);
  take(part.narrow_left);
  take(part.output);
  take(part.residual);
  take(part.gate);
  take(part.narrow);
  return part;
}

void run_groups(const OpContext& ctx, const QuantisedProduct& args, const RowGroups& groups) {
  if (args.activations == Activations::exact) {
    return with_output(ctx, args, groups,
                       [&](const QuantisedProduct& whole) { run_exact(ctx, whole, groups); });
  }
  const bool channel = groups.weights.front()->format() == WeightFormat::int8_channel;
  const ScaleBy by = channel ? ScaleBy::row : ScaleBy::cell;
  ArenaScope scope(ctx.pool->op_scratch());
  run_integer_groups(ctx, args, groups,
                     args.narrow_left ? quantise_activations(ctx, args.narrow_left, by)
                                      : quantise_activations(ctx, args.left, by));
}

void run_integer_groups(const OpContext& ctx, const QuantisedProduct& args, const RowGroups& groups,
                        const Int8Rows& x) {
  with_output(ctx, args, groups,
              [&](const QuantisedProduct& whole) { run_integers(ctx, whole, groups, x); });
}

Result<> product_quantised(const OpContext& ctx, const QuantisedProduct& args) {
  const QuantisedWeight* const weight = args.right;
  if (weight == nullptr) return refused("product_quantised: without a weight");
  if (auto checked = check_quantised("product_quantised", args, *weight); !checked) return checked;
  const Index rows = rows_of(args);
  if (rows == 0 || weight->outputs() == 0) return {};
  if (ctx.device != nullptr) {
    if (args.narrow_left) {
      return not_on_device("product_quantised: bf16 rows");
    }
    return end_on_device(ctx, args,
                         [&](const QuantisedProduct& plain) { return ctx.device->enqueue(plain); });
  }
  const OpTimer timer(Op::product_quantised, work_of(args, *weight, weight->bytes()));
  run_groups(ctx, args, {{&weight, 1}, {&rows, 1}});
  return {};
}

}  // namespace tutti::kernels
