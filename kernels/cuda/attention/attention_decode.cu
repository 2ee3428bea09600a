// Attention of single rows over cache pages: decoding. The arithmetic and so the bits are those of
// attention_softmax.h, as in a tile of queries (attention_forward.cu); who does it differs.
//
// A thread block has the query heads of one key head, up to kQueries, and walks over the keys once
// for all of them. Keys and values of a block are two tiles, which arrive in turn in a ring of
// three (cp.async), so that two are on their way while one is read:
//   scores    a thread has one key and half of the queries: their chains over D
//   softmax   a warp has a query, its four lanes their keys: the order of lanes_sum
//   values    a thread has a column, or two, of all queries: their chains over keys
// Keys that the row does not see are neither read nor touched.
#include "kernels/cuda/attention/attend.h"
#include "kernels/cuda/attention/attention_softmax.h"
#include "kernels/cuda/elementwise/fours.h"
#include "kernels/cuda/reduce.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = kAttentionThreads;
constexpr unsigned kWarps = kThreads / kWarp;
constexpr unsigned kKeys = kKeyBlock;
constexpr unsigned kSides = kThreads / kKeys;
constexpr unsigned kColumns = kHeadWidthMax / kThreads;
constexpr unsigned kSlots = 3;
constexpr unsigned kPiece = 16;  // bytes of a copy
constexpr unsigned kEight = 8;   // head widths are multiples of it

// An odd number of pieces, so that threads of neighbouring keys meet different banks.
__host__ __device__ constexpr unsigned tile_stride(Index row_bytes) {
  return ((static_cast<unsigned>(row_bytes) + kPiece - 1) / kPiece | 1U) * kPiece;
}

enum Factor : unsigned { kShrink, kNew, kOld, kBy, kFactors };

// Shared memory of a block.
template <unsigned kQueries>
struct Room {
  __device__ Room(unsigned char* memory, const Attend& a)
      : stride(tile_stride(a.layout.row_bytes)),
        tiles(memory),
        scales(reinterpret_cast<float*>(memory + kSlots * kKeys * stride)),
        weights(scales + kSlots * kKeys),
        q(weights + kKeys * kQueries),
        factors(q + kQueries * a.width) {}
  static std::size_t bytes(const Attend& a) {
    const std::size_t floats = kSlots * kKeys + kKeys * kQueries +
                               kQueries * static_cast<std::size_t>(a.width) + kFactors * kQueries;
    return kSlots * kKeys * tile_stride(a.layout.row_bytes) + floats * sizeof(float);
  }
  __device__ unsigned char* tile(unsigned slot) const { return tiles + slot * kKeys * stride; }

  unsigned stride;
  unsigned char* tiles;  // [slot][key][stride]
  float* scales;         // [slot][key], of int8
  float* weights;        // [key][query]
  float* q;              // [query][width]
  float* factors;        // [kFactors][query]: of a block's sums, and of merging chunks
};

// The keys of a block that the row sees, [from, end).
struct Seen {
  unsigned from, end;
};

// Eight numbers of a row, in fp32.
__device__ __forceinline__ void load_eight(float (&to)[kEight], const float* from) {
  for (unsigned i = 0; i < kEight; i += kInFour) {
    const float4 four = *reinterpret_cast<const float4*>(from + i);
    to[i] = four.x;
    to[i + 1] = four.y;
    to[i + 2] = four.z;
    to[i + 3] = four.w;
  }
}
__device__ __forceinline__ void load_eight(float (&to)[kEight], const Bf16* from) {
  const uint4 all = *reinterpret_cast<const uint4*>(from);
  const unsigned pairs[] = {all.x, all.y, all.z, all.w};
  for (unsigned i = 0; i < kEight; ++i) {
    to[i] = from_bf16(static_cast<Bf16>(pairs[i / 2] >> (i % 2 * 16) & 0xffffU));
  }
}
__device__ __forceinline__ void load_eight(float (&to)[kEight], const std::int8_t* from) {
  const uint2 all = *reinterpret_cast<const uint2*>(from);
  for (unsigned i = 0; i < kEight; ++i) {
    to[i] = widened(static_cast<std::int8_t>((i < 4 ? all.x : all.y) >> (i % 4 * 8) & 0xffU));
  }
}

// What the queries give a key.
template <unsigned kQueries>
__device__ __forceinline__ void load_weights(float (&to)[kQueries], const float* from) {
  if constexpr (kQueries == 1) {
    to[0] = *from;
  } else {
    for (unsigned i = 0; i < kQueries; i += kInFour) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      to[i] = four.x;
      to[i + 1] = four.y;
      to[i + 2] = four.z;
      to[i + 3] = four.w;
    }
  }
}

