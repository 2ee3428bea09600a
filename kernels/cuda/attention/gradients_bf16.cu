// Attention backward on tensor cores, without atomics: one kernel sums dk and dv over (query head,
// query), another dq over keys; both compute the weights again from lse (Dao et al. 2022).
//
//   P = exp(S scale - lse)      dV += P^T dO      dP = dO V^T      dS = P (dP - delta)
//   dK += dS^T Q scale          dQ += dS K scale  delta = sum(dO O) of the row
//
// A thread block has 64 rows of the result, 16 a warp, whose sums stay in registers, and walks over
// tiles of 32 rows of the other side while the next one is on its way (cp.async, two buffers). For
// dk and dv the scores are turned, keys by queries: so P^T and dS^T are left operands as they
// stand. Which rows share a tile follows from positions: a sample's gradients do not depend on what
// else is in the batch. Pairs that do not see each other add zeros.
#include "kernels/cuda/attention/attention_bf16.h"
#include "kernels/cuda/attention/attention_tiles.h"
#include "kernels/cuda/row_view.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kWalkRows = 32;
constexpr unsigned kWalkTiles = kWalkRows / 8;

struct Gradients {
  Rows<const Bf16> q, k, v, dout;
  PairOutput dq, dk, dv;
  const SampleTile* tasks;
  const float *lse, *delta;  // [tokens][heads]
  Index heads, kv_heads, width;
  float scale;
};

// Shared memory of a block: its own rows of two matrices, and two buffers of the rows that it walks
// over; behind them lse and delta of those, where they are queries.
template <int kWidth>
struct Tiles {
  static constexpr unsigned kOwn = kTileRows * kTileStride<kWidth>;
  static constexpr unsigned kWalked = kWalkRows * kTileStride<kWidth>;
  static constexpr std::size_t kBytes =
      (2 * kOwn + 4 * kWalked) * sizeof(Bf16) + 4 * kWalkRows * sizeof(float);

  __device__ explicit Tiles(Bf16* memory) : memory_(memory) {}
  __device__ Bf16* own(unsigned which) const { return memory_ + which * kOwn; }
  __device__ Bf16* walked(unsigned which, unsigned buffer) const {
    return memory_ + 2 * kOwn + (2 * buffer + which) * kWalked;
  }
  __device__ float* sums(unsigned which, unsigned buffer) const {
    return reinterpret_cast<float*>(memory_ + 2 * kOwn + 4 * kWalked) +
           (2 * buffer + which) * kWalkRows;
  }

 private:
  Bf16* memory_;
};

// The score of a pair and what comes back to its weight become the weight and its slope.
__device__ __forceinline__ void weigh(float& score, float& slope, bool sees, float scale_log2,
                                      float lse_log2, float delta) {
  const float weight = sees ? exp2_fast(score * scale_log2 - lse_log2) : 0.0F;
  score = weight;
  slope = weight * (slope - delta);
}

// The warp's rows that are before `length`, from `position` on.
template <int kWidth>
__device__ void store_gradients(const PairOutput& to, const SampleTile& task, Index column,
                                Index width, const float (&sums)[kWidth / 8][4], float factor) {
  const unsigned lane = threadIdx.x % kWarp;
  const Index own = threadIdx.x / kWarp * kWarpRows + lane / 4;
  for (unsigned half = 0; half < 2; ++half) {
    const Index position = task.position + own + 8 * half;
    if (position >= task.length) continue;
    for (unsigned n = 0; n < kWidth / 8; ++n) {
      if (8 * n >= width) break;
      to.store(task.first + position, column + 8 * n + 2 * (lane % 4), sums[n][2 * half] * factor,
               sums[n][2 * half + 1] * factor);
    }
  }
}

// Queries [begin, begin + kWalkRows) of a head, with their lse and delta, on their way into a
// buffer.
template <int kWidth>
__device__ void fetch_queries(const Gradients& a, const Tiles<kWidth>& tiles, unsigned buffer,
                              const SampleTile& task, Index head, Index begin) {
  const HeadRows queries(a.q, task.first, head, a.width);
  const HeadRows douts(a.dout, task.first, head, a.width);
  fetch_rows<kWidth, kWalkRows>(tiles.walked(0, buffer), queries, begin, task.length);
  fetch_rows<kWidth, kWalkRows>(tiles.walked(1, buffer), douts, begin, task.length);
  if (threadIdx.x >= kWalkRows) return;
  const Index position = begin + threadIdx.x;
  const bool there = position < task.length;
  const Index place = (task.first + (there ? position : 0)) * a.heads + head;
  tiles.sums(0, buffer)[threadIdx.x] = there ? a.lse[place] * kLog2e : 0.0F;
  tiles.sums(1, buffer)[threadIdx.x] = there ? a.delta[place] : 0.0F;
}

