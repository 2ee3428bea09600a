// Adafactor: three sweeps over the gradient (ops/decisions/0031), and between them what is known of
// all of it.
//
// The matrix is cut into tiles of 128 columns and 64 rows, one a warp. A lane has four columns, so
// that a column's sum over the tile is a lane's chain, and a row's is the warp's. What tiles leave
// is added in their order by kernels that come after: sums depend on the shape alone, and no thread
// waits for another one's.
#include "kernels/ops/optimizers/adafactor.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/optimizers/grid_range.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_view.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = kGridThreads;
constexpr unsigned kWarps = kThreads / kWarp;
constexpr int kLaneColumns = 4;
constexpr Index kTileColumns = kWarp * kLaneColumns;
constexpr Index kTileRows = 64;

// What the kernels find out for all elements.
struct Found {
  double rate;
  float row_mean;
  float keep;
  float step;
};

struct Arrays {
  explicit Arrays(const AdafactorUpdate& args)
      : weight(args.weight.data),
        gradient(args.gradient),
        row(args.row.empty() ? nullptr : args.row.data()),
        column(args.column.data()),
        hashes(args.hashes.empty() ? nullptr : args.hashes.data()),
        factor(args.settings.factor),
        rows(args.weight.rows),
        columns(args.weight.columns),
        across((columns + kTileColumns - 1) / kTileColumns),
        tiles(across * ((rows + kTileRows - 1) / kTileRows)) {}

  float* weight;
  Rows<const float> gradient;
  float* row;  // null: a vector
  float* column;
  Hash128* hashes;  // null: not wanted
  float factor;
  Index rows, columns;
  Index across, tiles;

  // In scratch memory.
  float* row_parts = nullptr;     // [across][rows]
  float* column_parts = nullptr;  // [tiles / across][columns]
  double* tile_parts = nullptr;   // [tiles]: of the weights' squares, then of those of u
  double* row_totals = nullptr;   // of the row states of a block of finish_rows_kernel
  float* row_roots = nullptr;     // 1 / sqrt(row_i / mean(row)), or 1
  float* column_roots = nullptr;  // 1 / sqrt(column_j)
  Found* found = nullptr;
};

// The tile of a warp; none behind the last.
struct Tile {
  __device__ explicit Tile(const Arrays& a)
      : index(static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / kWarp),
        across(index % a.across),
        down(index / a.across),
        lane(threadIdx.x % kWarp),
        column(across * kTileColumns + lane),
        row(down * kTileRows),
        row_end(row + kTileRows < a.rows ? row + kTileRows : a.rows) {}
  Index index, across, down;
  Index lane;
  Index column;  // the lane's first; the others are a warp apart
  Index row, row_end;
};

// The first sweep: squares by row and by column, and those of the weights where `sizes` is set.
__global__ void __launch_bounds__(kThreads) adafactor_sums_kernel(Arrays a, bool sizes) {
  const Tile tile(a);
  if (tile.index >= a.tiles) return;
  float down[kLaneColumns] = {};
  float size = 0.0F;
  for (Index row = tile.row; row < tile.row_end; ++row) {
    const float* const gradient = a.gradient.at(row);
    const float* const weight = a.weight + row * a.columns;
    float along = 0.0F;
    for (int j = 0; j < kLaneColumns; ++j) {
      const Index c = tile.column + j * static_cast<Index>(kWarp);
      if (c < a.columns) {
        const float g = gradient[c] * a.factor;
        down[j] = fmaf(g, g, down[j]);
        along = fmaf(g, g, along);
        if (sizes) size = fmaf(weight[c], weight[c], size);
      }
    }
    if (a.row != nullptr) {
      along = warp_sum(along);
      if (tile.lane == 0) a.row_parts[tile.across * a.rows + row] = along;
    }
  }
  for (int j = 0; j < kLaneColumns; ++j) {
    const Index c = tile.column + j * static_cast<Index>(kWarp);
    if (c < a.columns) a.column_parts[tile.down * a.columns + c] = down[j];
  }
  const double total = warp_sum(static_cast<double>(size));
  if (tile.lane == 0) a.tile_parts[tile.index] = total;
}

