// The values of a quantised weight, read from its packed image
// (kernels/ops/weights/image_layout.h); for kernels.
#pragma once

#include <algorithm>

#include "kernels/cuda/tensor_core.h"
#include "kernels/ops/weights/image_layout.h"
#include "kernels/ops/weights/quantised_weight.h"

namespace tutti::kernels::cuda {

inline constexpr unsigned kTableSize = 16;

struct WeightImage {
  explicit WeightImage(const QuantisedWeight& weight)
      : data(reinterpret_cast<const std::uint8_t*>(weight.image())),
        cells((weight.inputs() + kCell - 1) / kCell),
        group_bytes(layout_of(weight.format()).group_bytes(cells)),
        inputs(weight.inputs()),
        outputs(weight.outputs()) {
    std::copy(kNormalFloats.begin(), kNormalFloats.end(), table);
  }

  const std::uint8_t* data;
  Index cells, group_bytes, inputs, outputs;
  float table[kTableSize];  // of nf4
};

// The table of nf4 in shared memory, where lanes may read different places at once; all threads
// call.
template <WeightFormat kFormat>
__device__ const float* load_table(const WeightImage& a, float* room) {
  if constexpr (kFormat == WeightFormat::nf4) {
    if (threadIdx.x < kTableSize) room[threadIdx.x] = a.table[threadIdx.x];
    __syncthreads();
  }
  return room;
}

// A half as fp32, exactly.
#ifdef TUTTI_CUDA_EMULATION
inline float half_value(unsigned half) {
  const unsigned sign = (half & 0x8000U) << 16;
  const unsigned exponent = half >> 10 & 31U;
  const unsigned mantissa = half & 0x3ffU;
  float value = static_cast<float>(mantissa) * 0x1p-24F;  // below the normal numbers
  unsigned bits = exponent == 31U ? 0x7f800000U : (exponent + 112U) << 23;
  bits |= mantissa << 13;
  if (exponent != 0U) memcpy(&value, &bits, sizeof(value));
  memcpy(&bits, &value, sizeof(bits));
  bits |= sign;
  memcpy(&value, &bits, sizeof(value));
  return value;
}
#elif defined(__CUDACC__)  // the host compiler reads declarations beside these
__device__ __forceinline__ float half_value(unsigned half) {
  float value = 0.0F;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<std::uint16_t>(half)));
  return value;
}
#endif
__device__ inline float half_at(const std::uint8_t* from, Index output) {
  return half_value(*reinterpret_cast<const std::uint16_t*>(from + 2 * output));
}

// A format's constants, which a kernel cannot ask layout_of for.
template <WeightFormat kFormat>
struct FormatOf {
  static constexpr int kBits = layout_of(kFormat).bits;
  static constexpr int kCodes = kBits * 64;
  static constexpr int kZero = zero_of(kFormat);
  static constexpr Index kHeader = layout_of(kFormat).header;
  static constexpr Index kSuper = layout_of(kFormat).super;
  static constexpr Index kBytes = layout_of(kFormat).cell();
  static constexpr Index kBlock = kSuper + kSuperCells * kBytes;
};

// Offsets inside a group.
template <WeightFormat kFormat>
__device__ Index super_offset(Index cell) {
  return FormatOf<kFormat>::kHeader + cell / kSuperCells * FormatOf<kFormat>::kBlock;
}
template <WeightFormat kFormat>
__device__ Index cell_offset(Index cell) {
  return super_offset<kFormat>(cell) + FormatOf<kFormat>::kSuper +
         cell % kSuperCells * FormatOf<kFormat>::kBytes;
}

template <WeightFormat kFormat>
__device__ unsigned code_at(const std::uint8_t* cell, Index output, Index k) {
  constexpr int kBits = FormatOf<kFormat>::kBits;
  const Index quad = k / 4;
  const Index at = 4 * output + k % 4;
  if constexpr (kBits == 8) {
    return cell[quad * 64 + at];
  } else {
    const unsigned low = cell[quad % 4 * 64 + at] >> (quad / 4 * 4) & 15U;
    if constexpr (kBits == 4) {
      return low;
    } else {
      const unsigned high = kBits == 5 ? cell[256 + at] >> quad & 1U
                                       : cell[256 + quad / 4 * 64 + at] >> (quad % 4 * 2) & 3U;
      return low | high << 4;
    }
  }
}

