// The loss from hidden states, in chunks of rows: logits by a product, a kernel that turns them
// into losses and gradients, and two products back. Where products read 16 bits, the gradients are
// written so, once for both, else in place; the head is rounded once, and hidden rows once a chunk,
// where they are not given so.
//
// A chunk's rows are what the caller says, else depend on the vocabulary only, so that where the
// weight gradient is cut does not follow the batch.
#include <algorithm>
#include <optional>
#include <vector>

#include "kernels/cuda/convert.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_view.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/product.h"
#include "kernels/ops/weights/packed_weight.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 256;
constexpr Index kLogitsHeld = Index{1} << 26;
constexpr Index kRowsMin = 256;
constexpr Index kRowsMax = 8192;

// A target is `keep` of itself and `spread` of every token; without smoothing 1 and 0, which add
// nothing. Both are scaled as gradients are.
struct Smoothing {
  explicit Smoothing(const LinearCrossEntropy& args)
      : amount(args.smoothing),
        keep(args.scale * (1.0F - args.smoothing)),
        spread(args.scale * (args.smoothing / static_cast<float>(args.weight.rows))),
        scale(args.scale) {}
  float amount, keep, spread, scale;
};

// -log p of the smoothed target from the softmax's sum, the target's logit and that of all logits.
__device__ float smoothed_loss(const LogSum& sum, const Smoothing& smoothing, float chosen,
                               double mean) {
  auto target = static_cast<double>(chosen);
  if (smoothing.amount > 0.0F) {
    const auto amount = static_cast<double>(smoothing.amount);
    target = (1.0 - amount) * target + amount * mean;
  }
  return static_cast<float>(log64(static_cast<double>(sum.total)) +
                            (static_cast<double>(sum.top) - target));
}

// Where the gradient of logits goes: into 16 bits, rows of `stride`, zeros behind the vocabulary;
// or in their place, up to `padded`.
struct LogitSlopes {
  __device__ Index end() const { return narrow != nullptr ? stride : padded; }
  __device__ __forceinline__ void store(float* logits, Index row, Index i, float slope) const {
    if (narrow == nullptr) {
      logits[i] = slope;
      return;
    }
    narrow[row * stride + i] = narrowed(slope, type);
  }
  Index padded;
  std::uint16_t* narrow;  // null: in place
  Index stride;
  Narrow type;
};

// The exponentials are made again for the gradient: to keep them would be one more pass of writing.
__global__ void __launch_bounds__(kThreads)
    cross_entropy_kernel(Rows<float> logits, Index width, LogitSlopes slopes,
                         const std::int32_t* targets, float* losses, bool backward,
                         Smoothing smoothing) {
  TUTTI_SHARED(float, room, kThreads / kWarp);
  const Index row = blockIdx.x;
  float* const x = logits.at(row);
  const std::int32_t target = targets[row];
  if (target < 0) {
    if (threadIdx.x == 0) losses[row] = 0.0F;
    if (backward) {
      for (Index i = threadIdx.x; i < slopes.end(); i += kThreads) slopes.store(x, row, i, 0.0F);
    }
    return;
  }
  const float chosen = x[target];
  double mean = 0.0;
  if (smoothing.amount > 0.0F) {
    float total = 0.0F;
    for (Index i = threadIdx.x; i < width; i += kThreads) total += x[i];
    mean = static_cast<double>(block_sum(total, room)) / static_cast<double>(width);
  }
  const LogSum sum = log_sum<kThreads>(x, nullptr, width, room);
  if (threadIdx.x == 0) losses[row] = smoothed_loss(sum, smoothing, chosen, mean);
  if (!backward) return;
  const float by = smoothing.scale * (1.0F / sum.total);
  for (Index i = threadIdx.x; i < width; i += kThreads) {
    const float share = exp32(x[i] - sum.top) * by - smoothing.spread;
    slopes.store(x, row, i, i == target ? share - smoothing.keep : share);
  }
  for (Index i = width + threadIdx.x; i < slopes.end(); i += kThreads) {
    slopes.store(x, row, i, 0.0F);
  }
}

}  // namespace

// What the chunks of a loss share.
struct CudaDevice::LossRoom {
  Index chunk;
  ConstMatrix weight;  // with its padding
  float* logits;
  std::int32_t* targets;
  LogitSlopes slopes;
  ConstRoundedMatrix weight_rounded = {};  // empty: products read fp32
  std::uint16_t* hidden = nullptr;         // of a chunk, rounded; null: fp32, or given so
};

Result<CudaDevice::LossRoom> CudaDevice::loss_room(const LinearCrossEntropy& args) {
  const Index vocabulary = args.weight.rows;
  const Index padded = std::max(vocabulary, args.padded);
  const Index usual = std::clamp(kLogitsHeld / vocabulary, kRowsMin, kRowsMax);
  const Index chunk = std::min(args.hidden.rows, args.chunk > 0 ? args.chunk : usual);
  auto logits = scratch_floats(chunk * padded);
  if (!logits) return std::move(logits).error();
  auto targets = stage(args.targets.data(), args.targets.size());
  if (!targets) return std::move(targets).error();
  const std::optional<Narrow> type = narrow_inputs();
  LossRoom room{.chunk = chunk,
                .weight = {args.weight.data, padded, args.weight.columns, args.weight.stride},
                .logits = *logits,
                .targets = *targets,
                .slopes = {padded, nullptr, rounded_stride(padded), type.value_or(Narrow::bf16)}};
  if (!type) return room;
  const auto take = [&](Index stride, std::uint16_t*& to) -> Result<> {
    auto taken = scratch_.take(static_cast<std::size_t>(chunk * stride) * sizeof(std::uint16_t));
    if (!taken) return std::move(taken).error();
    to = static_cast<std::uint16_t*>(*taken);
    return {};
  };
  if (args.dhidden) {
    if (auto taken = take(room.slopes.stride, room.slopes.narrow); !taken) return taken.error();
  }
  if (!args.hidden_rounded) {
    auto taken = take(rounded_stride(args.hidden.columns), room.hidden);
    if (!taken) return taken.error();
  }
  // Each chunk reads the head.
  if (args.weight_rounded) {
    room.weight_rounded = args.weight_rounded;
    room.weight_rounded.rows = padded;
    return room;
  }
  auto rounded = round_operand(room.weight, *type);
  if (!rounded) return std::move(rounded).error();
  room.weight_rounded = *rounded;
  return room;
}

