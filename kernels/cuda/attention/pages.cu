// Writing keys and values into cache pages: as they are, rounded to bf16, or to int8 codes of the
// largest magnitude of a position and head.
#include <vector>

#include "kernels/cuda/attention/attention_form.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_view.h"
#include "kernels/cuda/tensor_core.h"
#include "kernels/ops/key_value_pages.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 128;
constexpr float kCodeMax = 127.0F;

struct Written {
  float* page;
  std::int32_t row;
  std::int32_t slot;
};

struct Rounded {
  Rows<const float> k, v;
  PageLayout layout;
  Index kv_heads, width;
};

// A warp's row of numbers becomes codes; all lanes have the scale. What is not finite makes it NaN.
__device__ float write_codes(const float* from, std::int8_t* to, Index width) {
  const Index lane = threadIdx.x % kWarp;
  float top = 0.0F;
  float sum = 0.0F;
  for (Index d = lane; d < width; d += kWarp) {
    const float size = fabsf(from[d]);
    top = size > top ? size : top;
    sum += from[d] - from[d];
  }
  top = warp_max(top);
  sum = warp_sum(sum);
  const float scale = top / kCodeMax;
  const float by = top > 0.0F ? kCodeMax / top : 0.0F;
  for (Index d = lane; d < width; d += kWarp) {
    const float code = rintf(from[d] * by);
    to[d] = static_cast<std::int8_t>(code >= -kCodeMax && code <= kCodeMax ? code : 0.0F);
  }
  return sum == 0.0F ? scale : sum;
}

// Block (row), a warp for each head in turn.
__global__ void __launch_bounds__(kThreads) kv_write_kernel(Rounded a, const Written* rows) {
  const Written to = rows[blockIdx.x];
  const Index lane = threadIdx.x % kWarp;
  for (Index head = threadIdx.x / kWarp; head < a.kv_heads; head += kThreads / kWarp) {
    const float* const k = a.k.at(to.row) + head * a.width;
    const float* const v = a.v.at(to.row) + head * a.width;
    unsigned char* const key = a.layout.key(to.page, head, to.slot);
    unsigned char* const value = key + kKeyBlock * a.layout.row_bytes;
    if (a.layout.cache == CacheType::int8) {
      const float key_scale = write_codes(k, reinterpret_cast<std::int8_t*>(key), a.width);
      const float value_scale = write_codes(v, reinterpret_cast<std::int8_t*>(value), a.width);
      if (lane == 0) {
        float* const scales = a.layout.scale(to.page, head, to.slot);
        scales[0] = key_scale;
        scales[kKeyBlock] = value_scale;
      }
      continue;
    }
    const bool narrow = a.layout.cache == CacheType::bf16;
    for (Index d = lane; d < a.width; d += kWarp) {
      if (narrow) {
        reinterpret_cast<Bf16*>(key)[d] = to_bf16(k[d]);
        reinterpret_cast<Bf16*>(value)[d] = to_bf16(v[d]);
      } else {
        reinterpret_cast<float*>(key)[d] = k[d];
        reinterpret_cast<float*>(value)[d] = v[d];
      }
    }
  }
}

}  // namespace

Result<> CudaDevice::enqueue(const KeyValueWrite& args) {
  begin_op();
  std::pmr::vector<Written> rows(&host_);
  for (const SequenceRows& sequence : args.sequences) {
    for (Index r = 0; r < sequence.rows; ++r) {
      const Index position = sequence.first_position + r;
      rows.push_back({sequence.pages[static_cast<std::size_t>(position / kKeyBlock)],
                      static_cast<std::int32_t>(sequence.first_row + r),
                      static_cast<std::int32_t>(position % kKeyBlock)});
    }
  }
  if (rows.empty()) return {};
  auto list = stage(rows.data(), rows.size());
  if (!list) return std::move(list).error();
  const AttentionShape& shape = args.shape;
  const Rounded rounded{Rows(args.k), Rows(args.v), PageLayout(shape), shape.kv_heads,
                        shape.head_width};
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(rows.size()), kThreads}),
               kv_write_kernel, rounded, *list);
  return end_op();
}

}  // namespace tutti::kernels::cuda