// Block (tile of keys, key head): a warp owns 16 keys.
template <int kWidth>
__global__ void __launch_bounds__(kTileThreads) key_gradients_mma_kernel(Gradients a) {
  TUTTI_DYNAMIC_SHARED(Bf16, memory);
  const Tiles<kWidth> tiles(memory);
  const SampleTile task = a.tasks[blockIdx.x];
  const Index kv_head = blockIdx.y;
  const auto group = static_cast<unsigned>(a.heads) / static_cast<unsigned>(a.kv_heads);
  const HeadRows keys(a.k, task.first, kv_head, a.width);
  const HeadRows values(a.v, task.first, kv_head, a.width);
  fetch_rows<kWidth, kTileRows>(tiles.own(0), keys, task.position, task.length);
  fetch_rows<kWidth, kTileRows>(tiles.own(1), values, task.position, task.length);
  // Tiles of queries from the first key's position on, of one head after the other.
  const unsigned in_head =
      (static_cast<unsigned>(task.length - task.position) + kWalkRows - 1) / kWalkRows;
  const unsigned steps = group * in_head;
  const auto fetch = [&](unsigned step) {
    fetch_queries<kWidth>(a, tiles, step % 2, task, kv_head * group + step / in_head,
                          task.position + static_cast<Index>(step % in_head) * kWalkRows);
  };
  fetch(0);
  commit_async_copies();
  const unsigned lane = threadIdx.x % kWarp;
  const Index key = task.position + threadIdx.x / kWarp * kWarpRows + lane / 4;
  float dk[kWidth / 8][4] = {};
  float dv[kWidth / 8][4] = {};
  for (unsigned step = 0; step < steps; ++step) {
    if (step + 1 < steps) fetch(step + 1);
    commit_async_copies();
    wait_async_copies<1>();
    __syncthreads();
    const unsigned buffer = step % 2;
    const Bf16* const queries = tiles.walked(0, buffer);
    const Bf16* const douts = tiles.walked(1, buffer);
    float weights[kWalkTiles][4];
    float slopes[kWalkTiles][4];
    multiply_rows<kWidth>(own_rows<kWidth>(tiles.own(0)), queries, weights);
    multiply_rows<kWidth>(own_rows<kWidth>(tiles.own(1)), douts, slopes);
    // In a tile on the diagonal, or with the sample's end, not all queries see all keys.
    const auto begin = static_cast<int>(task.position + step % in_head * kWalkRows);
    const auto own = static_cast<int>(key);
    const bool edge = begin < task.position + static_cast<int>(kTileRows) ||
                      begin + static_cast<int>(kWalkRows) > task.length;
    for (unsigned n = 0; n < kWalkTiles; ++n) {
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned at = 8 * n + 2 * (lane % 4) + i % 2;
        const int query = begin + static_cast<int>(at);
        const bool sees =
            !edge || (query >= own + static_cast<int>(8 * (i / 2)) && query < task.length);
        weigh(weights[n][i], slopes[n][i], sees, a.scale * kLog2e, tiles.sums(0, buffer)[at],
              tiles.sums(1, buffer)[at]);
      }
    }
    add_products<kWidth>(weights, douts, dv);
    add_products<kWidth>(slopes, queries, dk);
    __syncthreads();
  }
  store_gradients<kWidth>(a.dk, task, kv_head * a.width, a.width, dk, a.scale);
  store_gradients<kWidth>(a.dv, task, kv_head * a.width, a.width, dv, 1.0F);
}

