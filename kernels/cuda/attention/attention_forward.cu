// Attention over a batch and over cache pages, in fp32 and in every form: one arithmetic for all.
// The arithmetic is attention_softmax.h's, of a score attention_form.h's.
//
// A thread block has up to 32 queries of one head and walks over the key blocks that they see.
// Of a sequence in the cache with few rows (decoding) each row is a block's: attention_decode.cu.
// Where there are few blocks and many keys, chunks of keys are spread over thread blocks; their
// results wait in scratch memory until a second kernel merges the chunks in order.
#include <algorithm>
#include <span>
#include <vector>

#include "kernels/cuda/attention/attend.h"
#include "kernels/cuda/attention/attention_bf16.h"
#include "kernels/cuda/attention/attention_softmax.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/row_view.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/key_value_pages.h"

namespace tutti::kernels::cuda {

namespace {

// Fewer thread blocks than this leave a GPU idle; chunks of keys are then spread.
constexpr Index kBlocksWanted = 264;
// Of a sequence with up to so many rows, each is a block's: a tile of queries would leave most of
// its threads idle.
constexpr Index kFewRows = 8;

// Shared memory of a block; rows are one number longer than a head, so that lanes meet different
// banks.
struct Tiles {
  __device__ Tiles(float* memory, Index width)
      : stride(width + 1),
        q(memory),
        k(q + kQueryTile * stride),
        v(k + kKeyBlock * stride),
        weights(v + kKeyBlock * stride),
        key_scales(weights + kQueryTile * (kKeyBlock + 1)),
        value_scales(key_scales + kKeyBlock) {}
  Index stride;
  float *q, *k, *v;
  float* weights;                    // [query][kKeyBlock + 1]
  float *key_scales, *value_scales;  // of int8
};

std::size_t tile_bytes(Index width) {
  const Index floats =
      (kQueryTile + 2 * kKeyBlock) * (width + 1) + kQueryTile * (kKeyBlock + 1) + 2 * kKeyBlock;
  return static_cast<std::size_t>(floats) * sizeof(float);
}

// Keys [from, end) of a block in a page; the others become zeros.
template <class Element>
__device__ void load_page(const Attend& a, const Tiles& tiles, const float* page, Index kv_head,
                          Index from, Index end) {
  const auto width = static_cast<unsigned>(a.width);
  for (TileWalk at(width, kAttentionThreads); at.row < kKeyBlock; at.next()) {
    const bool there = at.row >= from && at.row < end;
    const auto* const k = reinterpret_cast<const Element*>(a.layout.key(page, kv_head, at.row));
    const Index place = at.row * tiles.stride + at.column;
    tiles.k[place] = there ? widened(k[at.column]) : 0.0F;
    tiles.v[place] = there ? widened(k[kKeyBlock * a.width + at.column]) : 0.0F;
  }
}

__device__ void load_scales(const Attend& a, const Tiles& tiles, const float* page, Index kv_head,
                            Index from, Index end) {
  for (Index key = threadIdx.x; key < kKeyBlock; key += kAttentionThreads) {
    const float* const scales = a.layout.scale(page, kv_head, key);
    const bool there = key >= from && key < end;
    tiles.key_scales[key] = there ? scales[0] : 0.0F;
    tiles.value_scales[key] = there ? scales[kKeyBlock] : 0.0F;
  }
}

__device__ void load_rows(const Attend& a, const Task& task, const Tiles& tiles, Index kv_head,
                          Index begin, Index from, Index end) {
  const auto width = static_cast<unsigned>(a.width);
  const float* const k = a.k.at(task.keys + begin) + kv_head * a.width;
  const float* const v = a.v.at(task.keys + begin) + kv_head * a.width;
  for (TileWalk at(width, kAttentionThreads); at.row < kKeyBlock; at.next()) {
    const bool there = at.row >= from && at.row < end;
    const Index place = at.row * tiles.stride + at.column;
    tiles.k[place] = there ? k[at.row * a.k.stride + at.column] : 0.0F;
    tiles.v[place] = there ? v[at.row * a.v.stride + at.column] : 0.0F;
  }
}

// Keys that no query of the task sees may hold anything: they become zeros.
__device__ void load_keys(const Attend& a, const Task& task, const Tiles& tiles, Index kv_head,
                          Index begin) {
  const Index from = a.sight.first(task.position) - begin;
  const Index end = a.sight.end(task.position + task.rows - 1, task.length) - begin;
  if (a.pages == nullptr) return load_rows(a, task, tiles, kv_head, begin, from, end);
  const float* const page = a.pages[task.keys + begin / kKeyBlock];
  switch (a.layout.cache) {
    case CacheType::f32: return load_page<float>(a, tiles, page, kv_head, from, end);
    case CacheType::bf16: return load_page<Bf16>(a, tiles, page, kv_head, from, end);
    case CacheType::int8: break;
  }
  load_page<std::int8_t>(a, tiles, page, kv_head, from, end);
  load_scales(a, tiles, page, kv_head, from, end);
}

// What the thread's query sees of a block of keys: [from, end) of them, `distance` from it to the
// block's first.
struct SeenKeys {
  Index from, end, distance;
};

// One block of keys for the thread's query; `first`: of its chunk.
template <int kColumns>
__device__ void attend_block(const Attend& a, const Tiles& tiles, Softmax<kColumns>& softmax,
                             const SeenKeys& seen, float slope, bool first) {
  const Index query = threadIdx.x / kQueryLanes;
  const Index lane = threadIdx.x % kQueryLanes;
  const bool codes = a.layout.cache == CacheType::int8;
  const float* const q = tiles.q + query * tiles.stride;
  float* const weights = tiles.weights + query * (kKeyBlock + 1);
  // A key is its lane's wherever the query's first one lies.
  const Index own = seen.from + ((lane - seen.from) & static_cast<Index>(kQueryLanes - 1));
  float top = -INFINITY;
  for (Index key = own; key < seen.end; key += kQueryLanes) {
    const float* const k = tiles.k + key * tiles.stride;
    float product = 0.0F;
    for (Index d = 0; d < a.width; ++d) product = fmaf(q[d], k[d], product);
    if (codes) product *= tiles.key_scales[key];
    const float score = scored(a.rule, slope, product, seen.distance - key).value;
    weights[key] = score;
    top = score > top ? score : top;
  }
  top = lanes_max(top);
  if (seen.end > seen.from) softmax.raise(top, first);
  const float offset = offset_under(softmax.top);
  float total = 0.0F;
  for (Index key = own; key < seen.end; key += kQueryLanes) {
    const float weight = exp32(weights[key] - offset);
    weights[key] = codes ? weight * tiles.value_scales[key] : weight;
    total += weight;
  }
  softmax.total += lanes_sum(total);
  __syncwarp();  // spare here: lanes have met in the sum; a GPU orders memory by it
  for (Index key = seen.from; key < seen.end; ++key) {
    const float weight = weights[key];
    const float* const v = tiles.v + key * tiles.stride;
    for (int i = 0; i < kColumns; ++i) {
      const Index column = lane + kQueryLanes * i;
      if (column < a.width) softmax.sum[i] = fmaf(weight, v[column], softmax.sum[i]);
    }
  }
}

// Merges a finished chunk with those before it, whose value sums wait in `out`; the last one
// divides.
template <int kColumns>
__device__ void finish_chunk(const Attend& a, float* out, const Softmax<kColumns>& softmax,
                             float& top, float& total, bool first, bool last) {
  const Index lane = threadIdx.x % kQueryLanes;
  const Merge merge = first ? Merge{softmax.top, 0.0F, 1.0F} : merge_chunks(top, softmax.top);
  total = first ? softmax.total : fmaf(softmax.total, merge.new_factor, total * merge.old_factor);
  top = merge.top;
  const float by = 1.0F / total;
  for (int i = 0; i < kColumns; ++i) {
    const Index column = lane + kQueryLanes * i;
    if (column >= a.width) continue;
    const float sum = first
                          ? softmax.sum[i]
                          : fmaf(softmax.sum[i], merge.new_factor, out[column] * merge.old_factor);
    out[column] = last ? sum * by : sum;
  }
}

template <int kColumns>
__device__ void store_part(const Attend& a, float* part, const Softmax<kColumns>& softmax) {
  const Index lane = threadIdx.x % kQueryLanes;
  for (int i = 0; i < kColumns; ++i) {
    const Index column = lane + kQueryLanes * i;
    if (column < a.width) part[column] = softmax.sum[i];
  }
  if (lane == 0) {
    part[a.width] = softmax.top;
    part[a.width + 1] = softmax.total;
  }
}

// Block (task, head, z): where chunks are spread, it has each gridDim.z-th from chunk z on.
template <int kColumns>
__global__ void __launch_bounds__(kAttentionThreads, 2) attend_kernel(Attend a) {
  TUTTI_DYNAMIC_SHARED(float, memory);
  const Tiles tiles(memory, a.width);
  const Task task = a.tasks[blockIdx.x];
  const Index head = blockIdx.y;
  const Index kv_head = blockIdx.y / static_cast<unsigned>(a.group);
  const Index query = threadIdx.x / kQueryLanes;
  const bool there = query < task.rows;
  const Index position = task.position + query;
  const Index first_key = there ? a.sight.first(position) : 0;
  const Index end_key = there ? a.sight.end(position, task.length) : 0;
  const Index first_block = a.first_block(task);
  const Index last_block = a.last_block(task);
  const float slope = a.rule.slope(head);
  const bool spread = a.parts != nullptr;
  const Index first_chunk = spread ? static_cast<Index>(blockIdx.z) : first_block / kChunkBlocks;
  const Index last_chunk = last_block / kChunkBlocks;
  const Index step = spread ? static_cast<Index>(gridDim.z) : 1;
  if (first_chunk > last_chunk) return;
  const float* const q = a.q.at(task.row) + head * a.width;
  const auto rows = static_cast<unsigned>(task.rows);
  for (TileWalk at(static_cast<unsigned>(a.width), kAttentionThreads); at.row < rows; at.next()) {
    tiles.q[at.row * tiles.stride + at.column] = q[at.row * a.q.stride + at.column];
  }
  Softmax<kColumns> softmax;
  float top = 0.0F;
  float total = 0.0F;
  for (Index chunk = first_chunk; chunk <= last_chunk; chunk += step) {
    softmax.clear();
    const Index chunk_begin = chunk * kChunkBlocks;
    const Index begin = chunk_begin > first_block ? chunk_begin : first_block;
    const Index chunk_end = chunk_begin + kChunkBlocks;
    const Index end = chunk_end < last_block + 1 ? chunk_end : last_block + 1;
    const Index own_block = first_key / kKeyBlock;
    const Index own_begin = chunk_begin > own_block ? chunk_begin : own_block;
    for (Index block = begin; block < end; ++block) {
      __syncthreads();
      load_keys(a, task, tiles, kv_head, block * kKeyBlock);
      __syncthreads();
      const Index at = block * kKeyBlock;
      const SeenKeys seen{within_block(first_key - at), within_block(end_key - at), position - at};
      attend_block(a, tiles, softmax, seen, slope, block == own_begin);
    }
    if (end_key <= chunk_begin * kKeyBlock || first_key >= chunk_end * kKeyBlock) continue;
    const Index row = task.row + query;
    if (spread) {
      store_part(a, a.parts + part_at(a, row, head, chunk), softmax);
    } else {
      finish_chunk(a, a.out.at(row) + head * a.width, softmax, top, total,
                   chunk == first_key / kChunkKeys, chunk == (end_key - 1) / kChunkKeys);
    }
  }
  if (!spread && there && a.lse != nullptr && threadIdx.x % kQueryLanes == 0) {
    a.lse[(task.row + query) * a.heads + head] = top + log32(total);
  }
}

// Block (task, head, row of the task): merges its chunks in order, thread by column.
__global__ void merge_parts_kernel(Attend a) {
  const Task task = a.tasks[blockIdx.x];
  const Index head = blockIdx.y;
  const Index query = blockIdx.z;
  if (query >= task.rows) return;
  const Index row = task.row + query;
  const Index position = task.position + query;
  const Index first = a.sight.first(position) / kChunkKeys;
  const Index last = (a.sight.end(position, task.length) - 1) / kChunkKeys;
  for (Index column = threadIdx.x; column < a.width; column += blockDim.x) {
    const float* part = a.parts + part_at(a, row, head, first);
    float sum = part[column];
    float top = part[a.width];
    float total = part[a.width + 1];
    for (Index chunk = first + 1; chunk <= last; ++chunk) {
      part += a.width + 2;
      const Merge merge = merge_chunks(top, part[a.width]);
      total = fmaf(part[a.width + 1], merge.new_factor, total * merge.old_factor);
      sum = fmaf(part[column], merge.new_factor, sum * merge.old_factor);
      top = merge.top;
    }
    a.out.at(row)[head * a.width + column] = sum * (1.0F / total);
    if (a.lse != nullptr && column == 0) a.lse[row * a.heads + head] = top + log32(total);
  }
}

void launch_attend(cudaStream_t stream, const LaunchShape& shape, const Attend& a) {
  if (a.width <= 16 * kQueryLanes) {
    TUTTI_LAUNCH(stream, shape, attend_kernel<16>, a);
  } else if (a.width <= 32 * kQueryLanes) {
    TUTTI_LAUNCH(stream, shape, attend_kernel<32>, a);
  } else {
    TUTTI_LAUNCH(stream, shape, attend_kernel<64>, a);
  }
}

// `most` rows a task, of rows that are the last positions of one sequence.
void add_tasks(std::pmr::vector<Task>& tasks, const SequenceRows& rows, Index keys,
               Index most = kQueryTile) {
  const auto length = static_cast<std::int32_t>(rows.first_position + rows.rows);
  for (Index done = 0; done < rows.rows; done += most) {
    tasks.push_back({static_cast<std::int32_t>(rows.first_row + done),
                     static_cast<std::int32_t>(std::min<Index>(most, rows.rows - done)),
                     static_cast<std::int32_t>(rows.first_position + done), length,
                     static_cast<std::int32_t>(keys)});
  }
}

Index longest_of(const std::pmr::vector<Task>& tasks) {
  Index keys = 0;
  for (const Task& task : tasks) keys = std::max<Index>(keys, task.length);
  return keys;
}

Index chunks_of(Index keys) { return (keys + kChunkKeys - 1) / kChunkKeys; }

struct Launcher {
  CudaDevice& device;
  std::pmr::vector<Task> tasks;
  std::size_t single = 0;  // how many of the first are a row of the cache each
  Attend a;
  Index rows;
};

// Over how many blocks the chunks of each of `blocks` are spread: where these would otherwise leave
// the GPU idle. This changes no bit. The longest sequence may be much shorter than those that the
// chunks are counted for.
unsigned spread_of(const Attend& a, Index blocks) {
  if (blocks == 0 || blocks >= kBlocksWanted) return 1;
  return static_cast<unsigned>(std::min<Index>(a.chunks, blocks_for(2 * kBlocksWanted, blocks)));
}

void merge_parts(cudaStream_t stream, const Attend& a, std::span<const Task> tasks) {
  std::int32_t rows = 0;
  for (const Task& task : tasks) rows = std::max(rows, task.rows);
  TUTTI_LAUNCH(stream,
               (LaunchShape{dim3(static_cast<unsigned>(tasks.size()),
                                 static_cast<unsigned>(a.heads), static_cast<unsigned>(rows)),
                            kWarp}),
               merge_parts_kernel, a);
}

}  // namespace

// Everything but the tasks is in `launcher.a`; room(count) gives scratch memory for floats.
template <class Room>
static Result<> run_attention(const Launcher& launcher, const Task* tasks, Room room) {
  const std::span<const Task> all(launcher.tasks);
  const std::span<const Task> single = all.first(launcher.single);
  const std::span<const Task> tiles = all.subspan(launcher.single);
  Attend a = launcher.a;
  const unsigned single_spread = spread_of(a, static_cast<Index>(single.size()) * decode_blocks(a));
  const unsigned spread = spread_of(a, static_cast<Index>(tiles.size()) * a.heads);
  float* parts = nullptr;
  if (single_spread > 1 || spread > 1) {
    auto taken = room(launcher.rows * a.heads * a.chunks * (a.width + 2));
    if (!taken) return std::move(taken).error();
    parts = *taken;
  }
  static_cast<void>(enqueues("chunks", a.chunks, a.lse != nullptr));
  cudaStream_t const stream = launcher.device.stream();
  if (!single.empty()) {
    a.tasks = tasks;
    a.parts = single_spread > 1 ? parts : nullptr;
    launch_decode(stream, a, static_cast<unsigned>(single.size()), single_spread);
    if (a.parts != nullptr) merge_parts(stream, a, single);
  }
  if (!tiles.empty()) {
    a.tasks = tasks + single.size();
    a.parts = spread > 1 ? parts : nullptr;
    launch_attend(
        stream,
        {dim3(static_cast<unsigned>(tiles.size()), static_cast<unsigned>(a.heads), spread),
         kAttentionThreads, tile_bytes(a.width)},
        a);
    if (a.parts != nullptr) merge_parts(stream, a, tiles);
  }
  return {};
}

bool CudaDevice::on_tensor_cores(const AttentionShape& shape) const {
  const bool plain = shape.mask == AttentionMask::causal && shape.window == 0 &&
                     shape.soft_cap == 0.0F && shape.slopes == nullptr;
  return computes_in_bf16() && plain && shape.head_width <= kRoundedHeadWidthMax;
}

Result<> CudaDevice::takes_rounded(const char* op, const AttentionShape& shape,
                                   std::initializer_list<ConstRoundedMatrix> rounded) const {
  for (const ConstRoundedMatrix& one : rounded) {
    static_cast<void>(enqueues("rounded", static_cast<bool>(one)));
    if (one && !on_tensor_cores(shape)) return rounded_on_devices_only(op);
  }
  return {};
}

Bf16Attention CudaDevice::bf16_attention() {
  return {stream(), &host_, [this](std::size_t bytes) { return scratch_.take(bytes); },
          [this](const void* from, std::size_t bytes) -> Result<void*> {
            auto place = stage(static_cast<const std::byte*>(from), bytes);
            if (!place) return std::move(place).error();
            return static_cast<void*>(*place);
          }};
}

Result<> CudaDevice::enqueue(const AttentionForward& args) {
  begin_op();
  const AttentionShape& shape = args.shape;
  auto taken = takes_rounded("attention_forward", shape,
                             {args.q_rounded, args.k_rounded, args.v_rounded, args.out_rounded});
  if (!taken) return taken;
  static_cast<void>(enqueues("wide", static_cast<bool>(args.out)));
  if (on_tensor_cores(shape)) {
    if (auto ran = attention_forward_bf16(bf16_attention(), args); !ran) return ran;
    return end_op();
  }
  Launcher launcher{*this,
                    std::pmr::vector<Task>(&host_),
                    0,
                    {Rows(args.q), Rows(args.k), Rows(args.v), Rows(args.out), nullptr, nullptr,
                     args.lse, nullptr, shape.heads, shape.heads / shape.kv_heads, shape.head_width,
                     0, Sight(shape), ScoreRule(shape), PageLayout(shape)},
                    args.q.rows};
  for (std::size_t s = 0; s + 1 < args.sample_offsets.size(); ++s) {
    const Index first = args.sample_offsets[s];
    add_tasks(launcher.tasks, {first, args.sample_offsets[s + 1] - first, 0, {}}, first);
  }
  if (launcher.tasks.empty()) return {};
  auto tasks = stage(launcher.tasks.data(), launcher.tasks.size());
  if (!tasks) return std::move(tasks).error();
  launcher.a.chunks = chunks_of(longest_of(launcher.tasks));
  auto ran = run_attention(launcher, *tasks, [this](Index count) { return scratch_floats(count); });
  if (!ran) return ran;
  return end_op();
}

Result<> CudaDevice::enqueue(const AttentionCached& args) {
  begin_op();
  const AttentionShape& shape = args.shape;
  const Rows<const float> none{ConstMatrix{}};
  Launcher launcher{*this,
                    std::pmr::vector<Task>(&host_),
                    0,
                    {Rows(args.q), none, none, Rows(args.out), nullptr, nullptr, nullptr, nullptr,
                     shape.heads, shape.heads / shape.kv_heads, shape.head_width, 0, Sight(shape),
                     ScoreRule(shape), PageLayout(shape)},
                    args.q.rows};
  std::pmr::vector<float*> pages(&host_);
  std::pmr::vector<Task> tiles(&host_);
  for (const SequenceRows& rows : args.sequences) {
    const auto keys = static_cast<Index>(pages.size());
    if (rows.rows <= kFewRows) {
      add_tasks(launcher.tasks, rows, keys, 1);
    } else {
      add_tasks(tiles, rows, keys);
    }
    const auto needed = static_cast<std::size_t>(kv_pages_for(rows.first_position + rows.rows));
    pages.insert(pages.end(), rows.pages.begin(),
                 rows.pages.begin() + static_cast<std::ptrdiff_t>(needed));
  }
  launcher.single = launcher.tasks.size();
  launcher.tasks.insert(launcher.tasks.end(), tiles.begin(), tiles.end());
  if (launcher.tasks.empty()) return {};
  // Sequences grow with each step, which is to be the same work.
  const Index sequences = static_cast<Index>(args.sequences.size());
  const Index most = std::min(sequences * kv_pages_for(args.most.positions), args.most.pages);
  pages.resize(std::max(pages.size(), static_cast<std::size_t>(most)));
  auto tasks = stage(launcher.tasks.data(), launcher.tasks.size());
  if (!tasks) return std::move(tasks).error();
  auto list = stage(pages.data(), pages.size());
  if (!list) return std::move(list).error();
  launcher.a.pages = *list;
  launcher.a.chunks = chunks_of(std::max(longest_of(launcher.tasks), args.most.positions));
  auto ran = run_attention(launcher, *tasks, [this](Index count) { return scratch_floats(count); });
  if (!ran) return ran;
  return end_op();
}

}  // namespace tutti::kernels::cuda
