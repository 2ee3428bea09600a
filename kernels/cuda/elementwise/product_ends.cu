// What follows the finished sums of a product, in one pass over them: bias, residual, activation or
// gate, rounding to bf16, in the order of ops/product.h and with the bits of their own ops.
#include "kernels/cuda/device.h"
#include "kernels/cuda/elementwise/fours.h"
#include "kernels/cuda/elementwise/functions.h"

namespace tutti::kernels::cuda {

namespace {

constexpr int kNone = -1;  // activation

// Null: not there. Without sums they are zeros.
struct EndsPass {
  Rows<const float> sums, residual, gate;
  const float* bias;
};

template <class Out>
__global__ void __launch_bounds__(kFourThreads)
    product_ends_kernel(EndsPass a, Rows<Out> output, Index width, int activation) {
  const FourPlace at(width);
  if (at.count <= 0) return;
  Four four = a.sums.data != nullptr ? at.load(a.sums) : Four{};
  const auto add = [&](const Four& other) {
    for (unsigned i = 0; i < kInFour; ++i) four.at[i] += other.at[i];
  };
  if (a.bias != nullptr) add(load_four(a.bias + at.column, at.count));
  if (a.residual.data != nullptr) add(at.load(a.residual));
  const auto kind = static_cast<Activation>(activation);
  if (a.gate.data != nullptr) {
    const Four gate = at.load(a.gate);
    for (unsigned i = 0; i < kInFour; ++i)
      four.at[i] = activate(kind, gate.at[i]).value * four.at[i];
  } else if (activation != kNone) {
    for (unsigned i = 0; i < kInFour; ++i) four.at[i] = activate(kind, four.at[i]).value;
  }
  if constexpr (sizeof(Out) == sizeof(Bf16)) {
    store_halves(output.at(at.row) + at.column, at.count,
                 uint2{pack_bf16(four.at[0], four.at[1]), pack_bf16(four.at[2], four.at[3])});
  } else {
    at.store(output, four);
  }
}

template <class Out>
void launch(cudaStream_t stream, const CudaDevice::ProductEnds& ends,
            const BasicMatrix<Out>& output) {
  const int activation = ends.activation ? static_cast<int>(*ends.activation) : kNone;
  static_cast<void>(enqueues("ends", ends.sums.data != nullptr, ends.bias != nullptr,
                             ends.residual.data != nullptr, ends.gate.data != nullptr));
  const auto is_whole = [&](const ConstMatrix& matrix) {
    return matrix.data == nullptr || matrix.stride == output.columns;
  };
  const bool without_gaps = ends.bias == nullptr && output.stride == output.columns &&
                            is_whole(ends.sums) && is_whole(ends.residual) && is_whole(ends.gate);
  each_row_span(output.rows, output.columns, without_gaps,
                [&](const RowSpan& span, const LaunchShape& shape) {
                  const EndsPass pass{span.of(ends.sums), span.of(ends.residual),
                                      span.of(ends.gate), ends.bias};
                  TUTTI_LAUNCH(stream, shape, product_ends_kernel<Out>, pass, span.of(output),
                               span.width, activation);
                });
}

}  // namespace

Result<> CudaDevice::finish_product(const ProductEnds& ends) {
  if (ends.narrow) {
    launch(stream(), ends, ends.narrow);
  } else {
    launch(stream(), ends, ends.output);
  }
  return {};
}

}  // namespace tutti::kernels::cuda