// The block's task, its keys and what is done with them.
template <unsigned kQueries, class Element>
struct Decode {
  // Queries of a thread in scores, and of a warp in softmax.
  static constexpr unsigned kOwn = kQueries < kSides ? 1 : kQueries / kSides;
  static constexpr unsigned kServed = kQueries < kWarps ? 1 : kQueries / kWarps;
  static constexpr bool kCodes = sizeof(Element) == 1;

  __device__ Decode(const Attend& a_in, unsigned char* memory)
      : a(a_in),
        room(memory, a_in),
        task(a_in.tasks[blockIdx.x]),
        pieces((static_cast<unsigned>(a_in.group) + kQueries - 1) / kQueries),
        kv_head(blockIdx.y / pieces),
        first_head(kv_head * a_in.group + blockIdx.y % pieces * kQueries),
        queries(static_cast<unsigned>((kv_head + 1) * a_in.group - first_head <
                                              static_cast<Index>(kQueries)
                                          ? (kv_head + 1) * a_in.group - first_head
                                          : kQueries)),
        first_key(a_in.sight.first(task.position)),
        end_key(a_in.sight.end(task.position, task.length)) {}

  __device__ Seen seen(Index block) const {
    const Index at = block * kKeyBlock;
    return {static_cast<unsigned>(within_block(first_key - at)),
            static_cast<unsigned>(within_block(end_key - at))};
  }

  __device__ void load_queries() const {
    const float* const from = a.q.at(task.row) + first_head * a.width;
    const auto there = queries * static_cast<unsigned>(a.width);
    for (unsigned i = threadIdx.x; i < kQueries * static_cast<unsigned>(a.width); i += kThreads) {
      room.q[i] = i < there ? from[i] : 0.0F;
    }
  }

  // Keys of a block, or its values, on their way into a slot.
  __device__ void fetch(Index block, unsigned values, unsigned slot) const {
    const Seen at_hand = seen(block);
    const float* const page = a.pages[task.keys + block];
    const auto row_bytes = static_cast<unsigned>(a.layout.row_bytes);
    const unsigned char* const from =
        a.layout.key(page, kv_head, 0) + values * kKeys * a.layout.row_bytes;
    unsigned char* const to = room.tile(slot);
    if (row_bytes % kPiece == 0 && is_multiple(from, kPiece)) {
      for (TileWalk at(row_bytes / kPiece, kThreads); at.row < at_hand.end; at.next()) {
        if (at.row < at_hand.from) continue;
        copy_async_16(to + at.row * room.stride + at.column * kPiece,
                      from + at.row * row_bytes + at.column * kPiece);
      }
    } else {
      constexpr unsigned kBytes = sizeof(float);
      for (TileWalk at(row_bytes / kBytes, kThreads); at.row < at_hand.end; at.next()) {
        if (at.row < at_hand.from) continue;
        copy_async_4(to + at.row * room.stride + at.column * kBytes,
                     from + at.row * row_bytes + at.column * kBytes);
      }
    }
    const unsigned key = threadIdx.x;
    if (kCodes && key >= at_hand.from && key < at_hand.end) {
      copy_async_4(room.scales + slot * kKeys + key,
                   a.layout.scale(page, kv_head, key) + values * kKeys);
    }
  }

  // The scores of the thread's key and queries.
  __device__ void score(Index block, const Seen& keys, unsigned slot) const {
    const unsigned key = threadIdx.x % kKeys;
    const unsigned first = threadIdx.x / kKeys * kOwn;
    if (first >= queries || key < keys.from || key >= keys.end) return;
    const auto* const row = reinterpret_cast<const Element*>(room.tile(slot) + key * room.stride);
    const float* const q = room.q + first * a.width;
    float products[kOwn] = {};
    for (Index d = 0; d < a.width; d += kEight) {
      float k[kEight];
      load_eight(k, row + d);
      for (unsigned own = 0; own < kOwn; ++own) {
        float x[kEight];
        load_eight(x, q + own * a.width + d);
        for (unsigned i = 0; i < kEight; ++i) products[own] = fmaf(x[i], k[i], products[own]);
      }
    }
    const Index distance = task.position - block * kKeyBlock - key;
    for (unsigned own = 0; own < kOwn; ++own) {
      const unsigned query = first + own;
      if (query >= queries) break;
      float product = products[own];
      if (kCodes) product *= room.scales[slot * kKeys + key];
      room.weights[key * kQueries + query] =
          scored(a.rule, a.rule.slope(first_head + query), product, distance).value;
    }
  }

