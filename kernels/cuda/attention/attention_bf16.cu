// Attention forward on tensor cores: bf16 inputs, fp32 scores and sums (Dao et al. 2022 for the
// online softmax).
//
// A thread block has 64 queries of one head, 16 a warp, and walks over key tiles of 64 on the
// position grid while the next tile is on its way (cp.async, two buffers). Scores stay in
// registers: the accumulators of Q K^T are, rounded to bf16, the left operand of P V. A query's
// result depends on its own keys only; which keys share a tile follows from positions.
#include "kernels/cuda/attention/attention_bf16.h"

#include <vector>

#include "kernels/cuda/attention/attention_tiles.h"
#include "kernels/cuda/convert.h"
#include "kernels/cuda/elementary.h"
#include "kernels/cuda/row_view.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kKeyTiles = kTileRows / 8;

struct Attend {
  Rows<const Bf16> q, k, v;
  PairOutput out;
  const SampleTile* tasks;
  float* lse;
  Index heads, kv_heads, width;
  float scale_log2;  // scale * log2(e)
};

struct RowSums {
  float top[2];
  float total[2];
};

// Masks, exponentials and the running maximum of the warp's two rows a lane; scores become weights.
// Only in the last tile are there keys that a query does not see.
__device__ void soften(float (&scores)[kKeyTiles][4], RowSums& rows, float (&shrink)[2], bool last,
                       const int (&seen)[2], float scale_log2) {
  const int t = static_cast<int>(threadIdx.x % 4);
  for (unsigned half = 0; half < 2; ++half) {
    for (unsigned n = 0; n < kKeyTiles; ++n) {
      for (unsigned i = 0; i < 2; ++i) scores[n][2 * half + i] *= scale_log2;
    }
    if (last) {
      const int left = seen[half] - 2 * t;
      for (unsigned n = 0; n < kKeyTiles; ++n) {
        for (unsigned i = 0; i < 2; ++i) {
          if (static_cast<int>(8 * n + i) >= left) scores[n][2 * half + i] = -INFINITY;
        }
      }
    }
    float top = rows.top[half];
    for (unsigned n = 0; n < kKeyTiles; ++n) {
      for (unsigned i = 0; i < 2; ++i) {
        const float score = scores[n][2 * half + i];
        top = score > top ? score : top;
      }
    }
    for (unsigned by = 1; by < 4; by *= 2) {
      const float other = __shfl_xor_sync(kAllLanes, top, by);
      top = other > top ? other : top;
    }
    // A row that sees no key yet has no maximum; nothing is scaled or added then.
    const float base = top == -INFINITY ? 0.0F : top;
    shrink[half] = exp2_fast(rows.top[half] - base);
    rows.top[half] = top;
    float sum = 0.0F;
    for (unsigned n = 0; n < kKeyTiles; ++n) {
      for (unsigned i = 0; i < 2; ++i) {
        float& score = scores[n][2 * half + i];
        score = exp2_fast(score - base);
        sum += score;
      }
    }
    rows.total[half] = rows.total[half] * shrink[half] + sum;
  }
}

// scores = Q K^T for the warp's 16 queries, which it holds in registers, and the tile's 64 keys.
template <int kWidth>
__device__ void score_tile(const unsigned (&q)[kWidth / 16][4], const Bf16* keys,
                           float (&scores)[kKeyTiles][4]) {
  for (unsigned n = 0; n < kKeyTiles; n += 2) {
    for (unsigned i = 0; i < 4; ++i) scores[n][i] = scores[n + 1][i] = 0.0F;
    for (unsigned k = 0; k < kWidth / 16; ++k) {
      unsigned b[4];
      load_across<kWidth>(b, keys, n, k);
      multiply_tiles(scores[n], q[k], b[0], b[1]);
      multiply_tiles(scores[n + 1], q[k], b[2], b[3]);
    }
  }
}

template <int kWidth>
__device__ void store_rows(const Attend& a, const SampleTile& task, Index head, const RowSums& rows,
                           const float (&sums)[kWidth / 8][4]) {
  const unsigned lane = threadIdx.x % kWarp;
  const Index query = threadIdx.x / kWarp * kWarpRows + lane / 4;
  for (unsigned half = 0; half < 2; ++half) {
    float total = rows.total[half];
    for (unsigned by = 1; by < 4; by *= 2) total += __shfl_xor_sync(kAllLanes, total, by);
    const Index position = task.position + query + 8 * half;
    if (position >= task.length) continue;
    const Index row = task.first + position;
    const float by = 1.0F / total;
    for (unsigned n = 0; n < kWidth / 8; ++n) {
      if (8 * n >= a.width) break;
      a.out.store(row, head * a.width + 8 * n + 2 * (lane % 4), sums[n][2 * half] * by,
                  sums[n][2 * half + 1] * by);
    }
    if (a.lse != nullptr && lane % 4 == 0) {
      constexpr float kLn2 = 0.693147180559945F;
      a.lse[row * a.heads + head] = rows.top[half] * kLn2 + log32(total);
    }
  }
}

