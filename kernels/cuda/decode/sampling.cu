// One thread block a sequence. Greedy: a maximum. A cut (top-k, top-p): the largest candidates are
// found by a search for the logit that divides them (32 halvings over the order of fp32 numbers),
// put into shared memory, sorted there, and walked. No cut: a walk over all tokens in order of
// their numbers.
#include "kernels/cuda/decode/sampling.h"

#include <vector>

#include "kernels/cuda/elementary.h"
#include "kernels/cuda/philox.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_view.h"
#include "kernels/ops/random.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 256;
constexpr std::uint64_t kPurpose = purpose_of("sampling");

struct Draw {
  float temperature;  // 0: greedy
  std::int32_t top_k;
  double top_p;
  unsigned long long seed, position;
};

// fp32 numbers in ascending order as unsigned ones; a NaN is below all.
__device__ unsigned rank_of(float x) {
  if (x != x) return 0;
  unsigned bits = 0;
  memcpy(&bits, &x, sizeof(bits));
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// Higher logit first, then the lower token: one number that orders candidates.
__device__ unsigned long long order_of(float logit, Index token) {
  return static_cast<unsigned long long>(rank_of(logit)) << 32 |
         (0xffffffffU - static_cast<unsigned>(token));
}
__device__ Index token_of(unsigned long long order) {
  return 0xffffffffU - static_cast<unsigned>(order);
}

__device__ unsigned long long block_largest(unsigned long long own, unsigned long long* room) {
  for (unsigned half = kWarp / 2; half > 0; half /= 2) {
    const unsigned long long other = __shfl_xor_sync(kAllLanes, own, half);
    own = other > own ? other : own;
  }
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = own;
  __syncthreads();
  unsigned long long largest = room[0];
  for (unsigned w = 1; w < kThreads / kWarp; ++w) largest = room[w] > largest ? room[w] : largest;
  __syncthreads();
  return largest;
}

// The smallest rank such that at most `wanted` logits are above it.
__device__ unsigned dividing_rank(const float* x, Index width, unsigned wanted, unsigned* room) {
  unsigned low = 0;
  unsigned high = 0xffffffffU;
  while (low < high) {
    const unsigned middle = low + (high - low) / 2;
    unsigned above = 0;
    for (Index i = threadIdx.x; i < width; i += kThreads) above += rank_of(x[i]) > middle ? 1U : 0U;
    above = block_sum(above, room);
    if (above > wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Descending, by all threads (bitonic; Batcher 1968); `size` is a power of two.
__device__ void sort_candidates(unsigned long long* list, unsigned size) {
  for (unsigned width = 2; width <= size; width *= 2) {
    for (unsigned step = width / 2; step > 0; step /= 2) {
      for (unsigned i = threadIdx.x; i < size; i += kThreads) {
        const unsigned other = i ^ step;
        if (other <= i) continue;
        const bool descending = (i & width) == 0;
        const unsigned long long a = list[i];
        const unsigned long long b = list[other];
        if ((a < b) == descending) {
          list[i] = b;
          list[other] = a;
        }
      }
      __syncthreads();
    }
  }
}

__device__ double uniform(const Draw& draw) {
  const PhiloxWords words = philox(draw.seed, kPurpose, draw.position);
  const unsigned long long bits =
      (static_cast<unsigned long long>(words.word[0]) << 32 | words.word[1]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

struct Weigher {
  const float* x;
  float top, temperature;
  __device__ double operator()(Index token) const {
    return x[token] == x[token] ? static_cast<double>(exp32((x[token] - top) / temperature)) : 0.0;
  }
};

// Thread 0 walks over the sorted candidates.
__device__ Index walk_candidates(const unsigned long long* list, unsigned count,
                                 const Weigher& weight, const Draw& draw) {
  double total = 0.0;
  for (unsigned i = 0; i < count; ++i) total += weight(token_of(list[i]));
  if (draw.top_p < 1.0) {
    const double wanted = draw.top_p * total;
    double mass = 0.0;
    unsigned kept = 0;
    while (kept < count && (kept == 0 || mass < wanted)) mass += weight(token_of(list[kept++]));
    count = kept;
    total = mass;
  }
  const double drawn = uniform(draw) * total;
  double passed = 0.0;
  for (unsigned i = 0; i < count; ++i) {
    passed += weight(token_of(list[i]));
    if (passed > drawn) return token_of(list[i]);
  }
  return token_of(list[count - 1]);
}

// Each thread owns a stretch of tokens; the thread in whose stretch the draw falls walks over it.
__device__ void walk_all(Index width, const Weigher& weight, const Draw& draw, double* stretches,
                         std::int32_t* token) {
  const Index each = (width + kThreads - 1) / kThreads;
  const Index begin = threadIdx.x * each;
  const Index end = begin + each < width ? begin + each : width;
  double own = 0.0;
  for (Index i = begin; i < end; ++i) own += weight(i);
  stretches[threadIdx.x] = own;
  __syncthreads();
  double before = 0.0;
  double total = 0.0;
  for (unsigned i = 0; i < kThreads; ++i) {
    if (i == threadIdx.x) before = total;
    total += stretches[i];
  }
  const double drawn = uniform(draw) * total;
  if (own <= 0.0 || before > drawn || before + own <= drawn) return;
  double passed = before;
  Index chosen = begin;
  for (Index i = begin; i < end; ++i) {
    const double one = weight(i);
    if (one > 0.0) chosen = i;
    passed += one;
    if (passed > drawn) break;
  }
  *token = static_cast<std::int32_t>(chosen);
}

__global__ void __launch_bounds__(kThreads)
    sample_kernel(Rows<const float> logits, Index width, const Draw* draws, std::int32_t* tokens) {
  TUTTI_SHARED(unsigned long long, list, kTopKMax);
  TUTTI_SHARED(double, stretches, kThreads);
  TUTTI_SHARED(unsigned long long, largest_room, kThreads / kWarp);
  TUTTI_SHARED(unsigned, count_room, kThreads / kWarp);
  TUTTI_SHARED(unsigned, filled, 1);
  const float* const x = logits.at(blockIdx.x);
  const Draw draw = draws[blockIdx.x];
  std::int32_t* const token = tokens + blockIdx.x;
  unsigned long long own = 0;
  for (Index i = threadIdx.x; i < width; i += kThreads) {
    const unsigned long long order = order_of(x[i], i);
    own = order > own ? order : own;
  }
  const Index best = token_of(block_largest(own, largest_room));
  if (threadIdx.x == 0) {
    *token = static_cast<std::int32_t>(best);
    filled[0] = 0;
  }
  __syncthreads();
  if (!(draw.temperature > 0.0F) || draw.top_k == 1) return;
  const Weigher weight{x, x[best], draw.temperature};
  const bool cut = draw.top_k > 0 || draw.top_p < 1.0;
  if (!cut) return walk_all(width, weight, draw, stretches, token);
  const auto wanted =
      static_cast<unsigned>(draw.top_k > 0 && draw.top_k < kTopKMax ? draw.top_k : kTopKMax);
  const unsigned divide = dividing_rank(x, width, wanted, count_room);
  for (unsigned i = threadIdx.x; i < kTopKMax; i += kThreads) list[i] = 0;
  __syncthreads();
  for (Index i = threadIdx.x; i < width; i += kThreads) {
    if (rank_of(x[i]) > divide) list[atomicAdd(filled, 1U)] = order_of(x[i], i);
  }
  __syncthreads();
  // Of those that equal the dividing logit, the lowest tokens fill what is left, in order.
  if (threadIdx.x == 0) {
    for (Index i = 0; i < width && filled[0] < wanted; ++i) {
      if (divide != 0 && rank_of(x[i]) == divide && x[i] > -INFINITY)
        list[filled[0]++] = order_of(x[i], i);
    }
  }
  __syncthreads();
  sort_candidates(list, kTopKMax);
  if (threadIdx.x == 0 && filled[0] > 0) {
    *token = static_cast<std::int32_t>(walk_candidates(list, filled[0], weight, draw));
  }
}

}  // namespace

Result<> sample_tokens(CudaDevice& device, const ConstMatrix& logits,
                       std::span<const SamplingRequest> requests, std::int32_t* tokens) {
  if (static_cast<Index>(requests.size()) != logits.rows ||
      (logits.rows > 0 && logits.columns == 0)) {
    return Error{ErrorCode::invalid_argument, "sample_tokens: one request for each row of logits"};
  }
  std::vector<Draw> draws;
  for (const SamplingRequest& request : requests) {
    const SamplingSettings& s = request.settings;
    if (s.top_k > kTopKMax) {
      return Error{ErrorCode::invalid_argument, "sample_tokens: top_k above 1024"};
    }
    draws.push_back(
        {static_cast<float>(s.temperature), s.top_k, s.top_p, s.seed, request.position});
  }
  if (draws.empty()) return {};
  device.scratch().reset();
  auto room = device.scratch().take(draws.size() * sizeof(Draw));
  if (!room) return std::move(room).error();
  if (auto sent = device.upload(*room, draws.data(), draws.size() * sizeof(Draw)); !sent)
    return sent;
  TUTTI_LAUNCH(device.stream(), (LaunchShape{static_cast<unsigned>(draws.size()), kThreads}),
               sample_kernel, Rows(logits), logits.columns, static_cast<const Draw*>(*room),
               tokens);
  return check(cudaGetLastError(), "sample_tokens");
}

}  // namespace tutti::kernels::cuda