  // Scores of a query become weights, by its warp; all lanes have its maximum and total.
  __device__ void soften(unsigned query, const Seen& keys, bool first, float& top,
                         float& total) const {
    const unsigned lane = threadIdx.x % kWarp;
    float* const weights = room.weights + query;
    float block_top = -INFINITY;
    for (unsigned key = lane; key < kKeys; key += kWarp) {
      if (key < keys.from || key >= keys.end) continue;
      const float score = weights[key * kQueries];
      block_top = score > block_top ? score : block_top;
    }
    block_top = warp_max(block_top);
    float shrink = 1.0F;
    if (first) {
      top = block_top;
      total = 0.0F;
    } else if (block_top > top) {
      shrink = exp32(top - block_top);
      top = block_top;
      total *= shrink;
    }
    const float offset = offset_under(top);
    for (unsigned key = lane; key < kKeys; key += kWarp) {
      if (key < keys.from || key >= keys.end) continue;
      weights[key * kQueries] = exp32(weights[key * kQueries] - offset);
    }
    __syncwarp();
    float own = 0.0F;
    if (lane < kQueryLanes) {
      // A key is its lane's wherever the first one lies.
      for (unsigned key = keys.from + ((lane - keys.from) & (kQueryLanes - 1)); key < keys.end;
           key += kQueryLanes) {
        own += weights[key * kQueries];
      }
    }
    total += __shfl_sync(kAllLanes, lanes_sum(own), 0);
    if (lane == 0) room.factors[query] = shrink;
  }

  // Values by weights are added to the thread's columns.
  __device__ void add_values(const Seen& keys, unsigned slot,
                             float (&sums)[kColumns][kQueries]) const {
    const unsigned char* const tile = room.tile(slot);
    for (unsigned c = 0; c < kColumns; ++c) {
      const unsigned column = threadIdx.x + c * kThreads;
      if (column >= a.width) continue;
      for (unsigned query = 0; query < kQueries; ++query) sums[c][query] *= room.factors[query];
      for (unsigned key = keys.from; key < keys.end; ++key) {
        const float v = widened(reinterpret_cast<const Element*>(tile + key * room.stride)[column]);
        float weights[kQueries];
        load_weights(weights, room.weights + key * kQueries);
        for (unsigned query = 0; query < kQueries; ++query) {
          const float weight =
              kCodes ? weights[query] * room.scales[slot * kKeys + key] : weights[query];
          sums[c][query] = fmaf(weight, v, sums[c][query]);
        }
      }
    }
  }

  // The chunk's part of each query, for merge_parts_kernel.
  __device__ void store_parts(Index chunk, const float (&sums)[kColumns][kQueries],
                              const float (&top)[kServed], const float (&total)[kServed]) const {
    for (unsigned query = 0; query < kQueries; ++query) {
      if (query >= queries) break;
      float* const part = a.parts + part_at(a, task.row, first_head + query, chunk);
      for (unsigned c = 0; c < kColumns; ++c) {
        const unsigned column = threadIdx.x + c * kThreads;
        if (column < a.width) part[column] = sums[c][query];
      }
      if (threadIdx.x == query % kWarps * kWarp) {
        part[a.width] = top[query / kWarps];
        part[a.width + 1] = total[query / kWarps];
      }
    }
  }

  // Merges a finished chunk with those before it, whose value sums wait in `out`; the last one
  // divides.
  __device__ void merge(bool first, bool last, const float (&sums)[kColumns][kQueries],
                        const float (&top)[kServed], const float (&total)[kServed],
                        float (&merged_top)[kServed], float (&merged_total)[kServed]) const {
    for (unsigned i = 0; i < kServed; ++i) {
      const Merge merge = first ? Merge{top[i], 0.0F, 1.0F} : merge_chunks(merged_top[i], top[i]);
      merged_total[i] =
          first ? total[i] : fmaf(total[i], merge.new_factor, merged_total[i] * merge.old_factor);
      merged_top[i] = merge.top;
      const unsigned query = threadIdx.x / kWarp + i * kWarps;
      if (query >= queries || threadIdx.x % kWarp != 0) continue;
      room.factors[kNew * kQueries + query] = merge.new_factor;
      room.factors[kOld * kQueries + query] = merge.old_factor;
      room.factors[kBy * kQueries + query] = 1.0F / merged_total[i];
    }
    __syncthreads();
    for (unsigned query = 0; query < kQueries; ++query) {
      if (query >= queries) break;
      const float* const factors = room.factors + query;
      float* const out = a.out.at(task.row) + (first_head + query) * a.width;
      for (unsigned c = 0; c < kColumns; ++c) {
        const unsigned column = threadIdx.x + c * kThreads;
        if (column >= a.width) continue;
        const float sum = first ? sums[c][query]
                                : fmaf(sums[c][query], factors[kNew * kQueries],
                                       out[column] * factors[kOld * kQueries]);
        out[column] = last ? sum * factors[kBy * kQueries] : sum;
      }
    }
  }

