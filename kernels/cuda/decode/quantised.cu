// Products by quantised weights, over the image that the CPU reads and with its chains, so with its
// bits (kernels/ops/weights/quantised_weight.h).
//
// A thread block has the sixteen outputs of a group and up to sixteen rows. In teams of sixteen
// threads, one for each output, it does what has no order for many cells at once: integer sums
// of cells and their factors, or the weight's values, into shared memory. Then a thread for each
// row and output goes on with its chain. The same for every number of rows, so that a token has the
// same bits in a prompt as in decoding; a prompt of many rows reads the weight once for sixteen of
// them.
#include <cfloat>
#include <type_traits>

#include "kernels/cuda/decode/image_values.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/elementwise/fours.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_view.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kWarps = kThreads / kWarp;
constexpr int kTeams = kThreads / kGroup;
constexpr int kRowsTogether = kTeams;
constexpr Index kRowBlocksMax = 65535;  // a grid's second dimension
// Cells whose values wait in shared memory.
constexpr Index kExactCells = 8;

// Activations as int8 (quantised_weight.h), in scratch memory.
struct Int8Rows {
  std::int8_t* codes;    // [rows][cells * 32], zeros where inputs end
  float* scales;         // [rows][cells]
  std::int32_t* halves;  // [rows][2 * cells]: sums of sixteen codes
};

struct Call {
  WeightImage image;
  Index rows;
  Rows<const float> x;
  Int8Rows codes;
  Rows<float> y;
  bool continued;
  const float* bias;
  Rows<const float> residual;
};

// Infinite where the number is not finite, so that a maximum keeps it.
__device__ float size_of(float x) {
  const float size = fabsf(x);
  return size <= FLT_MAX ? size : INFINITY;
}

// Block (row). A scale for each cell, or one of the whole row in all of its cells.
__global__ void __launch_bounds__(kThreads)
    round_activations_kernel(Rows<const float> x, Index width, Index cells, Int8Rows to,
                             bool by_row) {
  TUTTI_SHARED(float, room, kWarps);
  const Index row = blockIdx.x;
  const Index lane = threadIdx.x % kWarp;
  const float* const from = x.at(row);
  float whole = 0.0F;
  if (by_row) {
    for (Index k = threadIdx.x; k < width; k += kThreads) whole = fmaxf(whole, size_of(from[k]));
    whole = block_max(whole, room);
  }
  for (Index cell = threadIdx.x / kWarp; cell < cells; cell += kWarps) {
    const Index k = cell * kCell + lane;
    const float value = k < width ? from[k] : 0.0F;
    const float largest = by_row ? whole : warp_max(size_of(value));
    const bool finite = largest <= FLT_MAX;
    const float inverse = finite && largest > 0.0F ? fminf(127.0F / largest, FLT_MAX) : 0.0F;
    const float scaled = inverse == 0.0F ? 0.0F : value * inverse;
    const auto code = static_cast<int>(fminf(127.0F, fmaxf(-127.0F, rintf(scaled))));
    int sum = code;
    for (unsigned half = 8; half > 0; half /= 2) sum += __shfl_xor_sync(kAllLanes, sum, half);
    const Index at = row * cells + cell;
    to.codes[at * kCell + lane] = static_cast<std::int8_t>(code);
    if (lane % 16 == 0) to.halves[at * 2 + lane / 16] = sum;
    if (lane == 0) to.scales[at] = finite ? largest / 127.0F : NAN;
  }
}

// The codes of an output in a cell, four inputs a word. Those of eight bits come as signed numbers.
template <int kBits>
__device__ void read_quads(const std::uint8_t* cell, Index output, unsigned (&quads)[kQuads]) {
  const auto word = [&](Index at) {
    return *reinterpret_cast<const std::uint32_t*>(cell + at * 64 + 4 * output);
  };
  if constexpr (kBits == 8) {
    for (int j = 0; j < kQuads; ++j) quads[j] = word(j) ^ 0x80808080U;
  } else {
    for (int j = 0; j < 4; ++j) {
      quads[j] = word(j) & 0x0f0f0f0fU;
      quads[j + 4] = word(j) >> 4 & 0x0f0f0f0fU;
    }
  }
  if constexpr (kBits == 5 || kBits == 6) {
    for (int j = 0; j < kQuads; ++j) {
      const unsigned high =
          kBits == 5 ? word(4) >> j & 0x01010101U : word(4 + j / 4) >> (2 * (j % 4)) & 0x03030303U;
      quads[j] |= high << 4;
    }
  }
}