// Block (tile of queries, head). The last tiles, which see the most keys, come first.
template <int kWidth>
__global__ void __launch_bounds__(kTileThreads) attention_mma_kernel(Attend a) {
  TUTTI_DYNAMIC_SHARED(Bf16, memory);
  constexpr unsigned kTileSize = kTileRows * kTileStride<kWidth>;
  Bf16* const queries = memory;
  Bf16* const keys = memory + kTileSize;        // two buffers
  Bf16* const values = memory + 3 * kTileSize;  // two buffers
  const SampleTile task = a.tasks[gridDim.x - 1 - blockIdx.x];
  const Index head = blockIdx.y;
  const auto group = static_cast<unsigned>(a.heads) / static_cast<unsigned>(a.kv_heads);
  const Index kv_head = blockIdx.y / group;
  const HeadRows q_rows(a.q, task.first, head, a.width);
  const HeadRows k(a.k, task.first, kv_head, a.width);
  const HeadRows v(a.v, task.first, kv_head, a.width);
  const Index past = task.position + static_cast<Index>(kTileRows);
  const Index end = past < task.length ? past : task.length;
  const Index tiles = (end + kTileRows - 1) / kTileRows;
  fetch_rows<kWidth, kTileRows>(queries, q_rows, task.position, end);
  fetch_rows<kWidth, kTileRows>(keys, k, 0, end);
  fetch_rows<kWidth, kTileRows>(values, v, 0, end);
  commit_async_copies();
  const unsigned lane = threadIdx.x % kWarp;
  const Index query = threadIdx.x / kWarp * kWarpRows + lane / 4;
  unsigned q[kWidth / 16][4];
  float sums[kWidth / 8][4] = {};
  RowSums rows = {{-INFINITY, -INFINITY}, {0.0F, 0.0F}};
  for (Index tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles) {
      const unsigned other = static_cast<unsigned>((tile + 1) % 2) * kTileSize;
      fetch_rows<kWidth, kTileRows>(keys + other, k, (tile + 1) * kTileRows, end);
      fetch_rows<kWidth, kTileRows>(values + other, v, (tile + 1) * kTileRows, end);
    }
    commit_async_copies();
    wait_async_copies<1>();
    __syncthreads();
    if (tile == 0) {
      const Bf16* const row = own_rows<kWidth>(queries);
      for (unsigned i = 0; i < kWidth / 16; ++i) load_matrices<false>(q[i], row + 16 * i);
    }
    const unsigned buffer = static_cast<unsigned>(tile % 2) * kTileSize;
    float scores[kKeyTiles][4];
    score_tile<kWidth>(q, keys + buffer, scores);
    const auto left = static_cast<int>(task.position + query + 1 - tile * kTileRows);
    const int seen[2] = {left, left + 8};
    float shrink[2];
    soften(scores, rows, shrink, tile + 1 == tiles, seen, a.scale_log2);
    for (unsigned n = 0; n < kWidth / 8; ++n) {
      for (unsigned i = 0; i < 4; ++i) sums[n][i] *= shrink[i / 2];
    }
    add_products<kWidth>(scores, values + buffer, sums);
    __syncthreads();
  }
  store_rows<kWidth>(a, task, head, rows, sums);
}

template <int kWidth>
void launch_attention(cudaStream_t stream, const Attend& a, unsigned tiles) {
  const std::size_t bytes = 5 * kTileRows * kTileStride<kWidth> * sizeof(Bf16);
  TUTTI_LAUNCH(stream,
               (LaunchShape{dim3(tiles, static_cast<unsigned>(a.heads)), kTileThreads, bytes}),
               attention_mma_kernel<kWidth>, a);
}

}  // namespace

Result<ConstRoundedMatrix> rounded_or(const Bf16Attention& where, const ConstRoundedMatrix& given,
                                      const ConstMatrix& from) {
  if (given) return given;
  auto room = where.scratch(static_cast<std::size_t>(from.rows * from.columns) * sizeof(Bf16));
  if (!room) return std::move(room).error();
  auto* const to = static_cast<Bf16*>(*room);
  auto done = round_rows(where.stream, from, to, from.columns, Narrow::bf16);
  if (!done) return std::move(done).error();
  return ConstRoundedMatrix(to, from.rows, from.columns);
}

Result<RoundedInputs> round_inputs(const Bf16Attention& where, const AttentionForward& args) {
  const auto tiles = tiles_of(args.sample_offsets, where.host);
  if (tiles.empty()) return RoundedInputs();
  auto tasks = where.stage(tiles.data(), tiles.size() * sizeof(SampleTile));
  if (!tasks) return std::move(tasks).error();
  auto q = rounded_or(where, args.q_rounded, args.q);
  if (!q) return std::move(q).error();
  auto k = rounded_or(where, args.k_rounded, args.k);
  if (!k) return std::move(k).error();
  auto v = rounded_or(where, args.v_rounded, args.v);
  if (!v) return std::move(v).error();
  return RoundedInputs{*q, *k, *v, static_cast<const SampleTile*>(*tasks),
                       static_cast<unsigned>(tiles.size())};
}

Result<> attention_forward_bf16(const Bf16Attention& where, const AttentionForward& args) {
  const auto in = round_inputs(where, args);
  if (!in) return in.error();
  if (in->tiles == 0) return {};
  const AttentionShape& shape = args.shape;
  const Attend a{.q = Rows(in->q),
                 .k = Rows(in->k),
                 .v = Rows(in->v),
                 .out = {Rows(args.out), Rows(args.out_rounded)},
                 .tasks = in->tasks,
                 .lse = args.lse,
                 .heads = shape.heads,
                 .kv_heads = shape.kv_heads,
                 .width = shape.head_width,
                 .scale_log2 = shape.scale * kLog2e};
  if (shape.head_width <= 64) {
    launch_attention<64>(where.stream, a, in->tiles);
  } else {
    launch_attention<128>(where.stream, a, in->tiles);
  }
  return {};
}

}  // namespace tutti::kernels::cuda
