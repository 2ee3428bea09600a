// The gradient to the inputs of a layer with a quantised weight: the CPU's chains over ascending
// outputs, over the image that the forward product reads, so the CPU's bits.
//
// A thread block has 64 inputs and 64 rows. Of 64 outputs at a time it reads the weight's values
// and the outputs' gradients into shared memory; a thread goes on with the chains of one input in
// sixteen rows. Where these tiles lie shows in no bit.
#include "kernels/ops/weights/product_quantised_nn.h"

#include "kernels/cuda/decode/image_values.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/row_view.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 256;
constexpr Index kInputs = 64;
constexpr Index kRows = 64;
constexpr Index kOutputs = kGroupsTogether * kGroup;  // at a time
constexpr Index kOwnRows = kInputs * kRows / static_cast<Index>(kThreads);
// Sixteen bytes behind a row of a tile: what is turned on its way meets few banks twice, and four
// rows are still read at once.
constexpr Index kStride = 64 + 4;
constexpr Index kRowBlocksMax = 65535;  // a grid's second dimension

struct Call {
  WeightImage image;
  Index rows;
  Rows<const float> dy;
  Rows<float> dx;
  bool continued;
  Rows<const float> residual;
};

// values[output][input] of the block's inputs; of what is behind the weight's end, zeros. Threads
// side by side read bytes side by side: four inputs of an output, then the next output's.
template <WeightFormat kFormat>
__device__ void read_values(const WeightImage& image, const float* table, Index first_input,
                            Index first_output, float* values) {
  for (Index i = threadIdx.x; i < kInputs * kOutputs; i += kThreads) {
    Index input = 0;
    Index output = 0;
    if constexpr (kFormat == WeightFormat::bf16) {
      input = i / kOutputs;
      output = i % kOutputs;
    } else {
      constexpr Index kQuad = 4 * kGroup;
      const Index quad = i / kQuad % (kInputs / 4);
      input = quad * 4 + i % 4;
      output = i / (kQuad * kInputs / 4) * kGroup + i % kQuad / 4;
    }
    float value = 0.0F;
    const Index k = first_input + input;
    const Index group = (first_output + output) / kGroup;
    if (k < image.inputs && first_output + output < image.outputs) {
      if constexpr (kFormat == WeightFormat::bf16) {
        value = from_bf16(bf16_outputs(image, group, k)[output % kGroup]);
      } else {
        value = value_at<kFormat>(image, table, group, k / kCell, output % kGroup, k % kCell);
      }
    }
    values[output * kStride + input] = value;
  }
}

// slopes[output][row] of the block's rows.
__device__ void read_slopes(const Call& a, Index first_row, Index first_output, float* slopes) {
  for (Index i = threadIdx.x; i < kRows * kOutputs; i += kThreads) {
    const Index row = i / kOutputs;
    const Index output = i % kOutputs;
    const bool is_there = first_row + row < a.rows && first_output + output < a.image.outputs;
    slopes[output * kStride + row] =
        is_there ? a.dy.at(first_row + row)[first_output + output] : 0.0F;
  }
}