// The integer sums of a cell for the thread's output; of q6_k, whose halves have scales of their
// own, with those.
template <WeightFormat kFormat, int kRows>
__device__ void sum_cell(const Call& a, const std::uint8_t* group, Index cell, Index first_row,
                         int (&sums)[kRows]) {
  constexpr int kBits = FormatOf<kFormat>::kBits;
  const Index output = threadIdx.x % kGroup;
  const std::uint8_t* const from = group + cell_offset<kFormat>(cell);
  unsigned quads[kQuads];
  read_quads<kBits>(from, output, quads);
  for (int r = 0; r < kRows; ++r) {
    if (first_row + r >= a.rows) break;
    const Index at = (first_row + r) * a.image.cells + cell;
    const auto* const x = reinterpret_cast<const uint4*>(a.codes.codes + at * kCell);
    const auto half_sum = [](const unsigned* codes, const uint4& with) {
      int sum = __dp4a(static_cast<int>(codes[0]), static_cast<int>(with.x), 0);
      sum = __dp4a(static_cast<int>(codes[1]), static_cast<int>(with.y), sum);
      sum = __dp4a(static_cast<int>(codes[2]), static_cast<int>(with.z), sum);
      return __dp4a(static_cast<int>(codes[3]), static_cast<int>(with.w), sum);
    };
    int first = half_sum(quads, x[0]);
    int second = half_sum(quads + 4, x[1]);
    if constexpr (kFormat == WeightFormat::q6_k) {
      const auto* const scales =
          reinterpret_cast<const std::int8_t*>(from + FormatOf<kFormat>::kCodes);
      const std::int32_t* const halves = a.codes.halves + at * 2;
      first = (first - 32 * halves[0]) * scales[output];
      second = (second - 32 * halves[1]) * scales[16 + output];
    }
    sums[r] += first + second;
  }
}

// What a cell adds to a chain, given its integer sum: a number times a factor, or two of them, as
// pairs.
template <WeightFormat kFormat>
struct CellTerms {
  static constexpr bool kTwo = kFormat == WeightFormat::int4_group ||
                               kFormat == WeightFormat::q4_k || kFormat == WeightFormat::q5_k;
  using Pairs = std::conditional_t<kTwo, float4, float2>;

  __device__ static Pairs of(const Call& a, const std::uint8_t* group, Index cell, Index row,
                             int codes) {
    constexpr int kCodes = FormatOf<kFormat>::kCodes;
    const Index output = threadIdx.x % kGroup;
    const std::uint8_t* const scales = group + cell_offset<kFormat>(cell) + kCodes;
    const std::uint8_t* const super = group + super_offset<kFormat>(cell);
    const Index at = row * a.image.cells + cell;
    const float x = a.codes.scales[at];
    const int total = a.codes.halves[2 * at] + a.codes.halves[2 * at + 1];
    if constexpr (kFormat == WeightFormat::int4_group) {
      return {static_cast<float>(codes), half_at(scales, output) * x, static_cast<float>(total),
              half_at(scales + 32, output) * x};
    } else if constexpr (kTwo) {
      const int scaled = codes * scales[output];
      const int mins = scales[16 + output] * total;
      return {static_cast<float>(scaled), half_at(super, output) * x, -static_cast<float>(mins),
              half_at(super + 32, output) * x};
    } else if constexpr (kFormat == WeightFormat::q6_k) {
      return {static_cast<float>(codes), half_at(super, output) * x};
    } else {
      constexpr int kZero = FormatOf<kFormat>::kBits == 8 ? 0 : FormatOf<kFormat>::kZero;
      return {static_cast<float>(codes - kZero * total), half_at(scales, output) * x};
    }
  }
  __device__ static float add(const Pairs& pairs, float sum) {
    sum = fmaf(pairs.x, pairs.y, sum);
    if constexpr (kTwo) sum = fmaf(pairs.z, pairs.w, sum);
    return sum;
  }
};

__device__ float start_of(const Call& a, Index row, Index column) {
  return a.continued && row < a.rows && column < a.image.outputs ? a.y.at(row)[column] : 0.0F;
}

__device__ void store(const Call& a, Index row, Index column, float sum) {
  if (row >= a.rows || column >= a.image.outputs) return;
  if (a.bias != nullptr) sum += a.bias[column];
  if (a.residual.data != nullptr) sum += a.residual.at(row)[column];
  a.y.at(row)[column] = sum;
}