// The settings as kernels take them, each computed in double and rounded once.
struct Constants {
  explicit Constants(const AdafactorUpdate& args)
      : beta(static_cast<float>(args.settings.beta2)),
        rest(static_cast<float>(1.0 - args.settings.beta2)),
        epsilon(static_cast<float>(args.settings.epsilon)),
        row_share(static_cast<float>(1.0 / static_cast<double>(args.weight.rows))) {}
  float beta, rest, epsilon;
  float row_share;
};

__global__ void __launch_bounds__(kThreads) finish_columns_kernel(Arrays a, Constants k) {
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= a.columns) return;
  float sum = a.column_parts[c];
  for (Index part = 1; part < a.tiles / a.across; ++part) {
    sum += a.column_parts[part * a.columns + c];
  }
  const float now = fmaf(k.beta, a.column[c], k.rest * fmaf(sum, k.row_share, k.epsilon));
  a.column[c] = now;
  a.column_roots[c] = 1.0F / sqrtf(now);
}

__global__ void __launch_bounds__(kThreads) finish_rows_kernel(Arrays a, Constants k) {
  TUTTI_SHARED(double, room, kWarps);
  const Index r = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  float now = 0.0F;
  if (r < a.rows) {
    float sum = a.row_parts[r];
    for (Index part = 1; part < a.across; ++part) sum += a.row_parts[part * a.rows + r];
    now = fmaf(k.beta, a.row[r], k.rest * (sum / static_cast<float>(a.columns) + k.epsilon));
    a.row[r] = now;
  }
  const double total = block_sum(static_cast<double>(now), room);
  if (threadIdx.x == 0) a.row_totals[blockIdx.x] = total;
}

__global__ void __launch_bounds__(kThreads)
    begin_update_kernel(Arrays a, AdafactorSettings s, Index row_blocks) {
  TUTTI_SHARED(double, room, kWarps);
  const double rows = sum_of_parts(a.row_totals, row_blocks, room);
  const double squares = sum_of_parts(a.tile_parts, a.tiles, room);
  if (threadIdx.x != 0) return;
  const double size = sqrt(squares / static_cast<double>(a.rows * a.columns));
  const double share = s.size_min > 0.0 ? (size > s.size_min ? size : s.size_min) : 1.0;
  a.found->rate = s.rate * share;
  a.found->keep = static_cast<float>(1.0 - a.found->rate * s.decay);
  a.found->row_mean = static_cast<float>(rows / static_cast<double>(a.rows));
}

// The second sweep: the squares of u, and the rows' roots for the third.
__global__ void __launch_bounds__(kThreads) adafactor_squares_kernel(Arrays a) {
  const Tile tile(a);
  if (tile.index >= a.tiles) return;
  const float mean = a.found->row_mean;
  float column_roots[kLaneColumns] = {};
  for (int j = 0; j < kLaneColumns; ++j) {
    const Index c = tile.column + j * static_cast<Index>(kWarp);
    if (c < a.columns) column_roots[j] = a.column_roots[c];
  }
  float sum = 0.0F;
  for (Index row = tile.row; row < tile.row_end; ++row) {
    const float* const gradient = a.gradient.at(row);
    const float root = a.row != nullptr ? 1.0F / sqrtf(a.row[row] / mean) : 1.0F;
    if (tile.across == 0 && tile.lane == 0) a.row_roots[row] = root;
    for (int j = 0; j < kLaneColumns; ++j) {
      const Index c = tile.column + j * static_cast<Index>(kWarp);
      if (c < a.columns) {
        const float u = gradient[c] * a.factor * root * column_roots[j];
        sum = fmaf(u, u, sum);
      }
    }
  }
  const double total = warp_sum(static_cast<double>(sum));
  if (tile.lane == 0) a.tile_parts[tile.index] = total;
}

