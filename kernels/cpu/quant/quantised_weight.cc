#include "kernels/ops/weights/quantised_weight.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/product/product_call.h"
#include "kernels/cpu/quant/activations.h"
#include "kernels/cpu/quant/cells.h"
#include "kernels/cpu/quant/image.h"

namespace tutti::kernels {

namespace {

// Groups that are handed out together: as wide as a panel of the fp32 image.
constexpr Index kTaskGroups = 4;
constexpr Index kTaskOutputs = kTaskGroups * kGroup;
constexpr Index kChannelInputsMax = 131072;

Index groups_of(Index outputs) { return (outputs + kTaskOutputs - 1) / kTaskOutputs * kTaskGroups; }
Index cells_of(Index inputs) { return (inputs + kCell - 1) / kCell; }

Error refused(std::string what) { return Error{ErrorCode::invalid_argument, std::move(what)}; }

GroupDot dot_for(WeightFormat format) {
  switch (cpu_path()) {
    case CpuPath::scalar: return scalar_dot(format);
    case CpuPath::avx2:
    case CpuPath::avx512: return avx2_dot(format);
    case CpuPath::avx512bf16: return vnni_dot(format);
  }
  return scalar_dot(format);
}

const std::uint8_t* group_at(const QuantisedWeight& weight, Index group) {
  return reinterpret_cast<const std::uint8_t*>(weight.image()) +
         group * layout_of(weight.format()).group_bytes(cells_of(weight.inputs()));
}

// Bias and residual of outputs [column, +columns), in the order of product_nt.
void finish(const QuantisedProduct& args, Index column, Index columns) {
  for (Index r = 0; r < args.output.rows; ++r) {
    float* const output = args.output.row(r) + column;
    if (args.bias != nullptr) {
      for (Index c = 0; c < columns; ++c) output[c] += args.bias[column + c];
    }
    if (args.residual) {
      const float* const residual = args.residual.row(r) + column;
      for (Index c = 0; c < columns; ++c) output[c] += residual[c];
    }
  }
}

void run_int8(const OpContext& ctx, const QuantisedProduct& args) {
  const QuantisedWeight& weight = *args.right;
  const bool channel = weight.format() == WeightFormat::int8_channel;
  ArenaScope scope(ctx.pool->op_scratch());
  const Int8Rows x = quantise_activations(ctx, args.left, channel ? ScaleBy::row : ScaleBy::cell);
  const GroupDot dot = dot_for(weight.format());
  const Index rows = args.left.rows;
  const auto task = [&](Index first, float* sums) {
    const Index column = first * kTaskOutputs;
    const Index columns = std::min(kTaskOutputs, weight.outputs() - column);
    const auto bytes = static_cast<std::size_t>(columns) * sizeof(float);
    std::memset(sums, 0, static_cast<std::size_t>(rows * kTaskOutputs) * sizeof(float));
    if (args.start == ChainStart::output) {
      for (Index r = 0; r < rows; ++r) {
        std::memcpy(sums + r * kTaskOutputs, args.output.row(r) + column, bytes);
      }
    }
    GroupCall call{.group = group_at(weight, first * kTaskGroups),
                   .cells = x.cells,
                   .rows = rows,
                   .x = x.codes,
                   .scales = x.scales,
                   .halves = x.halves,
                   .sums = sums,
                   .sums_stride = kTaskOutputs,
                   .groups = kTaskGroups};
    if (channel) {
      dot(call);
    } else {
      for (Index g = 0; g < (columns + kGroup - 1) / kGroup; ++g) {
        call.group = group_at(weight, first * kTaskGroups + g);
        call.sums = sums + g * kGroup;
        dot(call);
      }
    }
    for (Index r = 0; r < rows; ++r) {
      std::memcpy(args.output.row(r) + column, sums + r * kTaskOutputs, bytes);
    }
    finish(args, column, columns);
  };
  ctx.pool->parallel_for(
      groups_of(weight.outputs()) / kTaskGroups, 1, [&](int thread, Index begin, Index end) {
        ArenaScope thread_scope(ctx.pool->scratch(thread));
        float* const sums = ctx.pool->scratch(thread).floats(rows * kTaskOutputs);
        for (Index t = begin; t < end; ++t) task(t, sums);
      });
}

// Columns are dequantised piece by piece into an fp32 image that stays in cache, and multiplied.
void run_exact(const OpContext& ctx, const QuantisedProduct& args) {
  const QuantisedWeight& weight = *args.right;
  constexpr Index kPieceFloats = Index{1} << 19;
  const Index depth = weight.inputs();
  const Index panels = groups_of(weight.outputs()) / kTaskGroups;
  const Index panel_floats = depth * kTaskOutputs;
  const Index together = std::clamp<Index>(kPieceFloats / panel_floats, ctx.pool->threads(),
                                           std::max<Index>(panels, 1));
  ArenaScope scope(ctx.pool->op_scratch());
  float* const image = ctx.pool->op_scratch().floats(std::min(together, panels) * panel_floats);
  for (Index first = 0; first < panels; first += together) {
    const Index count = std::min(together, panels - first);
    ctx.pool->parallel_for(count * kTaskGroups, 1, [&](int, Index begin, Index end) {
      for (Index g = begin; g < end; ++g) {
        read_group(weight.format(), group_at(weight, first * kTaskGroups + g), depth,
                   image + g / kTaskGroups * panel_floats + g % kTaskGroups * kGroup, kTaskOutputs);
      }
    });
    const Index column = first * kTaskOutputs;
    const Index columns = std::min(count * kTaskOutputs, weight.outputs() - column);
    Product product{.left = args.left,
                    .right = {},
                    .output = args.output.column_range(column, columns),
                    .start = args.start,
                    .bias = args.bias != nullptr ? args.bias + column : nullptr};
    if (args.residual) product.residual = args.residual.column_range(column, columns);
    run_product(ctx, {.rows = args.left.rows,
                      .columns = columns,
                      .depth = depth,
                      .left = args.left,
                      .right = {},
                      .product = &product,
                      .image = image});
  }
}

}  // namespace

Result<QuantisedWeight> pack_rows(const OpContext& ctx, WeightFormat format,
                                  std::span<const std::byte> rows, Index outputs) {
  if (auto here = only_on_cpu(ctx, "pack_rows"); !here) return here.error();
  // Bytes of a row tell its inputs: each format's are proportional to them.
  const std::size_t row = outputs > 0 ? rows.size() / static_cast<std::size_t>(outputs) : 0;
  const std::size_t fixed = row_bytes(format, 0);
  const std::size_t block = row_bytes(format, block_inputs(format)) - fixed;
  if (outputs < 0 || (outputs > 0 && rows.size() % static_cast<std::size_t>(outputs) != 0) ||
      row < (outputs > 0 ? fixed : 0) || (outputs > 0 && (row - fixed) % block != 0)) {
    return refused("pack_rows: " + std::to_string(rows.size()) + " bytes are no " +
                   std::to_string(outputs) + " rows of " + std::string(to_string(format)));
  }
  QuantisedWeight weight;
  weight.format_ = format;
  weight.outputs_ = outputs;
  weight.inputs_ =
      outputs > 0 ? static_cast<Index>((row - fixed) / block) * block_inputs(format) : 0;
  const Index cells = cells_of(weight.inputs_);
  const Index group_bytes = layout_of(format).group_bytes(cells);
  weight.image_ =
      AlignedBytes(static_cast<std::size_t>(groups_of(outputs) * group_bytes + kGroup * 4));
  auto* const image = reinterpret_cast<std::uint8_t*>(weight.image_.data());
  const Index groups = (outputs + kGroup - 1) / kGroup;
  ctx.pool->parallel_for(groups, 1, [&](int, Index begin, Index end) {
    RowCodes codes;
    for (Index o = begin * kGroup; o < std::min(end * kGroup, outputs); ++o) {
      take_apart(format, rows.data() + static_cast<std::size_t>(o) * row, weight.inputs_, codes);
      lay_out_row(format, codes, cells, o % kGroup, image + o / kGroup * group_bytes);
    }
  });
  return weight;
}

Result<QuantisedWeight> quantise_weight(const OpContext& ctx, WeightFormat format,
                                        ConstMatrix weight) {
  if (auto here = only_on_cpu(ctx, "quantise_weight"); !here) return here.error();
  const std::size_t row = row_bytes(format, weight.columns);
  std::vector<std::byte> rows(row * static_cast<std::size_t>(weight.rows));
  if (weight.columns % block_inputs(format) != 0) {
    return refused("quantise_weight: " + std::to_string(weight.columns) +
                   " inputs are no whole blocks of " + std::string(to_string(format)));
  }
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

Result<> product_quantised(const OpContext& ctx, const QuantisedProduct& args) {
  if (auto here = only_on_cpu(ctx, "product_quantised"); !here) return here;
  const QuantisedWeight* const weight = args.right;
  if (weight == nullptr || args.left.columns != weight->inputs() ||
      args.output.rows != args.left.rows || args.output.columns != weight->outputs() ||
      args.output.stride < args.output.columns ||
      (args.residual &&
       (args.residual.rows != args.output.rows || args.residual.columns != args.output.columns))) {
    return refused("product_quantised: left, right, output or residual do not match");
  }
  if (args.activations == Activations::int8) {
    if (weight->format() == WeightFormat::nf4) {
      return refused("product_quantised: nf4 has no integer codes; use exact activations");
    }
    if (weight->format() == WeightFormat::int8_channel && weight->inputs() > kChannelInputsMax) {
      return refused("product_quantised: int8_channel sums at most 131,072 inputs");
    }
  }
  if (args.output.rows == 0 || args.output.columns == 0) return {};
  if (weight->inputs() == 0) {
    for (Index r = 0; args.start == ChainStart::zero && r < args.output.rows; ++r) {
      std::fill_n(args.output.row(r), args.output.columns, 0.0F);
    }
    finish(args, 0, args.output.columns);
    return {};
  }
  if (args.activations == Activations::int8) {
    run_int8(ctx, args);
  } else {
    run_exact(ctx, args);
  }
  return {};
}

}  // namespace tutti::kernels
