// Ops on whole rows: norms, gates, embeddings, sums over rows.
//
// A row's sum is one block's: each thread a chain over its columns, then warps, then the block
// (reduce.h), the same for any number of rows. A sum over rows is cut into pieces of kRowsInPiece,
// a chain each, that are added in order; the first goes on from what the output holds.
#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/elementary.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_view.h"
#include "kernels/ops/add.h"
#include "kernels/ops/product.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/silu_gate.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 128;
constexpr Index kRowsInPiece = 256;

__global__ void rms_norm_forward_kernel(Rows<const float> x, const float* weight, Rows<float> y,
                                        float* inverses, float epsilon, Index width) {
  TUTTI_SHARED(float, room, kThreads / kWarp);
  const Index row = blockIdx.x;
  const float* const from = x.at(row);
  float sum = 0.0F;
  for (Index c = threadIdx.x; c < width; c += kThreads) sum = fmaf(from[c], from[c], sum);
  const float mean = block_sum(sum, room) / static_cast<float>(width);
  const float inverse = 1.0F / sqrtf(mean + epsilon);
  if (inverses != nullptr && threadIdx.x == 0) inverses[row] = inverse;
  float* const to = y.at(row);
  for (Index c = threadIdx.x; c < width; c += kThreads) to[c] = from[c] * inverse * weight[c];
}

struct NormBackward {
  explicit NormBackward(const RmsNormBackward& args)
      : dy(args.dy),
        x(args.x),
        dx(args.dx),
        residual(args.residual),
        weight(args.weight),
        inverse(args.inverse),
        rows(args.x.rows),
        width(args.x.columns) {}

  Rows<const float> dy, x;
  Rows<float> dx;
  Rows<const float> residual;
  const float* weight;
  const float* inverse;
  Index rows, width;
};

__global__ void rms_norm_backward_kernel(NormBackward a) {
  TUTTI_SHARED(float, room, kThreads / kWarp);
  const Index row = blockIdx.x;
  const float* const x = a.x.at(row);
  const float* const dy = a.dy.at(row);
  float sum = 0.0F;
  for (Index c = threadIdx.x; c < a.width; c += kThreads) {
    sum = fmaf(dy[c] * a.weight[c], x[c], sum);
  }
  const float inverse = a.inverse[row];
  const float slope =
      inverse * inverse * inverse / static_cast<float>(a.width) * block_sum(sum, room);
  float* const dx = a.dx.at(row);
  for (Index c = threadIdx.x; c < a.width; c += kThreads) {
    float value = fmaf(-x[c], slope, inverse * (dy[c] * a.weight[c]));
    if (a.residual.data != nullptr) value += a.residual.at(row)[c];
    dx[c] = value;
  }
}

// A piece's chain for each column: piece blockIdx.y, columns along blockIdx.x.
__global__ void norm_weight_pieces_kernel(NormBackward a, const float* start, float* pieces) {
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= a.width) return;
  const Index begin = blockIdx.y * kRowsInPiece;
  const Index end = begin + kRowsInPiece < a.rows ? begin + kRowsInPiece : a.rows;
  float sum = begin == 0 ? start[c] : 0.0F;
  for (Index row = begin; row < end; ++row) {
    sum = fmaf(a.dy.at(row)[c], a.x.at(row)[c] * a.inverse[row], sum);
  }
  pieces[blockIdx.y * a.width + c] = sum;
}

__global__ void column_pieces_kernel(Rows<const float> x, Index rows, Index width,
                                     const float* start, float* pieces) {
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= width) return;
  const Index begin = blockIdx.y * kRowsInPiece;
  const Index end = begin + kRowsInPiece < rows ? begin + kRowsInPiece : rows;
  float sum = begin == 0 && start != nullptr ? start[c] : 0.0F;
  for (Index row = begin; row < end; ++row) sum += x.at(row)[c];
  pieces[blockIdx.y * width + c] = sum;
}

__global__ void add_pieces_kernel(const float* pieces, Index count, Index width, float* output) {
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= width) return;
  float sum = pieces[c];
  for (Index piece = 1; piece < count; ++piece) sum += pieces[piece * width + c];
  output[c] = sum;
}

__device__ float sigmoid(float x) { return 1.0F / (1.0F + exp32(-x)); }

// Element-wise kernels walk over rows by blockIdx.y, so that bands of wider matrices need no
// division.
struct Gate {
  Rows<const float> gate, up;
  Index width;
};

__global__ void silu_gate_forward_kernel(Gate a, Rows<float> y) {
  const Index row = blockIdx.y;
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= a.width) return;
  const float gate = a.gate.at(row)[c];
  y.at(row)[c] = gate * sigmoid(gate) * a.up.at(row)[c];
}