// Block (tile of queries, head): a warp owns 16 queries. The last tiles, which see the most keys,
// come first.
template <int kWidth>
__global__ void __launch_bounds__(kTileThreads) query_gradients_mma_kernel(Gradients a) {
  TUTTI_DYNAMIC_SHARED(Bf16, memory);
  const Tiles<kWidth> tiles(memory);
  const SampleTile task = a.tasks[gridDim.x - 1 - blockIdx.x];
  const Index head = blockIdx.y;
  const auto group = static_cast<unsigned>(a.heads) / static_cast<unsigned>(a.kv_heads);
  const HeadRows key_rows(a.k, task.first, blockIdx.y / group, a.width);
  const HeadRows value_rows(a.v, task.first, blockIdx.y / group, a.width);
  const Index past = task.position + static_cast<Index>(kTileRows);
  const Index end = past < task.length ? past : task.length;
  fetch_rows<kWidth, kTileRows>(tiles.own(0), HeadRows(a.q, task.first, head, a.width),
                                task.position, end);
  fetch_rows<kWidth, kTileRows>(tiles.own(1), HeadRows(a.dout, task.first, head, a.width),
                                task.position, end);
  const Index steps = (end + kWalkRows - 1) / kWalkRows;
  const auto fetch = [&](Index step) {
    const auto buffer = static_cast<unsigned>(step % 2);
    fetch_rows<kWidth, kWalkRows>(tiles.walked(0, buffer), key_rows, step * kWalkRows, end);
    fetch_rows<kWidth, kWalkRows>(tiles.walked(1, buffer), value_rows, step * kWalkRows, end);
  };
  fetch(0);
  commit_async_copies();
  const unsigned lane = threadIdx.x % kWarp;
  const Index query = task.position + threadIdx.x / kWarp * kWarpRows + lane / 4;
  float lse[2];
  float delta[2];
  for (unsigned half = 0; half < 2; ++half) {
    const bool there = query + 8 * half < task.length;
    const Index place = (task.first + (there ? query + 8 * half : 0)) * a.heads + head;
    lse[half] = there ? a.lse[place] * kLog2e : 0.0F;
    delta[half] = there ? a.delta[place] : 0.0F;
  }
  float dq[kWidth / 8][4] = {};
  for (Index step = 0; step < steps; ++step) {
    if (step + 1 < steps) fetch(step + 1);
    commit_async_copies();
    wait_async_copies<1>();
    __syncthreads();
    const auto buffer = static_cast<unsigned>(step % 2);
    const Bf16* const keys = tiles.walked(0, buffer);
    float weights[kWalkTiles][4];
    float slopes[kWalkTiles][4];
    multiply_rows<kWidth>(own_rows<kWidth>(tiles.own(0)), keys, weights);
    multiply_rows<kWidth>(own_rows<kWidth>(tiles.own(1)), tiles.walked(1, buffer), slopes);
    const auto begin = static_cast<int>(step * kWalkRows);
    const auto own = static_cast<int>(query);
    const bool edge = begin + static_cast<int>(kWalkRows) > task.position || past > task.length;
    for (unsigned n = 0; n < kWalkTiles; ++n) {
      for (unsigned i = 0; i < 4; ++i) {
        const int key = begin + static_cast<int>(8 * n + 2 * (lane % 4) + i % 2);
        const int other = own + static_cast<int>(8 * (i / 2));
        const bool sees = !edge || (key <= other && other < task.length);
        weigh(weights[n][i], slopes[n][i], sees, a.scale * kLog2e, lse[i / 2], delta[i / 2]);
      }
    }
    add_products<kWidth>(slopes, keys, dq);
    __syncthreads();
  }
  store_gradients<kWidth>(a.dq, task, head * a.width, a.width, dq, a.scale);
}

template <int kWidth>
void launch_both(cudaStream_t stream, const Gradients& a, unsigned tiles) {
  TUTTI_LAUNCH(stream,
               (LaunchShape{dim3(tiles, static_cast<unsigned>(a.kv_heads)), kTileThreads,
                            Tiles<kWidth>::kBytes}),
               key_gradients_mma_kernel<kWidth>, a);
  TUTTI_LAUNCH(stream,
               (LaunchShape{dim3(tiles, static_cast<unsigned>(a.heads)), kTileThreads,
                            Tiles<kWidth>::kBytes}),
               query_gradients_mma_kernel<kWidth>, a);
}

}  // namespace

Result<> attention_backward_bf16(const Bf16Attention& where, const AttentionBackward& args,
                                 const ConstRoundedMatrix& dout, const float* delta) {
  const AttentionShape& shape = args.shape;
  const auto in = round_inputs(where, {.shape = shape,
                                       .q = args.q,
                                       .k = args.k,
                                       .v = args.v,
                                       .sample_offsets = args.sample_offsets,
                                       .out = {},
                                       .q_rounded = args.q_rounded,
                                       .k_rounded = args.k_rounded,
                                       .v_rounded = args.v_rounded});
  if (!in) return in.error();
  if (in->tiles == 0) return {};
  const Gradients a{.q = Rows(in->q),
                    .k = Rows(in->k),
                    .v = Rows(in->v),
                    .dout = Rows(dout),
                    .dq = {Rows(args.dq), Rows(args.dq_rounded)},
                    .dk = {Rows(args.dk), Rows(args.dk_rounded)},
                    .dv = {Rows(args.dv), Rows(args.dv_rounded)},
                    .tasks = in->tasks,
                    .lse = args.lse,
                    .delta = delta,
                    .heads = shape.heads,
                    .kv_heads = shape.kv_heads,
                    .width = shape.head_width,
                    .scale = shape.scale};
  if (shape.head_width <= 64) {
    launch_both<64>(where.stream, a, in->tiles);
  } else {
    launch_both<128>(where.stream, a, in->tiles);
  }
  return {};
}

}  // namespace tutti::kernels::cuda