// What waits in shared memory for the chains: of few rows the terms of cells, so that a chain's
// step is one read and a multiply-add while most threads wait; of many rows, all of whose threads
// have chains, integers alone, for which there is room.
template <WeightFormat kFormat, int kRows>
struct Waiting {
  static constexpr bool kTerms = kRows <= 4;
  using Terms = CellTerms<kFormat>;
  using Value = std::conditional_t<kTerms, typename Terms::Pairs, int>;

  __device__ static Value of(const Call& a, const std::uint8_t* group, Index cell, Index row,
                             int codes) {
    if constexpr (kTerms) {
      return row < a.rows ? Terms::of(a, group, cell, row, codes) : Value{};
    } else {
      return codes;
    }
  }
  __device__ static float add(const Call& a, const std::uint8_t* group, Index cell, Index row,
                              const Value& value, float sum) {
    if constexpr (kTerms) {
      return Terms::add(value, sum);
    } else {
      return Terms::add(Terms::of(a, group, cell, row, value), sum);
    }
  }
};

// Block (group, rows). The fewer rows, the more cells are summed at once.
template <WeightFormat kFormat, int kRows>
__global__ void __launch_bounds__(kThreads) integer_product_kernel(Call a) {
  constexpr Index kCells = kTeams * (kRows == 1 ? 4 : (kRows == 4 ? 2 : 1));
  using Cells = Waiting<kFormat, kRows>;
  TUTTI_SHARED(typename Cells::Value, waiting, kCells * kRows * kGroup);
  const std::uint8_t* const group = a.image.data + blockIdx.x * a.image.group_bytes;
  const Index output = threadIdx.x % kGroup;
  const Index team = threadIdx.x / kGroup;
  const Index first_row = static_cast<Index>(blockIdx.y) * kRows;
  const Index column = static_cast<Index>(blockIdx.x) * kGroup + output;
  const bool chains = team < kRows && first_row + team < a.rows;
  float sum = start_of(a, first_row + team, column);
  for (Index first = 0; first < a.image.cells; first += kCells) {
    const Index count = first + kCells < a.image.cells ? kCells : a.image.cells - first;
    for (Index i = team; i < count; i += kTeams) {
      int sums[kRows] = {};
      sum_cell<kFormat, kRows>(a, group, first + i, first_row, sums);
      for (int r = 0; r < kRows; ++r) {
        waiting[(i * kRows + r) * kGroup + output] =
            Cells::of(a, group, first + i, first_row + r, sums[r]);
      }
    }
    __syncthreads();
    for (Index i = 0; chains && i < count; ++i) {
      sum = Cells::add(a, group, first + i, first_row + team,
                       waiting[(i * kRows + team) * kGroup + output], sum);
    }
    __syncthreads();
  }
  if (chains) store(a, first_row + team, column, sum);
}

// int8_channel: integers over all of K, scaled once at the end.
template <int kRows>
__global__ void __launch_bounds__(kThreads) channel_product_kernel(Call a) {
  TUTTI_SHARED(int, team_sums, kTeams* kRows* kGroup);
  const std::uint8_t* const group = a.image.data + blockIdx.x * a.image.group_bytes;
  const Index output = threadIdx.x % kGroup;
  const Index team = threadIdx.x / kGroup;
  const Index first_row = static_cast<Index>(blockIdx.y) * kRows;
  int sums[kRows] = {};
  for (Index cell = team; cell < a.image.cells; cell += kTeams) {
    sum_cell<WeightFormat::int8_channel, kRows>(a, group, cell, first_row, sums);
  }
  for (int r = 0; r < kRows; ++r) team_sums[(team * kRows + r) * kGroup + output] = sums[r];
  __syncthreads();
  const Index row = first_row + team;
  if (team >= kRows || row >= a.rows) return;
  int codes = 0;
  for (Index t = 0; t < kTeams; ++t) codes += team_sums[(t * kRows + team) * kGroup + output];
  const float scale = reinterpret_cast<const float*>(group)[output];
  const Index column = static_cast<Index>(blockIdx.x) * kGroup + output;
  const float x = a.image.cells > 0 ? a.codes.scales[row * a.image.cells] : 0.0F;
  store(a, row, column, fmaf(static_cast<float>(codes), scale * x, start_of(a, row, column)));
}

// The values of a group's outputs by up to kValuesDepth inputs, which all threads bring to shared
// memory: [input][output]. In two steps, so that chains go on while memory answers; of formats
// whose values are many instructions the first has nothing to do.
constexpr Index kValuesDepth = kExactCells * kCell;