// The outputs of a group by input k.
__device__ inline const std::uint16_t* bf16_outputs(const WeightImage& a, Index group, Index k) {
  const std::uint8_t* const from = a.data +
                                   group / kGroupsTogether * kGroupsTogether * a.group_bytes +
                                   group % kGroupsTogether * kGroup * 2;
  return reinterpret_cast<const std::uint16_t*>(from) + k * kGroupsTogether * kGroup;
}

// What weight_format.h says of a format: a kernel cannot call it, be it for a constant.
template <WeightFormat kFormat>
inline constexpr bool kIsFp8 = is_fp8(kFormat);
template <WeightFormat kFormat>
inline constexpr bool kHasZeros = has_zeros(kFormat);
template <WeightFormat kFormat>
inline constexpr bool kIsOrdered = is_ordered(kFormat);

// Of fp8: codes by input and output, scales of four cells before eight of them.
template <WeightFormat kFormat>
__device__ float fp8_at(const WeightImage& a, Index group, Index cell, Index output, Index k) {
  const std::uint8_t* const base = a.data + group * a.group_bytes;
  const unsigned code = base[cell_offset<kFormat>(cell) + k * kGroup + output];
  const auto* const scales = reinterpret_cast<const float*>(base + super_offset<kFormat>(cell) +
                                                            cell % kSuperCells / kFp8Cells * 64);
  const unsigned half =
      kFormat == WeightFormat::fp8_e5m2 ? code << 8 : (code & 0x80U) << 8 | (code & 0x7fU) << 7;
  return scales[output] * half_value(half);
}

// Of formats with zeros: the scale and the zero of the cell, or of the input's entry.
template <WeightFormat kFormat>
__device__ float grouped_at(const WeightImage& a, Index group, Index cell, Index output, Index k) {
  const std::uint8_t* const base = a.data + group * a.group_bytes;
  const std::uint8_t* const from = base + cell_offset<kFormat>(cell);
  const std::uint8_t* scales = from + FormatOf<kFormat>::kCodes;
  const auto code = static_cast<int>(code_at<kFormat>(from, output, k));
  if constexpr (kIsOrdered<kFormat>) {
    const Index entry = reinterpret_cast<const std::uint16_t*>(scales + kEntriesAt)[k];
    scales = base + cell_offset<kFormat>(entry) + FormatOf<kFormat>::kCodes;
  }
  return half_at(scales, output) *
         static_cast<float>(code - static_cast<int>(scales[kZerosAt + output]));
}

// A weight in fp32, with the roundings that weight_format.h states; `table`: load_table's.
template <WeightFormat kFormat>
__device__ float value_at(const WeightImage& a, const float* table, Index group, Index cell,
                          Index output, Index k) {
  if constexpr (kIsFp8<kFormat>) return fp8_at<kFormat>(a, group, cell, output, k);
  if constexpr (kHasZeros<kFormat>) return grouped_at<kFormat>(a, group, cell, output, k);
  const std::uint8_t* const base = a.data + group * a.group_bytes;
  const std::uint8_t* const from = base + cell_offset<kFormat>(cell);
  const std::uint8_t* const scales = from + FormatOf<kFormat>::kCodes;
  const std::uint8_t* const super = base + super_offset<kFormat>(cell);
  const unsigned code = code_at<kFormat>(from, output, k);
  const auto number = static_cast<float>(static_cast<int>(code) - FormatOf<kFormat>::kZero);
  if constexpr (kFormat == WeightFormat::nf4) {
    return reinterpret_cast<const float*>(scales)[output] * table[code];
  } else if constexpr (kFormat == WeightFormat::int8_channel) {
    return reinterpret_cast<const float*>(base)[output] * number;
  } else if constexpr (kFormat == WeightFormat::int4_group) {
    return half_at(scales, output) * number + half_at(scales + 32, output);
  } else if constexpr (kFormat == WeightFormat::q4_k || kFormat == WeightFormat::q5_k) {
    const float scale = half_at(super, output) * static_cast<float>(scales[output]);
    const float least = half_at(super + 32, output) * static_cast<float>(scales[16 + output]);
    return scale * number - least;
  } else if constexpr (kFormat == WeightFormat::q6_k) {
    const auto own = static_cast<std::int8_t>(scales[k / 16 * 16 + output]);
    return half_at(super, output) * static_cast<float>(own) * number;
  } else {
    return half_at(scales, output) * number;
  }
}

}  // namespace tutti::kernels::cuda
