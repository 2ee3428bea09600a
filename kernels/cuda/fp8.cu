// Codes of fp8 with a scale for each row (ops/elementwise/fp8_rows.h): of activations' rows for
// each product that reads them, of weights' rows and columns once a step, or for each product.
#include "kernels/cuda/device.h"
#include "kernels/cuda/elementwise/fours.h"
#include "kernels/cuda/reduce.h"

namespace tutti::kernels::cuda {

namespace {

constexpr float kCodesMost = 448.0F;
constexpr unsigned kCodeNan = 0x7fU;
constexpr unsigned kExponentOne = 127;  // of fp32
constexpr unsigned kFractionBits = 23;

__device__ __forceinline__ unsigned bits_of(float x) {
  unsigned bits = 0;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}
__device__ __forceinline__ float of_bits(unsigned bits) {
  float x = 0.0F;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

__device__ __forceinline__ bool is_finite(float x) {
  return (bits_of(x) & 0x7f800000U) != 0x7f800000U;
}

// What products read of a number.
__device__ __forceinline__ float as_bf16(float x) { return from_bf16(narrowed(x, Narrow::bf16)); }

// Of what is finite.
__device__ __forceinline__ float larger(float top, float x) {
  const float size = fabsf(x);
  return is_finite(x) && size > top ? size : top;
}

// A power of two and its inverse. 448 is 1.75 times 2^8.
struct RowScale {
  __device__ explicit RowScale(float top) {
    constexpr unsigned kMostFraction = 0x600000U;
    constexpr unsigned kMostExponent = 8;
    const unsigned bits = bits_of(top);
    const unsigned exponent =
        (bits >> kFractionBits) + ((bits & 0x7fffffU) > kMostFraction ? 1U : 0U);
    unsigned biased = exponent > kMostExponent ? exponent - kMostExponent : 1U;
    if (top == 0.0F) biased = kExponentOne;
    scale = of_bits(biased << kFractionBits);
    inverse = of_bits((2 * kExponentOne - biased) << kFractionBits);
  }
  float scale, inverse;
};

// The nearest code of x, ties to the even one.
__device__ __forceinline__ unsigned code_of(float x, const RowScale& row) {
  if (!is_finite(x)) return kCodeNan;
  const float size = fabsf(x * row.inverse);
  const unsigned sign = bits_of(x) >> 24 & 0x80U;
  constexpr float kNormalLeast = 0x1p-6F;
  if (size < kNormalLeast) {
    // How many times 2^-9, which is the last bit of what lies from 2^14 to 2^15.
    constexpr float kShift = 0x1p14F;
    return sign | (bits_of(size + kShift) - bits_of(kShift));
  }
  constexpr unsigned kCut = kFractionBits - 3;
  constexpr unsigned kBias = (kExponentOne - 7) << 3;
  const unsigned bits = bits_of(size < kCodesMost ? size : kCodesMost);
  const unsigned nearest = bits + ((1U << (kCut - 1)) - 1) + (bits >> kCut & 1U);
  return sign | ((nearest >> kCut) - kBias);
}

__device__ __forceinline__ Four load_as_bf16(const float* from) {
  Four four = load_four(from, kInFour);
  for (float& x : four.at) x = as_bf16(x);
  return four;
}
__device__ __forceinline__ Four load_as_bf16(const std::uint16_t* from) {
  return widened(load_halves(from, kInFour));
}
__device__ __forceinline__ float one_as_bf16(float x) { return as_bf16(x); }
__device__ __forceinline__ float one_as_bf16(std::uint16_t x) { return from_bf16(x); }

// A block a row.
template <class From>
__global__ void __launch_bounds__(kFourThreads)
    row_codes_kernel(Rows<const From> from, Index width, unsigned* codes, float* scales) {
  TUTTI_SHARED(float, room, kFourThreads / kWarp);
  const Index row = blockIdx.x;
  const From* const numbers = from.at(row);
  float top = 0.0F;
  for (Index i = threadIdx.x * kInFour; i < width; i += kFourThreads * kInFour) {
    const Four four = load_as_bf16(numbers + i);
    for (const float x : four.at) top = larger(top, x);
  }
  const RowScale scale(block_max(top, room));
  for (Index i = threadIdx.x * kInFour; i < width; i += kFourThreads * kInFour) {
    const Four four = load_as_bf16(numbers + i);
    unsigned word = 0;
    for (unsigned k = 0; k < kInFour; ++k) word |= code_of(four.at[k], scale) << 8 * k;
    codes[(row * width + i) / kInFour] = word;
  }
  if (threadIdx.x == 0) scales[row] = scale.scale;
}

constexpr unsigned kColumns = 32;  // of a block, which goes down all rows
constexpr unsigned kStripes = 8;
constexpr unsigned kTileRows = kStripes * kInFour;

// Codes of columns, as rows: through shared memory, so that both sides are read and written along
// their rows.
template <class From>
__global__ void __launch_bounds__(kColumns* kStripes)
    column_codes_kernel(Rows<const From> from, Index rows, Index columns, unsigned* codes,
                        float* scales) {
  TUTTI_SHARED(float, tops, kStripes* kColumns);
  TUTTI_SHARED(unsigned, tile, kColumns*(kStripes + 1));
  const unsigned lane = threadIdx.x % kColumns;
  const unsigned stripe = threadIdx.x / kColumns;
  const Index first = static_cast<Index>(blockIdx.x) * kColumns;
  const Index column = first + lane;
  float top = 0.0F;
  for (Index row = stripe; row < rows && column < columns; row += kStripes) {
    top = larger(top, one_as_bf16(from.at(row)[column]));
  }
  tops[threadIdx.x] = top;
  __syncthreads();
  for (unsigned other = 0; other < kStripes; ++other) {
    top = larger(top, tops[other * kColumns + lane]);
  }
  const RowScale scale(top);
  if (stripe == 0 && column < columns) scales[column] = scale.scale;
  // Four rows of a column are a word; a thread writes that of another column.
  const unsigned word_of = threadIdx.x % kStripes;
  const unsigned column_of = threadIdx.x / kStripes;
  for (Index begin = 0; begin < rows; begin += kTileRows) {
    const Index row = begin + stripe * kInFour;
    unsigned word = 0;
    for (unsigned k = 0; k < kInFour; ++k) {
      if (row + k >= rows || column >= columns) continue;
      word |= code_of(one_as_bf16(from.at(row + k)[column]), scale) << 8 * k;
    }
    tile[lane * (kStripes + 1) + stripe] = word;
    __syncthreads();
    const Index to = begin + word_of * kInFour;
    if (to < rows && first + column_of < columns) {
      codes[((first + column_of) * rows + to) / kInFour] =
          tile[column_of * (kStripes + 1) + word_of];
    }
    __syncthreads();
  }
}

// Where codes go.
struct CodeRoom {
  explicit CodeRoom(const Fp8Rows& to)
      : codes(reinterpret_cast<unsigned*>(const_cast<std::uint8_t*>(to.codes))),
        scales(const_cast<float*>(to.scales)) {}
  unsigned* codes;
  float* scales;
};

template <class From>
void codes_of_rows(cudaStream_t stream, const BasicMatrix<const From>& from, const Fp8Rows& to) {
  const CodeRoom room(to);
  if (from.rows == 0) return;
  TUTTI_LAUNCH(stream, (LaunchShape{static_cast<unsigned>(from.rows), kFourThreads}),
               row_codes_kernel<From>, Rows<const From>(from), from.columns, room.codes,
               room.scales);
}

template <class From>
void codes_of_columns(cudaStream_t stream, const BasicMatrix<const From>& from, const Fp8Rows& to) {
  const CodeRoom room(to);
  TUTTI_LAUNCH(stream, (LaunchShape{blocks_for(from.columns, kColumns), kColumns * kStripes}),
               column_codes_kernel<From>, Rows<const From>(from), from.rows, from.columns,
               room.codes, room.scales);
}

}  // namespace

Result<> CudaDevice::make_fp8(const ConstMatrix& weight, const Fp8Weight& to) {
  begin_op();
  if (options_.inputs != Products::Inputs::fp8) return codes_on_fp8_only();
  if (!has_fp8_shape(weight.rows, weight.columns) || !to.rows || !to.columns) {
    return Error{ErrorCode::invalid_argument,
                 "codes of fp8: rows and columns are multiples of 16, and both have room"};
  }
  codes_of_rows(stream(), weight, to.rows);
  codes_of_columns(stream(), weight, to.columns);
  return end_op();
}

Result<Fp8Rows> CudaDevice::fp8_room(Index rows, Index columns) {
  auto codes = scratch_.take(static_cast<std::size_t>(rows * columns));
  if (!codes) return std::move(codes).error();
  auto scales = scratch_floats(rows);
  if (!scales) return std::move(scales).error();
  return Fp8Rows{static_cast<const std::uint8_t*>(*codes), *scales};
}

// nt sums over the weight's columns, and reads its rows; nn over its rows.
Result<Products::Operands> CudaDevice::fp8_operands(ProductForm form, const Product& args) {
  const auto left = fp8_room(args.left.rows, args.left.columns);
  if (!left) return left.error();
  if (args.left_rounded) {
    codes_of_rows(stream(), args.left_rounded, *left);
  } else {
    codes_of_rows(stream(), args.left, *left);
  }
  const bool by_rows = form == ProductForm::nt;
  Fp8Rows right = by_rows ? args.right_fp8.rows : args.right_fp8.columns;
  // Other work than with codes that are there, which no launch may say.
  static_cast<void>(enqueues("codes", static_cast<bool>(right)));
  if (!right) {
    const Index outputs = by_rows ? args.right.rows : args.right.columns;
    auto room = fp8_room(outputs, args.left.columns);
    if (!room) return std::move(room).error();
    right = *room;
    const auto fill = [&](const auto& from) {
      by_rows ? codes_of_rows(stream(), from, right) : codes_of_columns(stream(), from, right);
    };
    if (args.right_rounded) {
      fill(args.right_rounded);
    } else {
      fill(args.right);
    }
  }
  return Products::Operands{.type = Products::Inputs::fp8,
                            .left = left->codes,
                            .right = right.codes,
                            .left_stride = args.left.columns,
                            .right_stride = args.left.columns,
                            .left_scales = left->scales,
                            .right_scales = right.scales};
}

}  // namespace tutti::kernels::cuda
