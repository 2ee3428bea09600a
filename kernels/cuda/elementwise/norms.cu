// Layer norm, RMS norm and their gradients: a row is one block's, its sums in the order of
// reduce.h, the same for any number of rows.
//
// Backward, a block has a piece of kRowsInPiece rows, one after the other: their part of the
// gradients of weight and bias, a chain each, is summed in shared memory beside them, so that x and
// dy come from memory once. The first piece goes on from what is held. Pieces are added in order,
// in kRuns runs and then those.
#include "kernels/cuda/device.h"
#include "kernels/cuda/elementwise/column_sums.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_view.h"
#include "kernels/cuda/tensor_core.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/rms_norm.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 128;
constexpr Index kRowsInPiece = 16;
// Of the kernel that adds pieces: threads of a block are so many columns and runs.
constexpr unsigned kRunColumns = kWarp;
constexpr unsigned kRuns = 16;

// Where a row goes: in fp32, as products read it (ops/elementwise/rounded.h), or both; null: not
// there.
struct RowOutput {
  __device__ __forceinline__ void store(Index row, Index c, float value) const {
    if (wide.data != nullptr) wide.at(row)[c] = value;
    if (rounded.data != nullptr) rounded.at(row)[c] = narrowed(value, narrow);
  }
  Rows<float> wide;
  Rows<std::uint16_t> rounded;
  Narrow narrow;
};

struct NormForward {
  NormForward(const LayerNormForward& args, Narrow narrow)
      : x(args.x),
        y{Rows(args.y), Rows(args.rounded), narrow},
        weight(args.weight),
        bias(args.bias),
        mean(args.mean),
        inverse(args.inverse),
        epsilon(args.epsilon),
        width(args.x.columns) {}

  Rows<const float> x;
  RowOutput y;
  const float* weight;
  const float* bias;
  float* mean;
  float* inverse;
  float epsilon;
  Index width;
};

__global__ void layer_norm_forward_kernel(NormForward a) {
  TUTTI_SHARED(float, room, kThreads / kWarp);
  const Index row = blockIdx.x;
  const float* const x = a.x.at(row);
  const auto count = static_cast<float>(a.width);
  float sum = 0.0F;
  for (Index c = threadIdx.x; c < a.width; c += kThreads) sum += x[c];
  const float mean = block_sum(sum, room) / count;
  float squares = 0.0F;
  for (Index c = threadIdx.x; c < a.width; c += kThreads) {
    const float away = x[c] - mean;
    squares = fmaf(away, away, squares);
  }
  const float inverse = 1.0F / sqrtf(block_sum(squares, room) / count + a.epsilon);
  if (threadIdx.x == 0) {
    if (a.mean != nullptr) a.mean[row] = mean;
    if (a.inverse != nullptr) a.inverse[row] = inverse;
  }
  for (Index c = threadIdx.x; c < a.width; c += kThreads) {
    const float bias = a.bias != nullptr ? a.bias[c] : 0.0F;
    a.y.store(row, c, fmaf((x[c] - mean) * inverse, a.weight[c], bias));
  }
}

__global__ void rms_norm_forward_kernel(Rows<const float> x, const float* weight, RowOutput y,
                                        float* inverses, float epsilon, Index width) {
  TUTTI_SHARED(float, room, kThreads / kWarp);
  const Index row = blockIdx.x;
  const float* const from = x.at(row);
  float sum = 0.0F;
  for (Index c = threadIdx.x; c < width; c += kThreads) sum = fmaf(from[c], from[c], sum);
  const float mean = block_sum(sum, room) / static_cast<float>(width);
  const float inverse = 1.0F / sqrtf(mean + epsilon);
  if (inverses != nullptr && threadIdx.x == 0) inverses[row] = inverse;
  for (Index c = threadIdx.x; c < width; c += kThreads) {
    y.store(row, c, from[c] * inverse * weight[c]);
  }
}

struct NormBackward {
  template <class Args>
  NormBackward(const Args& args, const float* mean_, Narrow narrow)
      : dy(args.dy),
        x(args.x),
        dx{Rows(args.dx), Rows(args.rounded), narrow},
        residual(args.residual),
        weight(args.weight),
        mean(mean_),
        inverse(args.inverse),
        rows(args.x.rows),
        width(args.x.columns) {}

  Rows<const float> dy, x;
  RowOutput dx;
  Rows<const float> residual;
  const float* weight;
  const float* mean;  // null: it was not subtracted
  const float* inverse;
  Index rows, width;
};

// Where the gradients of the parameters are added up; null: not wanted.
struct Slopes {
  float* weight;
  float* bias;
};