// Block (inputs, rows).
template <WeightFormat kFormat>
__global__ void __launch_bounds__(kThreads, 2) quantised_nn_kernel(Call a) {
  TUTTI_SHARED(float, values, kOutputs* kStride);
  TUTTI_SHARED(float, slopes, kOutputs* kStride);
  TUTTI_SHARED(float, room, kTableSize);
  const float* const table = load_table<kFormat>(a.image, room);
  const Index first_input = static_cast<Index>(blockIdx.x) * kInputs;
  const Index first_row = static_cast<Index>(blockIdx.y) * kRows;
  const Index input = first_input + threadIdx.x % kInputs;
  const Index own = threadIdx.x / kInputs * kOwnRows;  // its first row in the block
  float sums[kOwnRows] = {};
  for (int r = 0; r < kOwnRows; ++r) {
    const Index row = first_row + own + r;
    if (a.continued && input < a.image.inputs && row < a.rows) sums[r] = a.dx.at(row)[input];
  }
  for (Index first = 0; first < a.image.outputs; first += kOutputs) {
    read_values<kFormat>(a.image, table, first_input, first, values);
    read_slopes(a, first_row, first, slopes);
    __syncthreads();
    const Index count = first + kOutputs < a.image.outputs ? kOutputs : a.image.outputs - first;
    for (Index output = 0; output < count; ++output) {
      const float value = values[output * kStride + threadIdx.x % kInputs];
      const auto* const of_rows = reinterpret_cast<const float4*>(slopes + output * kStride + own);
      for (int four = 0; four < kOwnRows / 4; ++four) {
        const float4 slope = of_rows[four];
        sums[4 * four] = fmaf(slope.x, value, sums[4 * four]);
        sums[4 * four + 1] = fmaf(slope.y, value, sums[4 * four + 1]);
        sums[4 * four + 2] = fmaf(slope.z, value, sums[4 * four + 2]);
        sums[4 * four + 3] = fmaf(slope.w, value, sums[4 * four + 3]);
      }
    }
    __syncthreads();
  }
  for (int r = 0; r < kOwnRows; ++r) {
    const Index row = first_row + own + r;
    if (input >= a.image.inputs || row >= a.rows) continue;
    const float added = a.residual.data != nullptr ? sums[r] + a.residual.at(row)[input] : sums[r];
    a.dx.at(row)[input] = added;
  }
}

template <WeightFormat kFormat>
void launch_nn(cudaStream_t stream, const Call& call) {
  const LaunchShape shape{
      dim3(blocks_for(call.image.inputs, kInputs), blocks_for(call.rows, kRows)), kThreads};
  TUTTI_LAUNCH(stream, shape, quantised_nn_kernel<kFormat>, call);
}

void launch_nn(cudaStream_t stream, WeightFormat format, const Call& call) {
  switch (format) {
    case WeightFormat::bf16: return launch_nn<WeightFormat::bf16>(stream, call);
    case WeightFormat::int8_channel: return launch_nn<WeightFormat::int8_channel>(stream, call);
    case WeightFormat::int4_group: return launch_nn<WeightFormat::int4_group>(stream, call);
    case WeightFormat::nf4: return launch_nn<WeightFormat::nf4>(stream, call);
    case WeightFormat::q8_0: return launch_nn<WeightFormat::q8_0>(stream, call);
    case WeightFormat::q4_0: return launch_nn<WeightFormat::q4_0>(stream, call);
    case WeightFormat::q5_0: return launch_nn<WeightFormat::q5_0>(stream, call);
    case WeightFormat::q4_k: return launch_nn<WeightFormat::q4_k>(stream, call);
    case WeightFormat::q5_k: return launch_nn<WeightFormat::q5_k>(stream, call);
    case WeightFormat::q6_k: return launch_nn<WeightFormat::q6_k>(stream, call);
    case WeightFormat::fp8_e4m3: return launch_nn<WeightFormat::fp8_e4m3>(stream, call);
    case WeightFormat::fp8_e5m2: return launch_nn<WeightFormat::fp8_e5m2>(stream, call);
    case WeightFormat::int4_zero: return launch_nn<WeightFormat::int4_zero>(stream, call);
    case WeightFormat::int8_zero: return launch_nn<WeightFormat::int8_zero>(stream, call);
    case WeightFormat::int4_order: return launch_nn<WeightFormat::int4_order>(stream, call);
    case WeightFormat::int8_order: return launch_nn<WeightFormat::int8_order>(stream, call);
  }
}

}  // namespace

Result<> CudaDevice::enqueue(const QuantisedProductNn& args) {
  begin_op();
  const Index rows = args.left.rows;
  if (rows > kRowBlocksMax * kRows) {
    return Error{ErrorCode::invalid_argument,
                 "product_quantised_nn: up to 4 million rows on a GPU"};
  }
  const bool continued = args.start == ChainStart::output;
  static_cast<void>(enqueues("quantised rows", rows, continued, static_cast<bool>(args.residual)));
  launch_nn(stream(), args.right->format(),
            {.image = WeightImage(*args.right),
             .rows = rows,
             .dy = Rows(args.left),
             .dx = Rows(args.output),
             .continued = continued,
             .residual = Rows(args.residual)});
  return end_op();
}

}  // namespace tutti::kernels::cuda
