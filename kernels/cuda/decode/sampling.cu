// The next tokens of several sequences, chosen on the device: the draws of kernels/ops/sampling.cc
// with its arithmetic in its order, so its tokens; and their log-probabilities.
//
// One thread block a sequence. A candidate is one number that orders candidates (logit, then the
// lower token). Without a cut, threads sum stretches of tokens, and one thread walks over their
// sums. With one, the largest candidates are found a thousand at a time, digit by digit of those
// numbers (radix selection), sorted in shared memory, and one thread walks over them; what lies
// deeper is found by further rounds, whatever top_k and top_p ask for.
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/philox.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_view.h"
#include "kernels/ops/choose_tokens.h"
#include "kernels/ops/random.h"
#include "kernels/tensor/not_on_device.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kListMax = 1024;  // candidates of a round
constexpr unsigned kDigits = 256;
constexpr std::uint64_t kPurpose = purpose_of("sampling");
constexpr Index kStretch = kSampleStretch;

using Order = unsigned long long;
constexpr Order kAll = ~Order{0};

struct Draw {
  double temperature;  // 0: greedy
  double top_p, min_p;
  unsigned long long seed, position;
  std::int32_t top_k;
  std::int32_t given;
  bool logprob;
};

// Higher logit first, then the lower token; 0: never chosen. Adding zero makes -0 and 0 equal.
__device__ Order order_of(float logit, Index token) {
  if (!(logit > -INFINITY)) return 0;
  const float x = logit + 0.0F;
  unsigned bits = 0;
  memcpy(&bits, &x, sizeof(bits));
  bits = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return static_cast<Order>(bits) << 32 | (0xffffffffU - static_cast<unsigned>(token));
}
__device__ Index token_of(Order order) { return 0xffffffffU - static_cast<unsigned>(order); }

// The block's shared memory.
struct Room {
  Order* list;       // [kListMax] of a round, descending
  double* weights;   // [kListMax]
  unsigned* digits;  // [kDigits]
  Order* warps;      // [kThreads / kWarp]
  unsigned* counts;  // the same
  float* floats;     // the same
  Order* selected;   // the threshold of a round
  unsigned* filled;
  int* flag;
  double* total;
};

__device__ Order block_largest(Order own, Order* room) {
  for (unsigned half = kWarp / 2; half > 0; half /= 2) {
    const Order other = __shfl_xor_sync(kAllLanes, own, half);
    own = other > own ? other : own;
  }
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = own;
  __syncthreads();
  Order largest = room[0];
  for (unsigned w = 1; w < kThreads / kWarp; ++w) largest = room[w] > largest ? room[w] : largest;
  __syncthreads();  // spare: the room is used once a row
  return largest;
}

// The row as the walks see it.
struct Row {
  const float* x;
  Index width;
  double top;
  double temperature;
  double least = 0.0;  // weights below it (min_p) are passed over
  __device__ double weight(Index token) const {
    return exp64((static_cast<double>(x[token]) - top) / temperature);
  }
};

// One thread's step of the selection: the digits of the orders that agree with `prefix` so far are
// counted; the largest of them go to the list until one digit's would be too many. Whether the
// threshold is found.
__device__ bool take_digits(const Room& room, unsigned shift, unsigned& above, Order& prefix) {
  unsigned digit = kDigits;
  while (digit > 0 && above + room.digits[digit - 1] <= kListMax) above += room.digits[--digit];
  if (digit == 0) return true;  // all that agree
  const bool full = above == kListMax || shift == 0;
  prefix |= static_cast<Order>(full ? digit : digit - 1) << shift;
  return full;
}