// A piece's two chains for each column, each a thread's own: in shared memory, then in `pieces`.
struct PieceSlopes {
  __device__ PieceSlopes(float* room_in, Index width_in, const Slopes& slopes, bool wanted_in)
      : room(room_in), width(width_in), wanted(wanted_in) {
    if (!wanted) return;
    const bool first = blockIdx.x == 0;
    for (Index c = threadIdx.x; c < width; c += kThreads) {
      room[c] = first && slopes.weight != nullptr ? slopes.weight[c] : 0.0F;
      room[width + c] = first && slopes.bias != nullptr ? slopes.bias[c] : 0.0F;
    }
  }
  __device__ __forceinline__ void add(Index c, float dy, float normal) const {
    if (!wanted) return;
    room[c] = fmaf(dy, normal, room[c]);
    room[width + c] += dy;
  }
  __device__ void store(float* pieces) const {
    if (!wanted) return;
    float* const own = pieces + blockIdx.x * 2 * width;
    for (Index c = threadIdx.x; c < width; c += kThreads) {
      own[c] = room[c];
      own[width + c] = room[width + c];
    }
  }
  float* room;
  Index width;
  bool wanted;
};

struct PieceRows {
  __device__ explicit PieceRows(Index rows)
      : begin(blockIdx.x * kRowsInPiece),
        end(begin + kRowsInPiece < rows ? begin + kRowsInPiece : rows) {}
  Index begin, end;
};

__global__ void __launch_bounds__(kThreads)
    rms_norm_backward_kernel(NormBackward a, Slopes slopes, float* pieces) {
  TUTTI_SHARED(float, room, kThreads / kWarp);
  TUTTI_DYNAMIC_SHARED(float, sums);
  const PieceSlopes piece(sums, a.width, slopes, pieces != nullptr);
  const PieceRows rows(a.rows);
  for (Index row = rows.begin; row < rows.end; ++row) {
    const float* const x = a.x.at(row);
    const float* const dy = a.dy.at(row);
    float sum = 0.0F;
    for (Index c = threadIdx.x; c < a.width; c += kThreads) {
      sum = fmaf(dy[c] * a.weight[c], x[c], sum);
    }
    const float inverse = a.inverse[row];
    const float slope =
        inverse * inverse * inverse / static_cast<float>(a.width) * block_sum(sum, room);
    for (Index c = threadIdx.x; c < a.width; c += kThreads) {
      const float own = x[c];
      const float along = dy[c];
      float value = fmaf(-own, slope, inverse * (along * a.weight[c]));
      if (a.residual.data != nullptr) value += a.residual.at(row)[c];
      piece.add(c, along, own * inverse);
      a.dx.store(row, c, value);
    }
  }
  piece.store(pieces);
}

__global__ void __launch_bounds__(kThreads)
    layer_norm_backward_kernel(NormBackward a, Slopes slopes, float* pieces) {
  TUTTI_SHARED(float, room, kThreads / kWarp);
  TUTTI_DYNAMIC_SHARED(float, sums);
  const PieceSlopes piece(sums, a.width, slopes, pieces != nullptr);
  const PieceRows rows(a.rows);
  const auto count = static_cast<float>(a.width);
  for (Index row = rows.begin; row < rows.end; ++row) {
    const float* const x = a.x.at(row);
    const float* const dy = a.dy.at(row);
    const float mean = a.mean[row];
    const float inverse = a.inverse[row];
    float sum = 0.0F;
    float along = 0.0F;
    for (Index c = threadIdx.x; c < a.width; c += kThreads) {
      const float g = dy[c] * a.weight[c];
      sum += g;
      along = fmaf(g, (x[c] - mean) * inverse, along);
    }
    const float slope_mean = block_sum(sum, room) / count;
    const float slope = block_sum(along, room) / count;
    for (Index c = threadIdx.x; c < a.width; c += kThreads) {
      const float own = dy[c];
      const float normal = (x[c] - mean) * inverse;
      float value = inverse * fmaf(-normal, slope, own * a.weight[c] - slope_mean);
      if (a.residual.data != nullptr) value += a.residual.at(row)[c];
      piece.add(c, own, normal);
      a.dx.store(row, c, value);
    }
  }
  piece.store(pieces);
}

// Each run of pieces is a chain, and so is the sum of the runs.
__global__ void __launch_bounds__(kRunColumns* kRuns)
    add_norm_pieces_kernel(const float* pieces, Index count, Index width, Slopes slopes) {
  TUTTI_SHARED(float, sums, kRuns* kRunColumns);
  const unsigned column = threadIdx.x % kRunColumns;
  const unsigned run = threadIdx.x / kRunColumns;
  const Index i = static_cast<Index>(blockIdx.x) * kRunColumns + column;
  const Index in_run = (count + kRuns - 1) / kRuns;
  const Index begin = run * in_run;
  const Index end = begin + in_run < count ? begin + in_run : count;
  if (i < 2 * width && begin < end) {
    const auto load = [&](Index piece) { return pieces[piece * 2 * width + i]; };
    sums[threadIdx.x] = add_chain<16>(load(begin), begin + 1, end, load);
  }
  __syncthreads();
  if (i >= 2 * width || run != 0) return;
  float* const to = i < width ? slopes.weight : slopes.bias;
  if (to == nullptr) return;
  float sum = sums[column];
  for (Index other = 1; other * in_run < count; ++other) sum += sums[other * kRunColumns + column];
  to[i < width ? i : i - width] = sum;
}