// Rows of `hidden` from `first` on.
Result<> CudaDevice::run_loss(const LinearCrossEntropy& args, const LossRoom& room, Index first) {
  const Index count = std::min(room.chunk, args.hidden.rows - first);
  const Index width = args.hidden.columns;
  const Matrix logits(room.logits, count, room.weight.rows);
  // All three products read one rounding of these, and the gradients' of theirs.
  ConstMatrix hidden(nullptr, count, width);
  ConstRoundedMatrix hidden_rounded;
  if (args.hidden_rounded) {
    hidden_rounded = args.hidden_rounded.row_range(first, count);
  } else {
    hidden = args.hidden.row_range(first, count);
  }
  if (room.hidden != nullptr) {
    const Index stride = rounded_stride(width);
    auto rounded = round_rows(stream(), hidden, room.hidden, stride, room.slopes.type);
    if (!rounded) return rounded;
    hidden_rounded = {room.hidden, count, width, stride};
  }
  const ConstRoundedMatrix slopes(room.slopes.narrow, count, logits.columns, room.slopes.stride);
  auto done = multiply(ProductForm::nt, {.left = hidden,
                                         .right = room.weight,
                                         .output = logits,
                                         .left_rounded = hidden_rounded,
                                         .right_rounded = room.weight_rounded});
  if (!done) return done;
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(count), kThreads}),
               cross_entropy_kernel, Rows(logits), args.weight.rows, room.slopes,
               room.targets + first, args.losses + first, static_cast<bool>(args.dhidden),
               Smoothing(args));
  if (args.dhidden) {
    done = multiply(ProductForm::nn, {.left = logits,
                                      .right = room.weight,
                                      .output = args.dhidden.row_range(first, count),
                                      .left_rounded = slopes,
                                      .right_rounded = room.weight_rounded});
  }
  if (!done || !args.dweight) return done;
  const Matrix dweight(args.dweight.data, logits.columns, width, args.dweight.stride);
  return multiply(ProductForm::tn, {.left = logits,
                                    .right = hidden,
                                    .output = dweight,
                                    .start = ChainStart::output,
                                    .left_rounded = slopes,
                                    .right_rounded = hidden_rounded});
}

Result<> CudaDevice::enqueue(const LinearCrossEntropy& args) {
  begin_op();
  const auto narrow = narrow_of("linear_cross_entropy", {static_cast<bool>(args.hidden_rounded),
                                                         static_cast<bool>(args.weight_rounded)});
  if (!narrow) return narrow.error();
  if (args.hidden.rows == 0 || args.weight.rows == 0) return {};
  const auto room = loss_room(args);
  if (!room) return room.error();
  for (Index first = 0; first < args.hidden.rows; first += room->chunk) {
    if (auto done = run_loss(args, *room, first); !done) return done;
  }
  if (args.loss_sum != nullptr || args.target_count != nullptr) {
    if (auto added = add_losses(args); !added) return added;
  }
  return end_op();
}

// Waits: these two are host memory.
Result<> CudaDevice::add_losses(const LinearCrossEntropy& args) {
  std::vector<float> losses(args.targets.size());
  auto got = download(losses.data(), args.losses, losses.size() * sizeof(float));
  if (!got) return got;
  for (std::size_t row = 0; row < losses.size(); ++row) {
    if (args.targets[row] == args.ignore) continue;
    if (args.loss_sum != nullptr) *args.loss_sum += static_cast<double>(losses[row]);
    if (args.target_count != nullptr) ++*args.target_count;
  }
  return {};
}

Result<> CudaDevice::enqueue(ProductForm form, const Product& args) {
  begin_op();
  const bool narrow = static_cast<bool>(args.narrow);
  const Index rows = narrow ? args.narrow.rows : args.output.rows;
  const Index columns = narrow ? args.narrow.columns : args.output.columns;
  if (rows == 0 || columns == 0) return {};
  const Index depth = form == ProductForm::nt   ? args.left.columns
                      : form == ProductForm::nn ? args.right.rows
                                                : args.left.rows;
  if (depth == 0) {
    const ConstMatrix sums = args.start == ChainStart::output ? args.output : ConstMatrix();
    auto ended = finish_product(
        {sums, args.output, args.narrow, args.bias, args.residual, args.activation, args.gate});
    if (!ended) return ended;
    return end_op();
  }
  Product product = args;
  if (args.packed != nullptr) {
    product.right = ConstMatrix(args.packed->image(), args.right.rows, args.right.columns);
  }
  if (auto ran = multiply(form, product); !ran) return ran;
  return end_op();
}

}  // namespace tutti::kernels::cuda
