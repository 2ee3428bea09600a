// fp32 to bf16 and fp16: nearest for what is computed with, stochastic for weights that are kept
// so; and products with inputs that are rounded on the way.
#include "kernels/cuda/convert.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/elementwise/fours.h"
#include "kernels/cuda/philox.h"
#include "kernels/ops/elementwise/bf16.h"

namespace tutti::kernels::cuda {

namespace {

// `width` numbers of each row; as many zeros as there is room for behind them.
__global__ void __launch_bounds__(kFourThreads)
    round_rows_kernel(Rows<const float> from, Rows<std::uint16_t> to, Index width, Index room,
                      Narrow narrow) {
  const FourPlace at(room);
  if (at.count <= 0) return;
  const Four four = load_four(from.at(at.row) + at.column, width - at.column);
  store_halves(to.at(at.row) + at.column, at.count, narrowed(four, narrow));
}

// Up with the probability of the part that is cut off: the mean is the value.
__device__ __forceinline__ unsigned stochastic(float x, unsigned draw) {
  unsigned bits = 0;
  memcpy(&bits, &x, sizeof(bits));
  const bool finite = (bits & 0x7f800000U) != 0x7f800000U;
  return finite ? (bits + draw) >> 16 & 0xffffU : to_bf16(x);
}

// Each element has its own half-word, keyed by its index in the whole tensor; a thread takes the
// eight of one draw, of which some may lie before the range or behind it.
__global__ void __launch_bounds__(kFourThreads)
    round_stochastic_kernel(const float* from, Bf16* to, Index count, StochasticKey key) {
  const unsigned long long draw = key.first_index / kInDraw +
                                  static_cast<unsigned long long>(blockIdx.x) * kFourThreads +
                                  threadIdx.x;
  const PhiloxWords words = philox(key.seed, key.purpose, draw);
  const Index begin = static_cast<Index>(draw * kInDraw - key.first_index);
  for (unsigned half = 0; half < kInDraw / kInFour; ++half) {
    const Index first = begin + half * kInFour;
    if (first < 0) {
      for (unsigned i = 0; i < kInFour; ++i) {
        const Index at = first + i;
        if (at < 0 || at >= count) continue;
        to[at] = static_cast<Bf16>(stochastic(from[at], words.half(half * kInFour + i)));
      }
      continue;
    }
    const Four four = load_four(from + first, count - first);
    unsigned rounded[kInFour];
    for (unsigned i = 0; i < kInFour; ++i) {
      rounded[i] = stochastic(four.at[i], words.half(half * kInFour + i));
    }
    store_halves(to + first, count - first,
                 {rounded[0] | rounded[1] << 16, rounded[2] | rounded[3] << 16});
  }
}

// A NaN keeps its bits, as on a CPU.
__global__ void __launch_bounds__(kFourThreads)
    round_kernel(const float* from, Bf16* to, Index count) {
  const FourPlace at(count);
  if (at.count <= 0) return;
  const Four four = load_four(from + at.column, at.count);
  unsigned halves[kInFour];
  for (unsigned i = 0; i < kInFour; ++i) halves[i] = to_bf16(four.at[i]);
  store_halves(to + at.column, at.count,
               {halves[0] | halves[1] << 16, halves[2] | halves[3] << 16});
}

__global__ void __launch_bounds__(kFourThreads)
    widen_kernel(const Bf16* from, float* to, Index count) {
  const FourPlace at(count);
  if (at.count <= 0) return;
  store_four(to + at.column, at.count, widened(load_halves(from + at.column, at.count)));
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
  const BasicMatrix<std::uint16_t> rounded(to, from.rows, stride);
  const bool without_gaps = from.stride == from.columns && stride == from.columns;
  each_row_span(from.rows, stride, without_gaps,
                [&](const RowSpan& span, const LaunchShape& shape) {
                  TUTTI_LAUNCH(stream, shape, round_rows_kernel, span.of(from), span.of(rounded),
                               without_gaps ? span.width : from.columns, span.width, narrow);
                });
  return {};
}

Result<> round_stochastic(cudaStream_t stream, std::span<const float> from, Bf16* to,
                          const StochasticKey& key) {
  const auto count = static_cast<Index>(from.size());
  if (count == 0) return {};
  // One more than the range has: its first draw may begin before it.
  const unsigned draws = blocks_for(count, kInDraw) + 1;
  TUTTI_LAUNCH(stream, (LaunchShape{blocks_for(draws, kFourThreads), kFourThreads}),
               round_stochastic_kernel, from.data(), to, count, key);
  return {};
}

Result<> CudaDevice::enqueue(const ToBf16& args) {
  begin_op();
  const auto count = static_cast<Index>(args.from.size());
  if (count == 0) return {};
  TUTTI_LAUNCH(stream(), span_shape(count), round_kernel, args.from.data(), args.to.data(), count);
  return end_op();
}

Result<> CudaDevice::enqueue(const FromBf16& args) {
  begin_op();
  const auto count = static_cast<Index>(args.from.size());
  if (count == 0) return {};
  TUTTI_LAUNCH(stream(), span_shape(count), widen_kernel, args.from.data(), args.to.data(), count);
  return end_op();
}

Result<> CudaDevice::enqueue(const StochasticBf16& args) {
  begin_op();
  auto rounded = round_stochastic(stream(), args.from, args.to.data(),
                                  {args.key.seed, args.key.purpose, args.first_index});
  if (!rounded) return rounded;
  return end_op();
}

std::optional<Narrow> CudaDevice::narrow_inputs() const {
  if (options_.inputs == Products::Inputs::bf16 || options_.inputs == Products::Inputs::fp8) {
    return Narrow::bf16;
  }
  if (options_.inputs == Products::Inputs::fp16) return Narrow::fp16;
  return std::nullopt;
}

Result<Narrow> CudaDevice::narrow_of(const char* op, std::initializer_list<bool> rounded) const {
  const auto narrow = narrow_inputs();
  for (const bool one : rounded) {
    // Other work than without it, which no launch may say.
    static_cast<void>(enqueues("rounded", one));
    if (one && !narrow) return rounded_on_devices_only(op);
  }
  return narrow.value_or(Narrow::bf16);
}

Result<> CudaDevice::round(const ConstMatrix& from, const RoundedMatrix& to) {
  begin_op();
  const auto narrow = narrow_of("rounding", {true});
  if (!narrow) return narrow.error();
  if (!to || !fits_outputs(from, {}, to)) {
    return Error{ErrorCode::invalid_argument, "rounding: what is rounded differs in shape"};
  }
  each_row_span_of(
      [&](const RowSpan& span, const LaunchShape& shape) {
        TUTTI_LAUNCH(stream(), shape, round_rows_kernel, span.of(from), span.of(to), span.width,
                     span.width, *narrow);
      },
      from, to);
  return end_op();
}

Result<ConstRoundedMatrix> CudaDevice::round_operand(const ConstMatrix& from, Narrow narrow) {
  const Index stride = rounded_stride(from.columns);
  auto room = scratch_.take(static_cast<std::size_t>(from.rows * stride) * sizeof(Bf16));
  if (!room) return std::move(room).error();
  auto* const to = static_cast<std::uint16_t*>(*room);
  if (auto done = round_rows(stream(), from, to, stride, narrow); !done) {
    return std::move(done).error();
  }
  return ConstRoundedMatrix(to, from.rows, from.columns, stride);
}

// The library adds a bias or a residual while it has the sum; all other ends, and what it does not
// take, are one pass behind it.
Result<> CudaDevice::multiply(ProductForm form, const Product& args) {
  const auto narrow = narrow_of(
      "a product", {static_cast<bool>(args.left_rounded), static_cast<bool>(args.right_rounded)});
  if (!narrow) return narrow.error();
  // It does not say in which order it adds two.
  const int added = (args.start == ChainStart::output ? 1 : 0) + (args.bias != nullptr ? 1 : 0) +
                    (args.residual ? 1 : 0);
  const bool more_than_one = added > 1;
  const bool on_fp8 = options_.inputs == Products::Inputs::fp8;
  if (args.right_fp8 && !on_fp8) return codes_on_fp8_only();
  const bool by_codes = on_fp8 && args.eights == Eights::allowed && form != ProductForm::tn &&
                        has_fp8_shape(args.right.rows, args.right.columns);
  // Nor does it add an fp32 bias to what it sums of codes.
  const bool behind =
      more_than_one || args.activation || args.narrow || (by_codes && args.bias != nullptr);
  Product within = args;
  if (behind) {
    within.bias = nullptr;
    within.residual = {};
  }
  if (args.narrow) {
    auto room = scratch_floats(args.narrow.rows * args.narrow.columns);
    if (!room) return std::move(room).error();
    within.output = Matrix(*room, args.narrow.rows, args.narrow.columns);
  }
  const auto finish = [&](const Result<Products::Ends>& ran) -> Result<> {
    if (!ran) return ran.error();
    const bool ends = args.bias != nullptr || args.residual || args.activation || args.narrow;
    if (!ends || (!behind && *ran == Products::Ends::added)) return {};
    return finish_product({within.output, args.output, args.narrow, args.bias, args.residual,
                           args.activation, args.gate});
  };
  if (options_.inputs == Products::Inputs::fp32)
    return finish(products_->run(stream(), form, within));
  Products::Operands operands{.type = on_fp8 ? Products::Inputs::bf16 : options_.inputs};
  if (options_.inputs == Products::Inputs::tf32)
    return finish(products_->run(stream(), form, within, &operands));
  const ScratchMemory::Mark mark = scratch_.mark();
  if (by_codes) {
    const auto codes = fp8_operands(form, args);
    if (!codes) return codes.error();
    within.right = ConstMatrix(nullptr, within.output.columns, within.left.columns);
    const auto ran = products_->run(stream(), ProductForm::nt, within, &*codes);
    scratch_.rewind(mark);
    return finish(ran);
  }
  const auto left =
      args.left_rounded ? Result(args.left_rounded) : round_operand(args.left, *narrow);
  if (!left) return left.error();
  const auto right =
      args.right_rounded ? Result(args.right_rounded) : round_operand(args.right, *narrow);
  if (!right) return right.error();
  operands.left = left->data;
  operands.left_stride = left->stride;
  operands.right = right->data;
  operands.right_stride = right->stride;
  const auto ran = products_->run(stream(), form, within, &operands);
  scratch_.rewind(mark);
  return finish(ran);
}

}  // namespace tutti::kernels::cuda