__global__ void __launch_bounds__(kThreads) clip_update_kernel(Arrays a, double clip) {
  TUTTI_SHARED(double, room, kWarps);
  const double squares = sum_of_parts(a.tile_parts, a.tiles, room);
  if (threadIdx.x != 0) return;
  const double over = sqrt(squares / static_cast<double>(a.rows * a.columns)) / clip;
  a.found->step = static_cast<float>(a.found->rate / (over > 1.0 ? over : 1.0));
}

// The third sweep: a grid block, and its hash.
__global__ void __launch_bounds__(kThreads) adafactor_update_kernel(Arrays a) {
  TUTTI_SHARED(Word, room, kKibsMax * kAccumulators);
  const GridRange range(a.rows * a.columns);
  const float keep = a.found->keep;
  const float step = a.found->step;
  // Rows and columns that a thread goes on by: no division for each element.
  const Index rows_on = kThreads / a.columns;
  const Index columns_on = kThreads % a.columns;
  Index row = (range.begin + threadIdx.x) / a.columns;
  Index c = (range.begin + threadIdx.x) % a.columns;
  for (Index i = range.begin + threadIdx.x; i < range.end; i += kThreads) {
    const float u = a.gradient.at(row)[c] * a.factor * a.row_roots[row] * a.column_roots[c];
    a.weight[i] = fmaf(-step, u, a.weight[i] * keep);
    row += rows_on;
    c += columns_on;
    if (c >= a.columns) {
      c -= a.columns;
      ++row;
    }
  }
  hash_updated(a.weight, range, room, a.hashes);
}

}  // namespace

Result<> CudaDevice::enqueue(const AdafactorUpdate& args) {
  begin_op();
  Arrays a(args);
  const Index count = a.rows * a.columns;
  if (count == 0) return {};
  const unsigned row_blocks = a.row == nullptr ? 0 : blocks_for(a.rows, kThreads);
  const auto take = [&](auto*& place, Index numbers) -> Result<> {
    auto memory = scratch_.take(static_cast<std::size_t>(numbers) * sizeof(*place));
    if (!memory) return std::move(memory).error();
    place = static_cast<std::remove_reference_t<decltype(place)>>(*memory);
    return {};
  };
  for (const Result<>& taken :
       {take(a.row_parts, a.row == nullptr ? 0 : a.across * a.rows),
        take(a.column_parts, a.tiles / a.across * a.columns), take(a.tile_parts, a.tiles),
        take(a.row_totals, row_blocks), take(a.row_roots, a.rows), take(a.column_roots, a.columns),
        take(a.found, 1)}) {
    if (!taken) return taken;
  }
  const Constants constants(args);
  const LaunchShape by_tile{blocks_for(a.tiles, kWarps), kThreads};
  TUTTI_LAUNCH(stream(), by_tile, adafactor_sums_kernel, a, args.settings.size_min > 0.0);
  TUTTI_LAUNCH(stream(), (LaunchShape{blocks_for(a.columns, kThreads), kThreads}),
               finish_columns_kernel, a, constants);
  if (row_blocks > 0) {
    TUTTI_LAUNCH(stream(), (LaunchShape{row_blocks, kThreads}), finish_rows_kernel, a, constants);
  }
  TUTTI_LAUNCH(stream(), (LaunchShape{1, kThreads}), begin_update_kernel, a, args.settings,
               static_cast<Index>(row_blocks));
  TUTTI_LAUNCH(stream(), by_tile, adafactor_squares_kernel, a);
  TUTTI_LAUNCH(stream(), (LaunchShape{1, kThreads}), clip_update_kernel, a, args.settings.clip);
  TUTTI_LAUNCH(stream(), (LaunchShape{blocks_for(count, kGridBlock), kThreads}),
               adafactor_update_kernel, a);
  return end_op();
}

}  // namespace tutti::kernels::cuda
