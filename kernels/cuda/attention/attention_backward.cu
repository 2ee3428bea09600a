// Attention backward, fp32 (in bf16: gradients_bf16.cu), without atomics: one kernel sums dk and dv
// over (query head, query), another dq over keys; both compute the weights again from lse.
//
//   P = exp(S scale - lse)      dV += P^T dO      dP = dO V^T      dS = P (dP - delta) scale
//   dK += dS^T Q                dQ += dS K        delta = sum(dO O) of the row
//
// Tiles are 32 by 32; four neighbouring lanes have one row of the result, as in the forward pass.
// Each sum is a chain in ascending order, so a sample's gradients do not depend on what else is in
// the batch.
#include <algorithm>
#include <vector>

#include "kernels/cuda/attention/attention_bf16.h"
#include "kernels/cuda/attention/attention_form.h"
#include "kernels/cuda/attention/attention_softmax.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_view.h"
#include "kernels/ops/attention.h"

namespace tutti::kernels::cuda {

namespace {

constexpr Index kTile = kQueryTile;

// Rows [row, row + rows) of the batch: positions [position, ...) of the sample that begins at row
// `first`.
struct Task {
  std::int32_t first;
  std::int32_t position;
  std::int32_t rows;
  std::int32_t length;  // of the sample
};

struct Backward {
  explicit Backward(const AttentionBackward& args)
      : q(args.q),
        k(args.k),
        v(args.v),
        out(args.out),
        dout(args.dout),
        dq(args.dq),
        dk(args.dk),
        dv(args.dv),
        lse(args.lse),
        heads(args.shape.heads),
        group(args.shape.heads / args.shape.kv_heads),
        width(args.shape.head_width),
        sight(args.shape),
        rule(args.shape) {}

