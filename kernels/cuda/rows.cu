// Ops on whole rows: gates and sums over rows.
#include <algorithm>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/elementary.h"
#include "kernels/cuda/elementwise/column_sums.h"
#include "kernels/cuda/elementwise/fours.h"
#include "kernels/ops/add.h"
#include "kernels/ops/product.h"
#include "kernels/ops/silu_gate.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 128;

__global__ void column_pieces_kernel(Rows<const float> x, SumPieces sums) {
  const SumPiece piece(sums);
  if (!piece.is_in(sums)) return;
  const auto load = [&](Index row) { return x.at(row)[piece.column]; };
  piece.store(sums, add_chain<32>(piece.start(sums), piece.begin, piece.end, load));
}

__global__ void add_pieces_kernel(const float* pieces, Index count, Index width, float* output) {
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= width) return;
  const auto load = [&](Index piece) { return pieces[piece * width + c]; };
  output[c] = add_chain<16>(load(0), 1, count, load);
}

__device__ float sigmoid(float x) { return 1.0F / (1.0F + exp32(-x)); }

struct Gate {
  Rows<const float> gate, up;
  Index width;
};

__global__ void __launch_bounds__(kFourThreads) silu_gate_forward_kernel(Gate a, FourOutput y) {
  const FourPlace at(a.width);
  if (at.count <= 0) return;
  const Four up = at.load(a.up);
  Four four = at.load(a.gate);
  for (unsigned i = 0; i < kInFour; ++i) {
    const float gate = four.at[i];
    four.at[i] = gate * sigmoid(gate) * up.at[i];
  }
  y.store(at, four);
}

// All is read before anything is written: results may lie where operands do.
__global__ void __launch_bounds__(kFourThreads)
    silu_gate_backward_kernel(Gate a, Rows<const float> dy, FourOutput dgate, FourOutput dup) {
  const FourPlace at(a.width);
  if (at.count <= 0) return;
  const Four slopes = at.load(dy);
  Four of_gate = at.load(a.gate);
  Four of_up = at.load(a.up);
  for (unsigned i = 0; i < kInFour; ++i) {
    const float slope = slopes.at[i];
    const float gate = of_gate.at[i];
    const float s = sigmoid(gate);
    of_gate.at[i] = slope * of_up.at[i] * (s * fmaf(gate, 1.0F - s, 1.0F));
    of_up.at[i] = slope * (gate * s);
  }
  dgate.store(at, of_gate);
  dup.store(at, of_up);
}

__global__ void __launch_bounds__(kFourThreads)
    add_into_kernel(float* a, const float* b, Index count) {
  const FourPlace at(count);
  if (at.count <= 0) return;
  const Four other = load_four(b + at.column, at.count);
  Four four = load_four(a + at.column, at.count);
  for (unsigned i = 0; i < kInFour; ++i) four.at[i] += other.at[i];
  store_four(a + at.column, at.count, four);
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
__global__ void __launch_bounds__(kFourThreads)
    tree_sum_kernel(TreeParts parts, Index count, float* sum) {
  const FourPlace at(count);
  if (at.count <= 0) return;
  Four waiting[kTreeLevels];
  bool exists[kTreeLevels];
  for (int p = 0; p < parts.count; ++p) {
    bool here = parts.part[p] != nullptr;
    Four four = here ? load_four(parts.part[p] + at.column, at.count) : Four{};
    int level = 0;
    for (; (p >> level & 1) != 0; ++level) {
      if (!exists[level]) continue;
      for (unsigned i = 0; i < kInFour; ++i) {
        const float left = waiting[level].at[i];
        four.at[i] = here ? left + four.at[i] : left;
      }
      here = true;
    }
    waiting[level] = four;
    exists[level] = here;
  }
  int root = 0;
  while (1 << root < parts.count) ++root;
  store_four(sum + at.column, at.count, waiting[root]);
}

}  // namespace

void add_sums(cudaStream_t stream, const SumPieces& sums, float* output) {
  // No launch says these of its pieces.
  static_cast<void>(enqueues("column sums", sums.rows, sums.width, sums.start != nullptr));
  TUTTI_LAUNCH(stream, (LaunchShape{blocks_for(sums.width, kThreads), kThreads}), add_pieces_kernel,
               sums.pieces, static_cast<Index>(sums.count()), sums.width, output);
}

Result<> CudaDevice::enqueue(const ColumnSums& args) {
  begin_op();
  if (args.x.columns == 0) return {};
  const bool continued = args.start == ChainStart::output;
  SumPieces sums(args.x.rows, args.x.columns, continued ? args.output : nullptr);
  if (sums.count() == 0) {
    const std::size_t bytes = static_cast<std::size_t>(args.x.columns) * sizeof(float);
    return continued ? Result<>{} : zero(args.output, bytes);
  }
  auto room = scratch_floats(sums.floats());
  if (!room) return std::move(room).error();
  sums.pieces = *room;
  TUTTI_LAUNCH(stream(), sums.shape(), column_pieces_kernel, Rows(args.x), sums);
  add_sums(stream(), sums, args.output);
  return end_op();
}

Result<> CudaDevice::enqueue(const SiluGateForward& args) {
  begin_op();
  const auto narrow = narrow_of("silu_gate_forward", {static_cast<bool>(args.rounded)});
  static_cast<void>(enqueues("wide", static_cast<bool>(args.y)));
  if (!narrow) return narrow.error();
  each_row_span_of(
      [&](const RowSpan& span, const LaunchShape& shape) {
        const FourOutput y{span.of(args.y), span.of(args.rounded), *narrow};
        TUTTI_LAUNCH(stream(), shape, silu_gate_forward_kernel,
                     (Gate{span.of(args.gate), span.of(args.up), span.width}), y);
      },
      args.gate, args.up, args.y, args.rounded);
  return end_op();
}

Result<> CudaDevice::enqueue(const SiluGateBackward& args) {
  begin_op();
  const auto narrow = narrow_of("silu_gate_backward", {static_cast<bool>(args.dgate_rounded),
                                                       static_cast<bool>(args.dup_rounded)});
  static_cast<void>(enqueues("wide", static_cast<bool>(args.dgate), static_cast<bool>(args.dup)));
  if (!narrow) return narrow.error();
  each_row_span_of(
      [&](const RowSpan& span, const LaunchShape& shape) {
        const FourOutput dgate{span.of(args.dgate), span.of(args.dgate_rounded), *narrow};
        const FourOutput dup{span.of(args.dup), span.of(args.dup_rounded), *narrow};
        TUTTI_LAUNCH(stream(), shape, silu_gate_backward_kernel,
                     (Gate{span.of(args.gate), span.of(args.up), span.width}), span.of(args.dy),
                     dgate, dup);
      },
      args.dy, args.gate, args.up, args.dgate, args.dup, args.dgate_rounded, args.dup_rounded);
  return end_op();
}

Result<> CudaDevice::enqueue(const AddInto& args) {
  begin_op();
  const auto count = static_cast<Index>(args.a.size());
  if (count == 0) return {};
  TUTTI_LAUNCH(stream(), span_shape(count), add_into_kernel, args.a.data(), args.b.data(), count);
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
  TUTTI_LAUNCH(stream(), span_shape(count), tree_sum_kernel, parts, count, args.out.data());
  return end_op();
}

}  // namespace tutti::kernels::cuda