template <WeightFormat kFormat>
class NextValues {
 public:
  __device__ void fetch(const Call& a, Index first_in) {
    first_ = first_in;
    depth_ = first_ + kValuesDepth < a.image.inputs ? kValuesDepth : a.image.inputs - first_;
    if constexpr (kFormat == WeightFormat::bf16) {
      for (int j = 0; j < kEach; ++j) {
        const Index i = threadIdx.x + j * static_cast<Index>(kThreads);
        if (i < depth_ * kFours) {
          const auto* const outputs = bf16_outputs(a.image, blockIdx.x, first_ + i / kFours);
          halves_[j] = load_halves(outputs + i % kFours * kInFour, kInFour);
        }
      }
    }
  }
  __device__ void store(const Call& a, const float* table, float* values) const {
    if constexpr (kFormat == WeightFormat::bf16) {
      for (int j = 0; j < kEach; ++j) {
        const Index i = threadIdx.x + j * static_cast<Index>(kThreads);
        if (i < depth_ * kFours) store_four(values + i * kInFour, kInFour, widened(halves_[j]));
      }
    } else {
      for (Index i = threadIdx.x; i < depth_ * kGroup; i += kThreads) {
        const Index k = first_ + i / kGroup;
        values[i] = value_at<kFormat>(a.image, table, blockIdx.x, k / kCell, i % kGroup, k % kCell);
      }
    }
  }
  __device__ Index depth() const { return depth_; }

 private:
  static constexpr Index kFours = kGroup / kInFour;
  static constexpr int kEach = kValuesDepth * kFours / kThreads;
  Index first_ = 0;
  Index depth_ = 0;
  uint2 halves_[kEach] = {};
};

// Block (group, rows): the chains of product_nt by the weight's values.
template <WeightFormat kFormat>
__global__ void __launch_bounds__(kThreads) exact_product_kernel(Call a) {
  TUTTI_SHARED(float, values, kValuesDepth* kGroup);
  TUTTI_SHARED(float, room, kTableSize);
  const float* const table = load_table<kFormat>(a.image, room);
  const Index output = threadIdx.x % kGroup;
  const Index row = static_cast<Index>(blockIdx.y) * kRowsTogether + threadIdx.x / kGroup;
  const Index column = static_cast<Index>(blockIdx.x) * kGroup + output;
  float sum = start_of(a, row, column);
  NextValues<kFormat> next;
  next.fetch(a, 0);
  for (Index first = 0; first < a.image.inputs; first += kValuesDepth) {
    const Index depth = next.depth();
    next.store(a, table, values);
    __syncthreads();
    if (first + kValuesDepth < a.image.inputs) next.fetch(a, first + kValuesDepth);
    if (row < a.rows) {
      const float* const x = a.x.at(row) + first;
      const float* const own = values + output;
      Index k = 0;
      for (; k + kInFour <= depth; k += kInFour) {
        const Four four = load_four(x + k, kInFour);
        for (unsigned i = 0; i < kInFour; ++i) {
          sum = fmaf(four.at[i], own[(k + i) * kGroup], sum);
        }
      }
      for (; k < depth; ++k) sum = fmaf(x[k], own[k * kGroup], sum);
    }
    __syncthreads();
  }
  store(a, row, column, sum);
}

LaunchShape shape_of(const Call& call, Index rows_together) {
  return {dim3(blocks_for(call.image.outputs, kGroup), blocks_for(call.rows, rows_together)),
          kThreads};
}

template <WeightFormat kFormat>
void launch_integer(cudaStream_t stream, const Call& call) {
  if (call.rows == 1) {
    TUTTI_LAUNCH(stream, shape_of(call, 1), (integer_product_kernel<kFormat, 1>), call);
  } else if (call.rows <= 4) {
    TUTTI_LAUNCH(stream, shape_of(call, 4), (integer_product_kernel<kFormat, 4>), call);
  } else {
    TUTTI_LAUNCH(stream, shape_of(call, kRowsTogether),
                 (integer_product_kernel<kFormat, kRowsTogether>), call);
  }
}

void launch_channel(cudaStream_t stream, const Call& call) {
  if (call.rows == 1) {
    TUTTI_LAUNCH(stream, shape_of(call, 1), channel_product_kernel<1>, call);
  } else if (call.rows <= 4) {
    TUTTI_LAUNCH(stream, shape_of(call, 4), channel_product_kernel<4>, call);
  } else {
    TUTTI_LAUNCH(stream, shape_of(call, kRowsTogether), channel_product_kernel<kRowsTogether>,
                 call);
  }
}