__global__ void silu_gate_backward_kernel(Gate a, Rows<const float> dy, Rows<float> dgate,
                                          Rows<float> dup) {
  const Index row = blockIdx.y;
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= a.width) return;
  const float slope = dy.at(row)[c];
  const float gate = a.gate.at(row)[c];
  const float up = a.up.at(row)[c];
  const float s = sigmoid(gate);
  dgate.at(row)[c] = slope * up * (s * fmaf(gate, 1.0F - s, 1.0F));
  dup.at(row)[c] = slope * (gate * s);
}

__global__ void add_into_kernel(float* a, const float* b, Index count) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) a[i] += b[i];
}

struct TreePlan {
  float* pieces[PieceSum::kPiecesMax];
  PieceSum::Addition additions[PieceSum::kPiecesMax];
  int piece_count, addition_count;
};

// One pass over memory, whatever the number of pieces.
__global__ void piece_sum_kernel(TreePlan plan, Index count, float* sum) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  float values[PieceSum::kPiecesMax];
  for (int p = 0; p < plan.piece_count; ++p) values[p] = plan.pieces[p][i];
  for (int a = 0; a < plan.addition_count; ++a) {
    values[plan.additions[a].into] += values[plan.additions[a].from];
  }
  sum[i] = values[0];
}

// Parts in the order of the tree; null: it does not exist.
struct TreeParts {
  static_assert((kTreePartsMax & (kTreePartsMax - 1)) == 0);
  const float* part[kTreePartsMax];
  int count;
};
constexpr int kTreeLevels = 7;  // of 64 parts, leaves and root included

// The balanced tree as a counter in base two: a part climbs for as long as a left sibling waits, so
// one value a level is held. What does not exist adds nothing.
__global__ void tree_sum_kernel(TreeParts parts, Index count, float* sum) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  float waiting[kTreeLevels];
  bool exists[kTreeLevels];
  for (int p = 0; p < parts.count; ++p) {
    bool here = parts.part[p] != nullptr;
    float value = here ? parts.part[p][i] : 0.0F;
    int level = 0;
    for (; (p >> level & 1) != 0; ++level) {
      if (!exists[level]) continue;
      value = here ? waiting[level] + value : waiting[level];
      here = true;
    }
    waiting[level] = value;
    exists[level] = here;
  }
  int root = 0;
  while (1 << root < parts.count) ++root;
  sum[i] = waiting[root];
}

__global__ void add_to_rows_kernel(Rows<float> output, bool continued, const float* bias,
                                   Rows<const float> residual, Index width) {
  const Index row = blockIdx.y;
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= width) return;
  float value = continued ? output.at(row)[c] : 0.0F;
  if (bias != nullptr) value += bias[c];
  if (residual.data != nullptr) value += residual.at(row)[c];
  output.at(row)[c] = value;
}

// A grid's second dimension ends at 65,535.
constexpr Index kRowsMax = 65535;

dim3 element_grid(Index rows, Index width) {
  return {blocks_for(width, kThreads), static_cast<unsigned>(rows), 1};
}

template <class T>
BasicMatrix<T> band(const BasicMatrix<T>& matrix, Index first, Index rows) {
  return matrix.data == nullptr ? matrix : matrix.row_range(first, rows);
}

}  // namespace

Result<> CudaDevice::enqueue(const RmsNormForward& args) {
  begin_op();
  if (args.x.rows == 0 || args.x.columns == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(args.x.rows), kThreads}),
               rms_norm_forward_kernel, Rows(args.x), args.weight, Rows(args.y), args.inverse,
               args.epsilon, args.x.columns);
  return end_op();
}

Result<> CudaDevice::enqueue(const RmsNormBackward& args) {
  begin_op();
  if (args.x.rows == 0 || args.x.columns == 0) return {};
  const NormBackward all(args);
  // The weight first: dx may take the place of dy.
  if (args.dweight != nullptr) {
    const unsigned pieces = blocks_for(all.rows, kRowsInPiece);
    auto room = scratch_floats(pieces * all.width);
    if (!room) return std::move(room).error();
    const unsigned columns = blocks_for(all.width, kThreads);
    TUTTI_LAUNCH(stream(), (LaunchShape{dim3(columns, pieces), kThreads}),
                 norm_weight_pieces_kernel, all, args.dweight, *room);
    TUTTI_LAUNCH(stream(), (LaunchShape{columns, kThreads}), add_pieces_kernel, *room,
                 static_cast<Index>(pieces), all.width, args.dweight);
  }
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(all.rows), kThreads}),
               rms_norm_backward_kernel, all);
  return end_op();
}