  const Attend& a;
  Room<kQueries> room;
  Task task;
  unsigned pieces;  // of a group
  Index kv_head, first_head;
  unsigned queries;  // that there are
  Index first_key, end_key;
};

// Block (task, key head and piece of its group, z): where chunks are spread, it has each
// gridDim.z-th from chunk z on.
template <unsigned kQueries, class Element>
__global__ void __launch_bounds__(kThreads, 2) decode_kernel(Attend a) {
  TUTTI_DYNAMIC_SHARED(unsigned char, memory);
  using Own = Decode<kQueries, Element>;
  const Own own(a, memory);
  const bool spread = a.parts != nullptr;
  const Index step = spread ? static_cast<Index>(gridDim.z) : 1;
  const Index first_block = own.first_key / kKeyBlock;
  const Index end_block = (own.end_key - 1) / kKeyBlock + 1;
  Index chunk = spread ? static_cast<Index>(blockIdx.z) : 0;
  while ((chunk + 1) * kChunkBlocks <= first_block) chunk += step;
  const Index begin = chunk * kChunkBlocks > first_block ? chunk * kChunkBlocks : first_block;
  if (begin >= end_block) return;
  own.fetch(begin, 0, 0);
  commit_async_copies();
  own.fetch(begin, 1, 1);
  commit_async_copies();
  own.load_queries();
  if (threadIdx.x < kQueries) own.room.factors[threadIdx.x] = 1.0F;
  const unsigned warp = threadIdx.x / kWarp;
  float sums[kColumns][kQueries] = {};
  float top[Own::kServed] = {};
  float total[Own::kServed] = {};
  float merged_top[Own::kServed] = {};
  float merged_total[Own::kServed] = {};
  unsigned slot = 0;  // of the block's keys; its values are in the next one
  for (Index block = begin; block < end_block;) {
    const bool ends = (block + 1) % kChunkBlocks == 0;
    const Index next = block + 1 + (ends ? (step - 1) * kChunkBlocks : 0);
    const Seen keys = own.seen(block);
    const unsigned values = (slot + 1) % kSlots;
    const unsigned spare = (slot + 2) % kSlots;
    wait_async_copies<1>();
    __syncthreads();
    if (next < end_block) own.fetch(next, 0, spare);
    commit_async_copies();
    own.score(block, keys, slot);
    __syncthreads();
    for (unsigned i = 0; i < Own::kServed; ++i) {
      const unsigned query = warp + i * kWarps;
      const bool first = block == begin || block % kChunkBlocks == 0;
      if (query < own.queries) own.soften(query, keys, first, top[i], total[i]);
    }
    wait_async_copies<1>();
    __syncthreads();
    if (next < end_block) own.fetch(next, 1, slot);
    commit_async_copies();
    own.add_values(keys, values, sums);
    if (ends || block + 1 == end_block) {
      if (spread) {
        own.store_parts(block / kChunkBlocks, sums, top, total);
      } else {
        own.merge(block / kChunkBlocks == begin / kChunkBlocks, block + 1 == end_block, sums, top,
                  total, merged_top, merged_total);
      }
      for (auto& of_column : sums) {
        for (float& sum : of_column) sum = 0.0F;
      }
    }
    block = next;
    slot = spare;
  }
}

// Query heads of a block: a group, or a piece of it.
unsigned queries_for(Index group) { return group == 1 ? 1 : (group <= 4 ? 4 : 8); }

template <unsigned kQueries>
void launch_queries(cudaStream_t stream, const Attend& a, const dim3& blocks) {
  const LaunchShape shape{blocks, kThreads, Room<kQueries>::bytes(a)};
  switch (a.layout.cache) {
    case CacheType::f32: TUTTI_LAUNCH(stream, shape, (decode_kernel<kQueries, float>), a); return;
    case CacheType::bf16: TUTTI_LAUNCH(stream, shape, (decode_kernel<kQueries, Bf16>), a); return;
    case CacheType::int8: break;
  }
  TUTTI_LAUNCH(stream, shape, (decode_kernel<kQueries, std::int8_t>), a);
}

}  // namespace

Index decode_blocks(const Attend& a) {
  const Index queries = queries_for(a.group);
  return a.heads / a.group * ((a.group + queries - 1) / queries);
}

void launch_decode(cudaStream_t stream, const Attend& a, unsigned tasks, unsigned spread) {
  const dim3 blocks(tasks, static_cast<unsigned>(decode_blocks(a)), spread);
  switch (queries_for(a.group)) {
    case 1: return launch_queries<1>(stream, a, blocks);
    case 4: return launch_queries<4>(stream, a, blocks);
    default: return launch_queries<8>(stream, a, blocks);
  }
}

}  // namespace tutti::kernels::cuda