template <WeightFormat kFormat>
void launch_either(cudaStream_t stream, const Call& call, Activations activations) {
  if (activations == Activations::int8) return launch_integer<kFormat>(stream, call);
  TUTTI_LAUNCH(stream, shape_of(call, kRowsTogether), exact_product_kernel<kFormat>, call);
}

void launch_product(cudaStream_t stream, WeightFormat format, const Call& call,
                    Activations activations) {
  const LaunchShape exact = shape_of(call, kRowsTogether);
  switch (format) {
    case WeightFormat::bf16:
      TUTTI_LAUNCH(stream, exact, exact_product_kernel<WeightFormat::bf16>, call);
      return;
    case WeightFormat::nf4:
      TUTTI_LAUNCH(stream, exact, exact_product_kernel<WeightFormat::nf4>, call);
      return;
    case WeightFormat::fp8_e4m3:
      TUTTI_LAUNCH(stream, exact, exact_product_kernel<WeightFormat::fp8_e4m3>, call);
      return;
    case WeightFormat::fp8_e5m2:
      TUTTI_LAUNCH(stream, exact, exact_product_kernel<WeightFormat::fp8_e5m2>, call);
      return;
    case WeightFormat::int4_zero:
      TUTTI_LAUNCH(stream, exact, exact_product_kernel<WeightFormat::int4_zero>, call);
      return;
    case WeightFormat::int8_zero:
      TUTTI_LAUNCH(stream, exact, exact_product_kernel<WeightFormat::int8_zero>, call);
      return;
    case WeightFormat::int4_order:
      TUTTI_LAUNCH(stream, exact, exact_product_kernel<WeightFormat::int4_order>, call);
      return;
    case WeightFormat::int8_order:
      TUTTI_LAUNCH(stream, exact, exact_product_kernel<WeightFormat::int8_order>, call);
      return;
    case WeightFormat::int8_channel:
      if (activations == Activations::int8) return launch_channel(stream, call);
      TUTTI_LAUNCH(stream, exact, exact_product_kernel<WeightFormat::int8_channel>, call);
      return;
    case WeightFormat::int4_group:
      return launch_either<WeightFormat::int4_group>(stream, call, activations);
    case WeightFormat::q8_0: return launch_either<WeightFormat::q8_0>(stream, call, activations);
    case WeightFormat::q4_0: return launch_either<WeightFormat::q4_0>(stream, call, activations);
    case WeightFormat::q5_0: return launch_either<WeightFormat::q5_0>(stream, call, activations);
    case WeightFormat::q4_k: return launch_either<WeightFormat::q4_k>(stream, call, activations);
    case WeightFormat::q5_k: return launch_either<WeightFormat::q5_k>(stream, call, activations);
    case WeightFormat::q6_k: return launch_either<WeightFormat::q6_k>(stream, call, activations);
  }
}

}  // namespace

Result<> CudaDevice::enqueue(const QuantisedProduct& args) {
  begin_op();
  const QuantisedWeight& weight = *args.right;
  const Index rows = args.left.rows;
  if (rows > kRowBlocksMax) {
    return Error{ErrorCode::invalid_argument, "product_quantised: up to 65,535 rows on a GPU"};
  }
  Call call{.image = WeightImage(weight),
            .rows = rows,
            .x = Rows(args.left),
            .codes = {},
            .y = Rows(args.output),
            .continued = args.start == ChainStart::output,
            .bias = args.bias,
            .residual = Rows(args.residual)};
  const Index cells = call.image.cells;
  static_cast<void>(enqueues("quantised rows", rows, call.continued, call.bias != nullptr,
                             call.residual.data != nullptr));
  if (args.activations == Activations::int8) {
    const auto count = static_cast<std::size_t>(rows * cells);
    auto codes = scratch_.take(count * kCell);
    if (!codes) return std::move(codes).error();
    auto scales = scratch_.take(count * sizeof(float));
    if (!scales) return std::move(scales).error();
    auto halves = scratch_.take(2 * count * sizeof(std::int32_t));
    if (!halves) return std::move(halves).error();
    call.codes = {static_cast<std::int8_t*>(*codes), static_cast<float*>(*scales),
                  static_cast<std::int32_t*>(*halves)};
    TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(rows), kThreads}),
                 round_activations_kernel, Rows(args.left), weight.inputs(), cells, call.codes,
                 weight.format() == WeightFormat::int8_channel);
  }
  launch_product(stream(), weight.format(), call, args.activations);
  return end_op();
}

}  // namespace tutti::kernels::cuda
