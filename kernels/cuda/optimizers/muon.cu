// Muon: its momentum by grid blocks, its iterations by the device's products with passes over
// elements between them. The matrix that is iterated on lies in scratch memory, no taller than
// wide.
#include "kernels/ops/optimizers/muon.h"

#include <algorithm>
#include <cmath>

#include "kernels/cuda/device.h"
#include "kernels/cuda/optimizers/grid_range.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = kGridThreads;
constexpr unsigned kWarps = kThreads / kWarp;

struct Momentum {
  float momentum, factor;
  const float* gradient;
  float* velocity;
  float* u;         // Nesterov's form
  double* squares;  // of u, by grid block
  Index count;
};

__global__ void __launch_bounds__(kThreads) muon_momentum_kernel(Momentum a) {
  TUTTI_SHARED(double, room, kWarps);
  const GridRange range(a.count);
  double sum = 0.0;
  for (Index i = range.begin + threadIdx.x; i < range.end; i += kThreads) {
    const float gradient = a.gradient[i];
    const float velocity = fmaf(a.factor, gradient, a.momentum * a.velocity[i]);
    const float u = fmaf(a.factor, gradient, a.momentum * velocity);
    a.velocity[i] = velocity;
    a.u[i] = u;
    sum = fma(static_cast<double>(u), static_cast<double>(u), sum);
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) a.squares[blockIdx.x] = sum;
}

// One block: what u is multiplied by to have the norm 1.
__global__ void __launch_bounds__(kThreads)
    inverse_norm_kernel(const double* squares, Index count, float* inverse) {
  TUTTI_SHARED(double, room, kWarps);
  const double sum = sum_of_parts(squares, count, room);
  if (threadIdx.x == 0) *inverse = static_cast<float>(1.0 / (sqrt(sum) + 1e-7));
}

__global__ void __launch_bounds__(kThreads)
    scale_kernel(float* x, const float* scale, Index count) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) x[i] *= *scale;
}

// to = x turned, times `scale` where there is one; a block takes 32 rows by 32 columns.
struct Turn {
  const float* x;
  float* to;
  Index rows, columns;  // of x
  const float* scale;   // null: 1
};

__global__ void __launch_bounds__(kThreads) turn_kernel(Turn a) {
  constexpr Index kSide = kWarp;
  constexpr Index kStride = kSide + 1;  // columns of a tile lie in different banks
  TUTTI_SHARED(float, tile, kSide* kStride);
  const Index across = (a.columns + kSide - 1) / kSide;
  const Index row = blockIdx.x / across * kSide;
  const Index column = blockIdx.x % across * kSide;
  const Index lane = threadIdx.x % kWarp;
  const float scale = a.scale != nullptr ? *a.scale : 1.0F;
  for (Index r = threadIdx.x / kWarp; r < kSide; r += kWarps) {
    if (row + r >= a.rows || column + lane >= a.columns) continue;
    tile[r * kStride + lane] = scale * a.x[(row + r) * a.columns + column + lane];
  }
  __syncthreads();
  for (Index c = threadIdx.x / kWarp; c < kSide; c += kWarps) {
    if (column + c >= a.columns || row + lane >= a.rows) continue;
    a.to[(column + c) * a.rows + row + lane] = tile[lane * kStride + c];
  }
}

// x = a x + b y
__global__ void __launch_bounds__(kThreads)
    blend_kernel(float a, float* x, float b, const float* y, Index count) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) x[i] = fmaf(b, y[i], a * x[i]);
}

struct Step {
  float keep, along;
  float* weight;
  const float* x;
  Hash128* hashes;  // null: not wanted
  Index count;
};

__global__ void __launch_bounds__(kThreads) muon_update_kernel(Step a) {
  TUTTI_SHARED(Word, room, kKibsMax * kAccumulators);
  const GridRange range(a.count);
  for (Index i = range.begin + threadIdx.x; i < range.end; i += kThreads) {
    a.weight[i] = fmaf(a.along, a.x[i], a.weight[i] * a.keep);
  }
  hash_updated(a.weight, range, room, a.hashes);
}

void turn(cudaStream_t stream, const ConstMatrix& x, float* to, const float* scale) {
  const unsigned tiles = blocks_for(x.rows, kWarp) * blocks_for(x.columns, kWarp);
  TUTTI_LAUNCH(stream, (LaunchShape{tiles, kThreads}), turn_kernel,
               (Turn{x.data, to, x.rows, x.columns, scale}));
}