  Rows<const float> q, k, v, out, dout;
  Rows<float> dq, dk, dv;
  const float* lse;
  const float* delta = nullptr;
  const Task* tasks = nullptr;
  Index heads, group, width;
  Sight sight;
  ScoreRule rule;
};

// Where there is `rounded`, of dout as products in bf16 read it, which goes there: so a row's
// slopes still add up to nothing.
__global__ void deltas_kernel(Backward a, float* delta, Bf16* rounded) {
  const Index row = blockIdx.x;
  const Index lane = threadIdx.x % kWarp;
  for (Index head = threadIdx.x / kWarp; head < a.heads; head += kAttentionThreads / kWarp) {
    const float* const dout = a.dout.at(row) + head * a.width;
    const float* const out = a.out.at(row) + head * a.width;
    float sum = 0.0F;
    for (Index d = lane; d < a.width; d += kWarp) {
      float slope = dout[d];
      if (rounded != nullptr) {
        const Bf16 half = narrowed(slope, Narrow::bf16);
        rounded[(row * a.heads + head) * a.width + d] = half;
        slope = from_bf16(half);
      }
      sum = fmaf(slope, out[d], sum);
    }
    sum = warp_sum(sum);
    if (lane == 0) delta[row * a.heads + head] = sum;
  }
}

struct Tiles {
  __device__ Tiles(float* memory, Index width)
      : stride(width + 1),
        q(memory),
        dout(q + kTile * stride),
        k(dout + kTile * stride),
        v(k + kTile * stride),
        weights(v + kTile * stride),
        slopes(weights + kTile * (kTile + 1)) {}
  Index stride;
  float *q, *dout, *k, *v;
  float *weights, *slopes;  // [own row][kTile + 1]
};

std::size_t tile_bytes(Index width) {
  return static_cast<std::size_t>(4 * kTile * (width + 1) + 2 * kTile * (kTile + 1)) *
         sizeof(float);
}

__device__ void load_tile(float* to, Index stride, const Rows<const float>& from, Index row,
                          Index rows, Index column, Index width) {
  const float* const first = from.at(row) + column;
  for (TileWalk at(static_cast<unsigned>(width), kAttentionThreads); at.row < rows; at.next()) {
    to[at.row * stride + at.column] = first[at.row * from.stride + at.column];
  }
}

struct Pair {
  float weight, slope;
};

// A query's place in lse and delta, its distance from the first key of the tile, its head's slope.
struct QueryPlace {
  Index place, distance;
  float slope;
};

// Of query `query` and key `key` of the tiles.
__device__ Pair weigh(const Backward& a, const Tiles& tiles, Index query, Index key,
                      const QueryPlace& at) {
  const float* const q = tiles.q + query * tiles.stride;
  const float* const k = tiles.k + key * tiles.stride;
  const float* const dout = tiles.dout + query * tiles.stride;
  const float* const v = tiles.v + key * tiles.stride;
  float product = 0.0F;
  float dweight = 0.0F;
  for (Index d = 0; d < a.width; ++d) {
    product = fmaf(q[d], k[d], product);
    dweight = fmaf(dout[d], v[d], dweight);
  }
  const Score score = scored(a.rule, at.slope, product, at.distance - key);
  const float weight = exp32(score.value - a.lse[at.place]);
  return {weight, weight * (dweight - a.delta[at.place]) * score.along};
}

// sum[i] += factors[j] * rows[j][column i], j ascending.
template <int kColumns>
__device__ void add_rows(float* sum, const float* factors, const float* rows, Index stride,
                         Index count, Index width) {
  const Index lane = threadIdx.x % kQueryLanes;
  for (Index j = 0; j < count; ++j) {
    const float factor = factors[j];
    for (int i = 0; i < kColumns; ++i) {
      const Index column = lane + kQueryLanes * i;
      if (column < width) sum[i] = fmaf(factor, rows[j * stride + column], sum[i]);
    }
  }
}

template <int kColumns>
__device__ void store_row(float* to, const float* sum, Index width) {
  const Index lane = threadIdx.x % kQueryLanes;
  for (int i = 0; i < kColumns; ++i) {
    const Index column = lane + kQueryLanes * i;
    if (column < width) to[column] = sum[i];
  }
}

// Block (tile of keys, key head): threads own a key each.
template <int kColumns>
__global__ void __launch_bounds__(kAttentionThreads, 2) key_gradients_kernel(Backward a) {
  TUTTI_DYNAMIC_SHARED(float, memory);
  const Tiles tiles(memory, a.width);
  const Task task = a.tasks[blockIdx.x];
  const Index kv_head = blockIdx.y;
  const Index key = threadIdx.x / kQueryLanes;
  const Index lane = threadIdx.x % kQueryLanes;
  const Index key_row = task.first + task.position;
  float* const weights = tiles.weights + key * (kTile + 1);
  float* const slopes = tiles.slopes + key * (kTile + 1);
  load_tile(tiles.k, tiles.stride, a.k, key_row, task.rows, kv_head * a.width, a.width);
  load_tile(tiles.v, tiles.stride, a.v, key_row, task.rows, kv_head * a.width, a.width);
  float dk[kColumns] = {};
  float dv[kColumns] = {};
  const Index position = task.position + key;
  const Index first_query = a.sight.first_query(position);
  const Index end_query = a.sight.end_query(position, task.length);
  // Of all keys of the tile.
  const Index first = a.sight.first_query(task.position);
  const Index end = a.sight.end_query(task.position + task.rows - 1, task.length);
  for (Index head = kv_head * a.group; head < (kv_head + 1) * a.group; ++head) {
    const float slope = a.rule.slope(head);
    for (Index begin = first; begin < end; begin += kTile) {
      const Index count = begin + kTile < end ? kTile : end - begin;
      __syncthreads();
      load_tile(tiles.q, tiles.stride, a.q, task.first + begin, count, head * a.width, a.width);
      load_tile(tiles.dout, tiles.stride, a.dout, task.first + begin, count, head * a.width,
                a.width);
      __syncthreads();
      if (key < task.rows) {
        for (Index query = lane; query < count; query += kQueryLanes) {
          const bool sees = begin + query >= first_query && begin + query < end_query;
          const QueryPlace at{(task.first + begin + query) * a.heads + head,
                              begin + query - task.position, slope};
          const Pair pair = sees ? weigh(a, tiles, query, key, at) : Pair{0.0F, 0.0F};
          weights[query] = pair.weight;
          slopes[query] = pair.slope;
        }
      }
      __syncwarp();
      // Queries that do not see the key are not touched.
      const Index from = first_query > begin ? first_query - begin : 0;
      const Index to = end_query < begin + count ? end_query - begin : count;
      if (key < task.rows && from < to) {
        add_rows<kColumns>(dv, weights + from, tiles.dout + from * tiles.stride, tiles.stride,
                           to - from, a.width);
        add_rows<kColumns>(dk, slopes + from, tiles.q + from * tiles.stride, tiles.stride,
                           to - from, a.width);
      }
    }
  }
  if (key < task.rows) {
    store_row<kColumns>(a.dk.at(key_row + key) + kv_head * a.width, dk, a.width);
    store_row<kColumns>(a.dv.at(key_row + key) + kv_head * a.width, dv, a.width);
  }
}

// Block (tile of queries, head): threads own a query each.
template <int kColumns>
__global__ void __launch_bounds__(kAttentionThreads, 2) query_gradients_kernel(Backward a) {
  TUTTI_DYNAMIC_SHARED(float, memory);
  const Tiles tiles(memory, a.width);
  const Task task = a.tasks[blockIdx.x];
  const Index head = blockIdx.y;
  const Index kv_head = blockIdx.y / static_cast<unsigned>(a.group);
  const Index query = threadIdx.x / kQueryLanes;
  const Index lane = threadIdx.x % kQueryLanes;
  const Index row = task.first + task.position;
  float* const slopes = tiles.slopes + query * (kTile + 1);
  load_tile(tiles.q, tiles.stride, a.q, row, task.rows, head * a.width, a.width);
  load_tile(tiles.dout, tiles.stride, a.dout, row, task.rows, head * a.width, a.width);
  const Index position = task.position + query;
  const Index first_key = a.sight.first(position);
  const Index end_key = query < task.rows ? a.sight.end(position, task.length) : 0;
  const float slope = a.rule.slope(head);
  float dq[kColumns] = {};
  // Of all queries of the tile; tiles of keys lie on the grid.
  const Index first = a.sight.first(task.position) / kTile * kTile;
  const Index end = a.sight.end(task.position + task.rows - 1, task.length);
  for (Index begin = first; begin < end; begin += kTile) {
    const Index count = begin + kTile < end ? kTile : end - begin;
    __syncthreads();
    load_tile(tiles.k, tiles.stride, a.k, task.first + begin, count, kv_head * a.width, a.width);
    load_tile(tiles.v, tiles.stride, a.v, task.first + begin, count, kv_head * a.width, a.width);
    __syncthreads();
    const Index from = first_key > begin ? first_key - begin : 0;
    const Index to = end_key < begin + count ? end_key - begin : count;
    const QueryPlace at{(row + query) * a.heads + head, position - begin, slope};
    for (Index key = from + lane; key < to; key += kQueryLanes) {
      slopes[key] = weigh(a, tiles, query, key, at).slope;
    }
    __syncwarp();
    if (from < to) {
      add_rows<kColumns>(dq, slopes + from, tiles.k + from * tiles.stride, tiles.stride, to - from,
                         a.width);
    }
  }
  if (query < task.rows) store_row<kColumns>(a.dq.at(row + query) + head * a.width, dq, a.width);
}

template <int kColumns>
void launch_both(cudaStream_t stream, const Backward& a, unsigned tasks) {
  const std::size_t bytes = tile_bytes(a.width);
  TUTTI_LAUNCH(stream,
               (LaunchShape{dim3(tasks, static_cast<unsigned>(a.heads / a.group)),
                            kAttentionThreads, bytes}),
               key_gradients_kernel<kColumns>, a);
  TUTTI_LAUNCH(stream,
               (LaunchShape{dim3(tasks, static_cast<unsigned>(a.heads)), kAttentionThreads, bytes}),
               query_gradients_kernel<kColumns>, a);
}

}  // namespace

Result<> CudaDevice::enqueue(const AttentionBackward& args) {
  begin_op();
  auto taken = takes_rounded("attention_backward", args.shape,
                             {args.q_rounded, args.k_rounded, args.v_rounded, args.dq_rounded,
                              args.dk_rounded, args.dv_rounded});
  if (!taken) return taken;
  static_cast<void>(enqueues("wide", static_cast<bool>(args.dq), static_cast<bool>(args.dk),
                             static_cast<bool>(args.dv)));
  if (args.q.rows == 0) return {};
  auto delta = scratch_floats(args.q.rows * args.shape.heads);
  if (!delta) return std::move(delta).error();
  Backward a(args);
  a.delta = *delta;
  const bool narrow = on_tensor_cores(args.shape);
  const Index columns = args.q.columns;
  Bf16* dout = nullptr;
  if (narrow) {
    auto room = scratch_.take(static_cast<std::size_t>(args.q.rows * columns) * sizeof(Bf16));
    if (!room) return std::move(room).error();
    dout = static_cast<Bf16*>(*room);
  }
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(args.q.rows), kAttentionThreads}),
               deltas_kernel, a, *delta, dout);
  if (narrow) {
    auto ran =
        attention_backward_bf16(bf16_attention(), args, {dout, args.q.rows, columns}, *delta);
    if (!ran) return ran;
    return end_op();
  }
  std::pmr::vector<Task> tiles(&host_);
  for (std::size_t s = 0; s + 1 < args.sample_offsets.size(); ++s) {
    const std::int32_t first = args.sample_offsets[s];
    const std::int32_t length = args.sample_offsets[s + 1] - first;
    for (std::int32_t at = 0; at < length; at += static_cast<std::int32_t>(kTile)) {
      tiles.push_back({first, at, std::min(static_cast<std::int32_t>(kTile), length - at), length});
    }
  }
  auto tasks = stage(tiles.data(), tiles.size());
  if (!tasks) return std::move(tasks).error();
  a.tasks = *tasks;
  const auto count = static_cast<unsigned>(tiles.size());
  if (a.width <= 16 * static_cast<Index>(kQueryLanes)) {
    launch_both<16>(stream(), a, count);
  } else if (a.width <= 32 * static_cast<Index>(kQueryLanes)) {
    launch_both<32>(stream(), a, count);
  } else {
    launch_both<64>(stream(), a, count);
  }
  return end_op();
}

}  // namespace tutti::kernels::cuda
