// Layer norm, RMS norm and their gradients: a row is one block's, its sums in the order of
// reduce.h, the same for any number of rows. The gradients of weight and bias are cut into pieces
// of kRowsInPiece rows, a chain each, that are added in order; the first goes on from what is held.
#include "kernels/cuda/device.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_view.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/rms_norm.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 128;
constexpr Index kRowsInPiece = 256;

struct NormForward {
  explicit NormForward(const LayerNormForward& args)
      : x(args.x),
        y(args.y),
        weight(args.weight),
        bias(args.bias),
        mean(args.mean),
        inverse(args.inverse),
        epsilon(args.epsilon),
        width(args.x.columns) {}

  Rows<const float> x;
  Rows<float> y;
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
  float* const y = a.y.at(row);
  for (Index c = threadIdx.x; c < a.width; c += kThreads) {
    const float bias = a.bias != nullptr ? a.bias[c] : 0.0F;
    y[c] = fmaf((x[c] - mean) * inverse, a.weight[c], bias);
  }
}

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
  template <class Args>
  NormBackward(const Args& args, const float* mean_)
      : dy(args.dy),
        x(args.x),
        dx(args.dx),
        residual(args.residual),
        weight(args.weight),
        mean(mean_),
        inverse(args.inverse),
        rows(args.x.rows),
        width(args.x.columns) {}

  Rows<const float> dy, x;
  Rows<float> dx;
  Rows<const float> residual;
  const float* weight;
  const float* mean;  // null: it was not subtracted
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

__global__ void layer_norm_backward_kernel(NormBackward a) {
  TUTTI_SHARED(float, room, kThreads / kWarp);
  const Index row = blockIdx.x;
  const float* const x = a.x.at(row);
  const float* const dy = a.dy.at(row);
  const float mean = a.mean[row];
  const float inverse = a.inverse[row];
  const auto count = static_cast<float>(a.width);
  float sum = 0.0F;
  float along = 0.0F;
  for (Index c = threadIdx.x; c < a.width; c += kThreads) {
    const float g = dy[c] * a.weight[c];
    sum += g;
    along = fmaf(g, (x[c] - mean) * inverse, along);
  }
  const float slope_mean = block_sum(sum, room) / count;
  const float slope = block_sum(along, room) / count;
  float* const dx = a.dx.at(row);
  for (Index c = threadIdx.x; c < a.width; c += kThreads) {
    const float normal = (x[c] - mean) * inverse;
    float value = inverse * fmaf(-normal, slope, dy[c] * a.weight[c] - slope_mean);
    if (a.residual.data != nullptr) value += a.residual.at(row)[c];
    dx[c] = value;
  }
}

// Where the gradients of the parameters are added up; null: not wanted.
struct Slopes {
  float* weight;
  float* bias;
};

// A piece's two chains for each column: piece blockIdx.y, columns along blockIdx.x; of a piece
// those of the weight lie before those of the bias.
__global__ void norm_pieces_kernel(NormBackward a, Slopes slopes, float* pieces) {
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= a.width) return;
  const Index begin = blockIdx.y * kRowsInPiece;
  const Index end = begin + kRowsInPiece < a.rows ? begin + kRowsInPiece : a.rows;
  float weight = begin == 0 && slopes.weight != nullptr ? slopes.weight[c] : 0.0F;
  float bias = begin == 0 && slopes.bias != nullptr ? slopes.bias[c] : 0.0F;
  for (Index row = begin; row < end; ++row) {
    const float dy = a.dy.at(row)[c];
    const float mean = a.mean != nullptr ? a.mean[row] : 0.0F;
    weight = fmaf(dy, (a.x.at(row)[c] - mean) * a.inverse[row], weight);
    bias += dy;
  }
  float* const own = pieces + blockIdx.y * 2 * a.width;
  own[c] = weight;
  own[a.width + c] = bias;
}

__global__ void add_norm_pieces_kernel(const float* pieces, Index count, Index width,
                                       Slopes slopes) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= 2 * width) return;
  float* const to = i < width ? slopes.weight : slopes.bias;
  if (to == nullptr) return;
  float sum = pieces[i];
  for (Index piece = 1; piece < count; ++piece) sum += pieces[piece * 2 * width + i];
  to[i < width ? i : i - width] = sum;
}

// Before the rows: dx may take the place of dy. `room_for` gives scratch memory.
template <class RoomFor>
Result<> add_norm_slopes(cudaStream_t stream, const NormBackward& all, const Slopes& slopes,
                         const RoomFor& room_for) {
  if (slopes.weight == nullptr && slopes.bias == nullptr) return {};
  const unsigned pieces = blocks_for(all.rows, kRowsInPiece);
  const Result<float*> room = room_for(pieces * 2 * all.width);
  if (!room) return room.error();
  TUTTI_LAUNCH(stream, (LaunchShape{dim3(blocks_for(all.width, kThreads), pieces), kThreads}),
               norm_pieces_kernel, all, slopes, *room);
  TUTTI_LAUNCH(stream, (LaunchShape{blocks_for(2 * all.width, kThreads), kThreads}),
               add_norm_pieces_kernel, *room, static_cast<Index>(pieces), all.width, slopes);
  return {};
}

}  // namespace

Result<> CudaDevice::enqueue(const LayerNormForward& args) {
  begin_op();
  if (args.x.rows == 0 || args.x.columns == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(args.x.rows), kThreads}),
               layer_norm_forward_kernel, NormForward(args));
  return end_op();
}

Result<> CudaDevice::enqueue(const RmsNormForward& args) {
  begin_op();
  if (args.x.rows == 0 || args.x.columns == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(args.x.rows), kThreads}),
               rms_norm_forward_kernel, Rows(args.x), args.weight, Rows(args.y), args.inverse,
               args.epsilon, args.x.columns);
  return end_op();
}

Result<> CudaDevice::enqueue(const LayerNormBackward& args) {
  begin_op();
  if (args.x.rows == 0 || args.x.columns == 0) return {};
  const NormBackward all(args, args.mean);
  const auto take = [&](Index count) { return scratch_floats(count); };
  if (auto added = add_norm_slopes(stream(), all, {args.dweight, args.dbias}, take); !added)
    return added;
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(all.rows), kThreads}),
               layer_norm_backward_kernel, all);
  return end_op();
}

Result<> CudaDevice::enqueue(const RmsNormBackward& args) {
  begin_op();
  if (args.x.rows == 0 || args.x.columns == 0) return {};
  const NormBackward all(args, nullptr);
  const auto take = [&](Index count) { return scratch_floats(count); };
  if (auto added = add_norm_slopes(stream(), all, {args.dweight, nullptr}, take); !added)
    return added;
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(all.rows), kThreads}),
               rms_norm_backward_kernel, all);
  return end_op();
}

}  // namespace tutti::kernels::cuda