void blend(cudaStream_t stream, float a, const Matrix& x, float b, const Matrix& y) {
  const Index count = x.rows * x.columns;
  TUTTI_LAUNCH(stream, (LaunchShape{blocks_for(count, kThreads), kThreads}), blend_kernel, a,
               x.data, b, y.data, count);
}

// In scratch memory. Matrices begin where products read fastest.
struct Workspace {
  static constexpr Index kAlignment = 64;
  static Index rounded(Index count) { return (count + kAlignment - 1) / kAlignment * kAlignment; }
  static Index floats(Index few, Index many) {
    return 2 * rounded(few * many) + 2 * rounded(few * few) + kAlignment;
  }
  Workspace(float* room, Index few, Index many)
      : x(room, few, many),
        next(room + rounded(few * many), few, many),
        gram(room + 2 * rounded(few * many), few, few),
        square(gram.data + rounded(few * few), few, few),
        inverse(square.data + rounded(few * few)) {}

  Matrix x, next;
  Matrix gram, square;
  float* inverse;
};

// Newton and Schulz's iteration of the fifth order. `multiply` is the device's product.
template <class Multiply>
Result<> orthogonalise(cudaStream_t stream, const Workspace& w, int iterations,
                       const Multiply& multiply) {
  constexpr float kA = 3.4445F;
  constexpr float kB = -4.7750F;
  constexpr float kC = 2.0315F;
  for (int i = 0; i < iterations; ++i) {
    auto done = multiply(ProductForm::nt, Product{.left = w.x, .right = w.x, .output = w.gram});
    if (!done) return done;
    done = multiply(ProductForm::nn, Product{.left = w.gram, .right = w.gram, .output = w.square});
    if (!done) return done;
    blend(stream, kB, w.gram, kC, w.square);
    done = multiply(ProductForm::nn, Product{.left = w.gram, .right = w.x, .output = w.next});
    if (!done) return done;
    blend(stream, kA, w.x, 1.0F, w.next);
  }
  return {};
}

}  // namespace

Result<> CudaDevice::enqueue(const MuonUpdate& args) {
  begin_op();
  const MuonSettings& s = args.settings;
  const Index rows = args.weight.rows;
  const Index columns = args.weight.columns;
  const Index count = rows * columns;
  if (count == 0) return {};
  const bool tall = rows > columns;
  const Index few = std::min(rows, columns);
  const unsigned blocks = blocks_for(count, kGridBlock);
  auto squares = scratch_.take(blocks * sizeof(double));
  if (!squares) return std::move(squares).error();
  auto room = scratch_floats(Workspace::floats(few, count / few));
  if (!room) return std::move(room).error();
  const Workspace w(*room, few, count / few);
  auto* const block_squares = static_cast<double*>(*squares);
  const LaunchShape by_block{blocks, kThreads};
  float* const u = tall ? w.next.data : w.x.data;
  TUTTI_LAUNCH(stream(), by_block, muon_momentum_kernel,
               (Momentum{static_cast<float>(s.momentum), s.factor, args.gradient.data,
                         args.velocity.data, u, block_squares, count}));
  TUTTI_LAUNCH(stream(), (LaunchShape{1, kThreads}), inverse_norm_kernel, block_squares,
               static_cast<Index>(blocks), w.inverse);
  if (tall) {
    turn(stream(), {u, rows, columns}, w.x.data, w.inverse);
  } else {
    TUTTI_LAUNCH(stream(), (LaunchShape{blocks_for(count, kThreads), kThreads}), scale_kernel, u,
                 w.inverse, count);
  }
  const auto run = [&](ProductForm form, const Product& product) {
    return multiply(form, product);
  };
  if (auto done = orthogonalise(stream(), w, s.iterations, run); !done) return done;
  if (tall) turn(stream(), w.x, w.next.data, nullptr);
  const double aspect = static_cast<double>(rows) / static_cast<double>(columns);
  TUTTI_LAUNCH(stream(), by_block, muon_update_kernel,
               (Step{.keep = static_cast<float>(1.0 - s.rate * s.decay),
                     .along = static_cast<float>(-s.rate * std::sqrt(std::max(1.0, aspect))),
                     .weight = args.weight.data,
                     .x = u,
                     .hashes = args.hashes.empty() ? nullptr : args.hashes.data(),
                     .count = count}));
  return end_op();
}

}  // namespace tutti::kernels::cuda
