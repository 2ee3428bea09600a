// Ops on whole rows: gates and sums over rows.
//
// A sum over rows is cut into pieces of kRowsInPiece, a chain each, that are added in order; the
// first goes on from what the output holds.
#include <algorithm>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/elementary.h"
#include "kernels/cuda/row_view.h"
#include "kernels/ops/add.h"
#include "kernels/ops/product.h"
#include "kernels/ops/silu_gate.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 128;
constexpr Index kRowsInPiece = 256;

// A piece's chain for each column: piece blockIdx.y, columns along blockIdx.x.
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

// Additions of at most so many pieces; `written`: bits of those that later passes read.
struct SumPass {
  float* pieces[PieceSum::kPassPieces];
  PieceSum::Addition additions[PieceSum::kPassPieces];
  int piece_count = 0, addition_count = 0;
  std::uint64_t written = 0;
  static_assert(PieceSum::kPassPieces <= 64);
};

__global__ void piece_sum_kernel(SumPass pass, Index count, float* sum) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  float values[PieceSum::kPassPieces];
  for (int p = 0; p < pass.piece_count; ++p) values[p] = pass.pieces[p][i];
  for (int a = 0; a < pass.addition_count; ++a) {
    values[pass.additions[a].into] += values[pass.additions[a].from];
  }
  for (int p = 0; p < pass.piece_count; ++p) {
    if ((pass.written >> p & 1) != 0) pass.pieces[p][i] = values[p];
  }
  if (sum != nullptr) sum[i] = values[0];
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

namespace {

// Gathers additions, in their order, until no more pieces go into one pass. The root, piece 0, is
// the first of each.
class SumPasses {
 public:
  SumPasses(std::span<float* const> pieces, std::pmr::memory_resource* memory)
      : pieces_(pieces), slots_(pieces.size(), memory) {
    begin();
  }

  void begin() {
    std::ranges::fill(slots_, kNone);
    pass_ = {};
    static_cast<void>(slot_of(0));
  }
  bool has_room_for(const PieceSum::Addition& addition) const {
    const int added =
        (slots_[addition.into] == kNone ? 1 : 0) + (slots_[addition.from] == kNone ? 1 : 0);
    return pass_.piece_count + added <= kMost && pass_.addition_count < kMost;
  }
  void add(const PieceSum::Addition& addition) {
    const std::uint32_t into = slot_of(addition.into);
    const std::uint32_t from = slot_of(addition.from);
    pass_.additions[pass_.addition_count++] = {into, from};
    pass_.written = (pass_.written | kBit << into) & ~(kBit << from);  // what was added is used up
  }
  const SumPass& pass() const { return pass_; }
  SumPass last() const {
    SumPass pass = pass_;
    pass.written = 0;
    return pass;
  }

 private:
  static constexpr std::uint32_t kNone = ~0U;
  static constexpr int kMost = PieceSum::kPassPieces;
  static constexpr std::uint64_t kBit = 1;

  std::uint32_t slot_of(std::uint32_t piece) {
    if (slots_[piece] == kNone) {
      slots_[piece] = static_cast<std::uint32_t>(pass_.piece_count);
      pass_.pieces[pass_.piece_count++] = pieces_[piece];
    }
    return slots_[piece];
  }

  std::span<float* const> pieces_;
  std::pmr::vector<std::uint32_t> slots_;  // by piece, in this pass
  SumPass pass_;
};

}  // namespace

Result<> CudaDevice::enqueue(const PieceSum& args) {
  begin_op();
  if (args.count == 0) return {};
  const auto is_piece = [&](std::uint32_t piece) { return piece < args.pieces.size(); };
  if (args.pieces.empty() || std::ranges::any_of(args.additions, [&](const auto& addition) {
        return !is_piece(addition.into) || !is_piece(addition.from);
      })) {
    return Error{ErrorCode::invalid_argument, "piece_sum: additions of pieces that are not there"};
  }
  cudaStream_t const queue = args.queue == PieceSum::Queue::link ? link_.get() : stream();
  const auto launch = [&](const SumPass& pass, float* sum) {
    TUTTI_LAUNCH(queue, (LaunchShape{blocks_for(args.count, kThreads), kThreads}), piece_sum_kernel,
                 pass, args.count, sum);
  };
  SumPasses passes(args.pieces, &host_);
  for (const PieceSum::Addition& addition : args.additions) {
    if (!passes.has_room_for(addition)) {
      launch(passes.pass(), nullptr);
      passes.begin();
    }
    passes.add(addition);
  }
  launch(passes.last(), args.sum);
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