// launch(pieces, shape) has the rows, whose pieces are added then. `room_for` gives scratch memory.
template <class RoomFor, class Launch>
Result<> in_pieces(cudaStream_t stream, const NormBackward& all, const Slopes& slopes,
                   const RoomFor& room_for, const Launch& launch) {
  const unsigned count = blocks_for(all.rows, kRowsInPiece);
  static_cast<void>(enqueues("norm gradients", all.residual.data != nullptr,
                             slopes.weight != nullptr, slopes.bias != nullptr));
  const bool wanted = slopes.weight != nullptr || slopes.bias != nullptr;
  float* pieces = nullptr;
  if (wanted) {
    const Result<float*> room = room_for(count * 2 * all.width);
    if (!room) return room.error();
    pieces = *room;
  }
  const std::size_t shared = wanted ? 2 * static_cast<std::size_t>(all.width) * sizeof(float) : 0;
  launch(pieces, LaunchShape{count, kThreads, shared});
  if (wanted) {
    TUTTI_LAUNCH(stream, (LaunchShape{blocks_for(2 * all.width, kRunColumns), kRunColumns * kRuns}),
                 add_norm_pieces_kernel, pieces, static_cast<Index>(count), all.width, slopes);
  }
  return {};
}

}  // namespace

Result<> CudaDevice::enqueue(const LayerNormForward& args) {
  begin_op();
  const auto narrow = narrow_of("layer_norm_forward", {static_cast<bool>(args.rounded)});
  static_cast<void>(enqueues("wide", static_cast<bool>(args.y)));
  if (!narrow) return narrow.error();
  if (args.x.rows == 0 || args.x.columns == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(args.x.rows), kThreads}),
               layer_norm_forward_kernel, NormForward(args, *narrow));
  return end_op();
}

Result<> CudaDevice::enqueue(const RmsNormForward& args) {
  begin_op();
  const auto narrow = narrow_of("rms_norm_forward", {static_cast<bool>(args.rounded)});
  static_cast<void>(enqueues("wide", static_cast<bool>(args.y)));
  if (!narrow) return narrow.error();
  if (args.x.rows == 0 || args.x.columns == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(args.x.rows), kThreads}),
               rms_norm_forward_kernel, Rows(args.x), args.weight,
               (RowOutput{Rows(args.y), Rows(args.rounded), *narrow}), args.inverse, args.epsilon,
               args.x.columns);
  return end_op();
}

Result<> CudaDevice::enqueue(const LayerNormBackward& args) {
  begin_op();
  const auto narrow = narrow_of("layer_norm_backward", {static_cast<bool>(args.rounded)});
  static_cast<void>(enqueues("wide", static_cast<bool>(args.dx)));
  if (!narrow) return narrow.error();
  if (args.x.rows == 0 || args.x.columns == 0) return {};
  const NormBackward all(args, args.mean, *narrow);
  const Slopes slopes{args.dweight, args.dbias};
  const auto take = [&](Index count) { return scratch_floats(count); };
  auto ran = in_pieces(stream(), all, slopes, take, [&](float* pieces, const LaunchShape& shape) {
    TUTTI_LAUNCH(stream(), shape, layer_norm_backward_kernel, all, slopes, pieces);
  });
  if (!ran) return ran;
  return end_op();
}

Result<> CudaDevice::enqueue(const RmsNormBackward& args) {
  begin_op();
  const auto narrow = narrow_of("rms_norm_backward", {static_cast<bool>(args.rounded)});
  static_cast<void>(enqueues("wide", static_cast<bool>(args.dx)));
  if (!narrow) return narrow.error();
  if (args.x.rows == 0 || args.x.columns == 0) return {};
  const NormBackward all(args, nullptr, *narrow);
  const Slopes slopes{args.dweight, nullptr};
  const auto take = [&](Index count) { return scratch_floats(count); };
  auto ran = in_pieces(stream(), all, slopes, take, [&](float* pieces, const LaunchShape& shape) {
    TUTTI_LAUNCH(stream(), shape, rms_norm_backward_kernel, all, slopes, pieces);
  });
  if (!ran) return ran;
  return end_op();
}

}  // namespace tutti::kernels::cuda
