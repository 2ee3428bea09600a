// fp32 to bf16 and fp16: nearest for what is computed with, stochastic for weights that are kept
// so; and products with inputs that are rounded on the way.
#include "kernels/cuda/convert.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/philox.h"
#include "kernels/cuda/row_view.h"
#include "kernels/ops/elementwise/bf16.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 128;
constexpr Index kRowsMax = 65535;
// Rows of rounded matrices begin at multiples of 16 bytes.
constexpr Index kStrideUnit = 8;

// The bits of the nearest binary16, as fp16.h has its value.
__device__ std::uint16_t to_fp16(float x) {
  unsigned bits = 0;
  memcpy(&bits, &x, sizeof(bits));
  const unsigned sign = bits >> 16 & 0x8000U;
  const unsigned magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U);
  const unsigned nearest = magnitude + 0x0fffU + (magnitude >> 13 & 1U);
  if (nearest >= 0x47800000U) return static_cast<std::uint16_t>(sign | 0x7c00U);
  constexpr unsigned kBias = (127U - 15U) << 23;
  if (magnitude >= 0x38800000U) return static_cast<std::uint16_t>(sign | (nearest - kBias) >> 13);
  // Below 2^-14: how many times 2^-24, which is the last bit of what lies from a half to one.
  const float shifted = fabsf(x) + 0.5F;
  memcpy(&bits, &shifted, sizeof(bits));
  return static_cast<std::uint16_t>(sign | (bits & 0x7ffU));
}

__device__ std::uint16_t narrowed(float x, Narrow narrow) {
  return narrow == Narrow::bf16 ? to_bf16(x) : to_fp16(x);
}

__global__ void round_rows_kernel(Rows<const float> from, std::uint16_t* to, Index width,
                                  Index stride, Narrow narrow) {
  const Index row = blockIdx.y;
  const Index c = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (c < stride) to[row * stride + c] = c < width ? narrowed(from.at(row)[c], narrow) : 0;
}

// Up with the probability of the part that is cut off: the mean is the value. Each element has its
// own draw, keyed by its index in the whole tensor.
__global__ void round_stochastic_kernel(const float* from, Bf16* to, Index count,
                                        StochasticKey key) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const unsigned long long element = key.first_index + static_cast<unsigned long long>(i);
  const PhiloxWords words = philox(key.seed, key.purpose, element / 8);
  const unsigned word = words.word[element % 8 / 2];
  const unsigned draw = element % 2 == 0 ? word & 0xffffU : word >> 16;
  unsigned bits = 0;
  memcpy(&bits, from + i, sizeof(bits));
  const bool finite = (bits & 0x7f800000U) != 0x7f800000U;
  to[i] = finite ? static_cast<Bf16>((bits + draw) >> 16) : to_bf16(from[i]);
}

__global__ void round_kernel(const float* from, Bf16* to, Index count) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) to[i] = to_bf16(from[i]);
}

__global__ void widen_kernel(const Bf16* from, float* to, Index count) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) to[i] = from_bf16(from[i]);
}

}  // namespace

Result<> check_code() {
  cudaFuncAttributes attributes;
  const cudaError_t code =
      cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(round_rows_kernel));
  static_cast<void>(cudaGetLastError());
  return check(code, "a kernel");
}

Result<> round_rows(cudaStream_t stream, const ConstMatrix& from, std::uint16_t* to, Index stride,
                    Narrow narrow) {
  for (Index first = 0; first < from.rows && stride > 0; first += kRowsMax) {
    const Index rows = from.rows - first < kRowsMax ? from.rows - first : kRowsMax;
    TUTTI_LAUNCH(
        stream,
        (LaunchShape{dim3(blocks_for(stride, kThreads), static_cast<unsigned>(rows)), kThreads}),
        round_rows_kernel, Rows(from.row_range(first, rows)), to + first * stride, from.columns,
        stride, narrow);
  }
  return {};
}

Result<> round_stochastic(cudaStream_t stream, std::span<const float> from, Bf16* to,
                          const StochasticKey& key) {
  const auto count = static_cast<Index>(from.size());
  if (count == 0) return {};
  TUTTI_LAUNCH(stream, (LaunchShape{blocks_for(count, kThreads), kThreads}),
               round_stochastic_kernel, from.data(), to, count, key);
  return {};
}

Result<> CudaDevice::enqueue(const ToBf16& args) {
  begin_op();
  const auto count = static_cast<Index>(args.from.size());
  if (count == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{blocks_for(count, kThreads), kThreads}), round_kernel,
               args.from.data(), args.to.data(), count);
  return end_op();
}

Result<> CudaDevice::enqueue(const FromBf16& args) {
  begin_op();
  const auto count = static_cast<Index>(args.from.size());
  if (count == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{blocks_for(count, kThreads), kThreads}), widen_kernel,
               args.from.data(), args.to.data(), count);
  return end_op();
}

Result<> CudaDevice::enqueue(const StochasticBf16& args) {
  begin_op();
  auto rounded = round_stochastic(stream(), args.from, args.to.data(),
                                  {args.key.seed, args.key.purpose, args.first_index});
  if (!rounded) return rounded;
  return end_op();
}

// What the library does not add is added to its finished sum, in the order of the op: the bias,
// then the residual.
Result<> CudaDevice::multiply(ProductForm form, const Product& args) {
  const bool residual_after =
      args.residual && (args.bias != nullptr || args.start == ChainStart::output);
  Product within = args;
  if (residual_after) within.residual = {};
  const auto add_ends = [&](const Result<Products::Ends>& ran) -> Result<> {
    if (!ran) return ran.error();
    const bool added = *ran == Products::Ends::added;
    const float* const bias = added ? nullptr : args.bias;
    const ConstMatrix residual = added && !residual_after ? ConstMatrix() : args.residual;
    if (bias == nullptr && !residual) return {};
    return add_to_rows({args.output, ChainStart::output, bias, residual});
  };
  if (options_.inputs == Products::Inputs::fp32)
    return add_ends(products_->run(stream(), form, within));
  Products::Operands operands{.type = options_.inputs};
  if (options_.inputs == Products::Inputs::tf32)
    return add_ends(products_->run(stream(), form, within, &operands));
  const Narrow narrow = options_.inputs == Products::Inputs::fp16 ? Narrow::fp16 : Narrow::bf16;
  const ScratchMemory::Mark mark = scratch_.mark();
  const auto round = [&](const ConstMatrix& from, const void*& to, Index& stride) -> Result<> {
    stride = (from.columns + kStrideUnit - 1) / kStrideUnit * kStrideUnit;
    auto room = scratch_.take(static_cast<std::size_t>(from.rows * stride) * sizeof(Bf16));
    if (!room) return std::move(room).error();
    to = *room;
    return round_rows(stream(), from, static_cast<std::uint16_t*>(*room), stride, narrow);
  };
  if (auto done = round(args.left, operands.left, operands.left_stride); !done) return done;
  if (auto done = round(args.right, operands.right, operands.right_stride); !done) return done;
  const auto ran = products_->run(stream(), form, within, &operands);
  scratch_.rewind(mark);
  return add_ends(ran);
}

}  // namespace tutti::kernels::cuda