Result<> CudaDevice::enqueue(const ColumnSums& args) {
  begin_op();
  if (args.x.columns == 0) return {};
  const bool continued = args.start == ChainStart::output;
  const unsigned pieces = blocks_for(args.x.rows, kRowsInPiece);
  if (pieces == 0) {
    const std::size_t bytes = static_cast<std::size_t>(args.x.columns) * sizeof(float);
    return continued ? Result<>{} : zero(args.output, bytes);
  }
  auto room = scratch_floats(pieces * args.x.columns);
  if (!room) return std::move(room).error();
  const unsigned columns = blocks_for(args.x.columns, kThreads);
  TUTTI_LAUNCH(stream(), (LaunchShape{dim3(columns, pieces), kThreads}), column_pieces_kernel,
               Rows(args.x), args.x.rows, args.x.columns, continued ? args.output : nullptr, *room);
  TUTTI_LAUNCH(stream(), (LaunchShape{columns, kThreads}), add_pieces_kernel, *room,
               static_cast<Index>(pieces), args.x.columns, args.output);
  return end_op();
}

// output = (start + bias) + residual: of an empty sum, or of what a product has left out.
Result<> CudaDevice::add_to_rows(const RowAdditions& args) {
  const Index width = args.output.columns;
  for (Index first = 0; first < args.output.rows; first += kRowsMax) {
    const Index rows = std::min(kRowsMax, args.output.rows - first);
    TUTTI_LAUNCH(stream(), (LaunchShape{element_grid(rows, width), kThreads}), add_to_rows_kernel,
                 Rows(band(args.output, first, rows)), args.start == ChainStart::output, args.bias,
                 Rows(band(args.residual, first, rows)), width);
  }
  return {};
}

Result<> CudaDevice::enqueue(const SiluGateForward& args) {
  begin_op();
  if (args.y.columns == 0) return {};
  for (Index first = 0; first < args.y.rows; first += kRowsMax) {
    const Index rows = std::min(kRowsMax, args.y.rows - first);
    const Gate gate{Rows(band(args.gate, first, rows)), Rows(band(args.up, first, rows)),
                    args.y.columns};
    TUTTI_LAUNCH(stream(), (LaunchShape{element_grid(rows, args.y.columns), kThreads}),
                 silu_gate_forward_kernel, gate, Rows(band(args.y, first, rows)));
  }
  return end_op();
}

Result<> CudaDevice::enqueue(const SiluGateBackward& args) {
  begin_op();
  if (args.dy.columns == 0) return {};
  for (Index first = 0; first < args.dy.rows; first += kRowsMax) {
    const Index rows = std::min(kRowsMax, args.dy.rows - first);
    const Gate gate{Rows(band(args.gate, first, rows)), Rows(band(args.up, first, rows)),
                    args.dy.columns};
    TUTTI_LAUNCH(stream(), (LaunchShape{element_grid(rows, args.dy.columns), kThreads}),
                 silu_gate_backward_kernel, gate, Rows(band(args.dy, first, rows)),
                 Rows(band(args.dgate, first, rows)), Rows(band(args.dup, first, rows)));
  }
  return end_op();
}

Result<> CudaDevice::enqueue(const AddInto& args) {
  begin_op();
  const auto count = static_cast<Index>(args.a.size());
  if (count == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{blocks_for(count, kThreads), kThreads}), add_into_kernel,
               args.a.data(), args.b.data(), count);
  return end_op();
}

Result<> CudaDevice::enqueue(const PieceSum& args) {
  begin_op();
  if (args.count == 0) return {};
  if (args.pieces.empty() || args.pieces.size() > PieceSum::kPiecesMax ||
      args.additions.size() >= PieceSum::kPiecesMax) {
    return Error{ErrorCode::invalid_argument, "piece_sum: 1 to 32 pieces"};
  }
  TreePlan plan = {};
  std::copy(args.pieces.begin(), args.pieces.end(), plan.pieces);
  std::copy(args.additions.begin(), args.additions.end(), plan.additions);
  plan.piece_count = static_cast<int>(args.pieces.size());
  plan.addition_count = static_cast<int>(args.additions.size());
  cudaStream_t const queue = args.queue == PieceSum::Queue::link ? link_.get() : stream();
  TUTTI_LAUNCH(queue, (LaunchShape{blocks_for(args.count, kThreads), kThreads}), piece_sum_kernel,
               plan, args.count, args.sum);
  return end_op();
}

Result<> CudaDevice::enqueue(const TreeSum& args) {
  begin_op();
  const auto count = static_cast<Index>(args.out.size());
  if (count == 0) return {};
  TreeParts parts = {};
  std::transform(args.parts.begin(), args.parts.end(), parts.part,
                 [](std::span<const float> part) { return part.empty() ? nullptr : part.data(); });
  parts.count = static_cast<int>(args.parts.size());
  TUTTI_LAUNCH(stream(), (LaunchShape{blocks_for(count, kThreads), kThreads}), tree_sum_kernel,
               parts, count, args.out.data());
  return end_op();
}

}  // namespace tutti::kernels::cuda