// The largest orders below `bound`, up to kListMax, into the list with their weights; how many.
__device__ unsigned load_round(const Row& row, Order bound, const Room& room) {
  Order mask = 0;
  Order prefix = 0;
  unsigned above = 0;  // thread 0's
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (unsigned d = threadIdx.x; d < kDigits; d += kThreads) room.digits[d] = 0;
    __syncthreads();
    for (Index i = threadIdx.x; i < row.width; i += kThreads) {
      const Order order = order_of(row.x[i], i);
      if (order == 0 || order >= bound || (order & mask) != prefix) continue;
      atomicAdd(room.digits + (order >> shift & 255U), 1U);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      *room.flag = take_digits(room, static_cast<unsigned>(shift), above, prefix) ? 1 : 0;
      *room.selected = prefix;
      *room.filled = 0;
    }
    __syncthreads();
    prefix = *room.selected;
    if (*room.flag != 0) break;
    mask |= Order{255} << shift;
  }
  __syncthreads();  // spare: those of the loop stand between
  for (unsigned i = threadIdx.x; i < kListMax; i += kThreads) room.list[i] = 0;
  __syncthreads();
  for (Index i = threadIdx.x; i < row.width; i += kThreads) {
    const Order order = order_of(row.x[i], i);
    if (order != 0 && order < bound && order >= prefix) {
      room.list[atomicAdd(room.filled, 1U)] = order;
    }
  }
  __syncthreads();
  const unsigned count = *room.filled;
  // Descending, by all threads (bitonic; Batcher 1968).
  unsigned size = 2;
  while (size < count) size *= 2;
  for (unsigned width = 2; width <= size; width *= 2) {
    for (unsigned step = width / 2; step > 0; step /= 2) {
      for (unsigned i = threadIdx.x; i < size; i += kThreads) {
        const unsigned other = i ^ step;
        if (other <= i) continue;
        const Order a = room.list[i];
        const Order b = room.list[other];
        if ((a < b) == ((i & width) == 0)) {
          room.list[i] = b;
          room.list[other] = a;
        }
      }
      __syncthreads();
    }
  }
  for (unsigned i = threadIdx.x; i < count; i += kThreads) {
    room.weights[i] = row.weight(token_of(room.list[i]));
  }
  __syncthreads();
  return count;
}

// A walk over the first `limit` candidates by logit, which ends where their chain of weights comes
// to `until`; thread 0's numbers are the result.
struct Walked {
  double sum = 0.0;
  unsigned count = 0;  // passed, the last one included
  Index last = 0;      // its token
};
enum class Until { reached, passed };

__device__ Walked walk_by_logit(const Row& row, unsigned limit, double until, Until how,
                                const Room& room) {
  Walked walked;
  Order bound = kAll;
  for (;;) {
    const unsigned count = load_round(row, bound, room);
    if (threadIdx.x == 0) {
      bool ended = count < kListMax;
      for (unsigned i = 0; i < count; ++i) {
        ++walked.count;
        if (room.weights[i] >= row.least) {
          walked.sum += room.weights[i];
          walked.last = token_of(room.list[i]);
        }
        const bool there = how == Until::passed ? walked.sum > until : walked.sum >= until;
        ended = ended || there || walked.count == limit;
        if (there || walked.count == limit) break;
      }
      *room.flag = ended ? 1 : 0;
    }
    if (count > 0) bound = room.list[count - 1];
    __syncthreads();
    const bool ended = *room.flag != 0;
    __syncthreads();  // spare: a round begins with others
    if (ended) return walked;
  }
}

// The sums of the stretches, and their chain.
__device__ double sum_stretches(const Row& row, double* stretches, const Room& room) {
  const Index count = (row.width + kStretch - 1) / kStretch;
  for (Index s = threadIdx.x; s < count; s += kThreads) {
    const Index end = (s + 1) * kStretch < row.width ? (s + 1) * kStretch : row.width;
    double own = 0.0;
    for (Index i = s * kStretch; i < end; ++i) {
      const double weight = row.x[i] > -INFINITY ? row.weight(i) : 0.0;
      if (weight >= row.least) own += weight;
    }
    stretches[s] = own;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double total = 0.0;
    for (Index s = 0; s < count; ++s) total += stretches[s];
    *room.total = total;
  }
  __syncthreads();  // spare: thread 0 alone uses the sum
  return *room.total;
}

// Thread 0's walk by index.
__device__ Index walk_stretches(const Row& row, const double* stretches, double until) {
  double passed = 0.0;
  Index last = 0;
  for (Index s = 0; s * kStretch < row.width; ++s) {
    if (passed + stretches[s] > until) {
      double inside = 0.0;
      for (Index i = s * kStretch; i < row.width; ++i) {
        const double weight = row.x[i] > -INFINITY ? row.weight(i) : 0.0;
        if (weight >= row.least) inside += weight;
        if (passed + inside > until) return i;
      }
    }
    passed += stretches[s];
  }
  for (Index i = 0; i < row.width; ++i) {
    last = row.x[i] > -INFINITY && row.weight(i) >= row.least ? i : last;
  }
  return last;
}

__device__ double uniform(const Draw& draw) {
  const PhiloxWords words = philox(draw.seed, kPurpose, draw.position);
  const unsigned long long bits =
      (static_cast<unsigned long long>(words.word[0]) << 32 | words.word[1]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

// By the whole block; thread 0 has the token.
__device__ Index draw_token(Row row, const Draw& draw, unsigned candidates, double* stretches,
                            const Room& room) {
  const auto wanted = static_cast<unsigned>(draw.top_k);
  const bool cut = draw.top_k > 0 && wanted < candidates;
  unsigned limit = cut ? wanted : candidates;
  double total = 0.0;
  if (cut) {
    total = walk_by_logit(row, limit, INFINITY, Until::passed, room).sum;
  } else {
    total = sum_stretches(row, stretches, room);
  }
  if (draw.top_p < 1.0) {
    const Walked kept = walk_by_logit(row, limit, draw.top_p * total, Until::reached, room);
    total = kept.sum;
    limit = kept.count;
  }
  const bool by_logit = cut || draw.top_p < 1.0;
  row.least = draw.min_p;
  if (draw.min_p > 0.0) {
    total = by_logit ? walk_by_logit(row, limit, INFINITY, Until::passed, room).sum
                     : sum_stretches(row, stretches, room);
  }
  if (!by_logit) {
    return threadIdx.x == 0 ? walk_stretches(row, stretches, uniform(draw) * total) : 0;
  }
  return walk_by_logit(row, limit, uniform(draw) * total, Until::passed, room).last;
}

// A block a row, and few rows: registers count, not how many blocks a processor holds.
__global__ void __launch_bounds__(kThreads, 1)
    choose_kernel(Rows<const float> logits, Index width, const Draw* draws, double* stretches,
                  ChosenToken* chosen) {
  TUTTI_SHARED(Order, list, kListMax);
  TUTTI_SHARED(double, weights, kListMax);
  TUTTI_SHARED(unsigned, digits, kDigits);
  TUTTI_SHARED(Order, warps, kThreads / kWarp);
  TUTTI_SHARED(unsigned, counts, kThreads / kWarp);
  TUTTI_SHARED(float, floats, kThreads / kWarp);
  TUTTI_SHARED(Order, selected, 1);
  TUTTI_SHARED(unsigned, filled, 1);
  TUTTI_SHARED(int, flag, 1);
  TUTTI_SHARED(double, total, 1);
  const Room room{list, weights, digits, warps, counts, floats, selected, filled, flag, total};
  const Draw draw = draws[blockIdx.x];
  const float* const x = logits.at(blockIdx.x);
  Index token = draw.given;
  if (draw.given < 0) {
    Order own = 0;
    unsigned candidates = 0;
    for (Index i = threadIdx.x; i < width; i += kThreads) {
      const Order order = order_of(x[i], i);
      own = order > own ? order : own;
      candidates += order != 0 ? 1U : 0U;
    }
    const Order best = block_largest(own, room.warps);
    candidates = block_sum(candidates, room.counts);
    token = best == 0 ? 0 : token_of(best);
    // Beside an infinite logit all others weigh nothing.
    const bool draws_one =
        draw.temperature > 0.0 && draw.top_k != 1 && candidates > 0 && !(draw.min_p > 1.0);
    if (draws_one && x[token] < INFINITY) {
      const Row row{x, width, static_cast<double>(x[token]), draw.temperature};
      const Index count = (width + kStretch - 1) / kStretch;
      token = draw_token(row, draw, candidates, stretches + blockIdx.x * count, room);
    }
  }
  double offset = 0.0;
  if (draw.logprob) offset = log_sum<kThreads>(x, nullptr, width, room.floats).value();
  if (threadIdx.x != 0) return;
  const float logprob =
      draw.logprob ? static_cast<float>(static_cast<double>(x[token]) - offset) : 0.0F;
  chosen[blockIdx.x] = {static_cast<std::int32_t>(token), logprob};
}

}  // namespace

Result<> CudaDevice::enqueue(const ChooseTokens& args) {
  begin_op();
  std::pmr::vector<Draw> draws(&host_);
  draws.reserve(args.draws.size());
  for (const TokenDraw& draw : args.draws) {
    const SamplingSettings& s = draw.settings;
    if (s.typical_p < 1.0) return not_on_device("choose_tokens: typical_p");
    draws.push_back({s.temperature, s.top_p, s.min_p, s.seed, draw.position, s.top_k, draw.given,
                     draw.logprob});
  }
  if (draws.empty()) return {};
  auto staged = stage(draws.data(), draws.size());
  if (!staged) return std::move(staged).error();
  const auto stretches = static_cast<std::size_t>((args.logits.columns + kStretch - 1) / kStretch);
  auto room = scratch_.take(draws.size() * stretches * sizeof(double));
  if (!room) return std::move(room).error();
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(draws.size()), kThreads}),
               choose_kernel, Rows(args.logits), args.logits.columns,
               static_cast<const Draw*>(*staged), static_cast<double*>(*room), args.chosen);
  return end_op();
}

}  // namespace tutti::kernels::cuda
