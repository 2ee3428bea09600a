// Tensor-core products of bf16 tiles and the loads that feed them (PTX: mma.sync, ldmatrix), one
// warp together; for kernels.
//
// Fragments, with g = lane / 4 and t = lane % 4, pairs of numbers in one register, the lower index
// in the lower half:
//   A 16 x 16:  [0] row g, columns 2t..   [1] row g + 8   [2] row g, columns 2t + 8..   [3] row g +
//   8, columns 2t + 8.. B 16 x 8:   [0] rows 2t.., column g   [1] rows 2t + 8.., column g C 16 x 8:
//   [0],[1] row g, columns 2t..   [2],[3] row g + 8
// The emulation's versions are a reading of the PTX manual; that the hardware agrees is for
// ops/gpu/check to show.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cuda/async_copy.h"
#include "kernels/cuda/launch.h"

namespace tutti::kernels::cuda {

// bf16 as its bits; arithmetic is in fp32.
using Bf16 = std::uint16_t;
// What fp32 numbers are rounded to.
enum class Narrow { bf16, fp16 };

// Round to nearest, ties to even; a NaN stays one.
__device__ __forceinline__ Bf16 to_bf16(float x) {
  unsigned bits = 0;
  memcpy(&bits, &x, sizeof(bits));
  if (x != x) return static_cast<Bf16>(bits >> 16 | 0x40U);
  return static_cast<Bf16>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}
__device__ __forceinline__ float from_bf16(Bf16 x) {
  const unsigned bits = static_cast<unsigned>(x) << 16;
  float value = 0.0F;
  memcpy(&value, &bits, sizeof(value));
  return value;
}
#ifdef TUTTI_CUDA_EMULATION

// The bits of the nearest binary16, as fp16.h has its value.
inline std::uint16_t to_fp16(float x) {
  unsigned bits = 0;
  memcpy(&bits, &x, sizeof(bits));
  const unsigned sign = bits >> 16 & 0x8000U;
  const unsigned magnitude = bits & 0x7fffffffU;
  const unsigned nearest = magnitude + 0x0fffU + (magnitude >> 13 & 1U);
  if (nearest >= 0x47800000U) return static_cast<std::uint16_t>(sign | 0x7c00U);
  constexpr unsigned kBias = (127U - 15U) << 23;
  if (magnitude >= 0x38800000U) return static_cast<std::uint16_t>(sign | (nearest - kBias) >> 13);
  // Below 2^-14: how many times 2^-24, which is the last bit of what lies from a half to one.
  const float shifted = fabsf(x) + 0.5F;
  memcpy(&bits, &shifted, sizeof(bits));
  return static_cast<std::uint16_t>(sign | (bits & 0x7ffU));
}

// Two numbers rounded to the nearest, ties to even, by one instruction; any NaN becomes the
// hardware's one, unlike to_bf16's.
inline constexpr unsigned kHalfNan = 0x7fffU;
inline unsigned pack_bf16(float low, float high) {
  const auto half = [](float x) { return x != x ? kHalfNan : to_bf16(x); };
  return half(low) | half(high) << 16;
}
inline unsigned pack_fp16(float low, float high) {
  const auto half = [](float x) { return x != x ? kHalfNan : to_fp16(x); };
  return half(low) | half(high) << 16;
}

struct MatrixLoad {
  unsigned* registers;
  const Bf16* row;
};

// The four 8 x 8 matrices whose rows the lanes name, eight lanes a matrix.
template <bool kTurned>
inline void load_matrices(unsigned (&registers)[4], const Bf16* row) {
  ::tutti::emulation::require_aligned(row, 16, "ldmatrix");
  MatrixLoad own{registers, row};
  ::tutti::emulation::meet_warp(
      &own,
      [](void** operands) {
        const auto at = [&](unsigned matrix, unsigned r, unsigned c) {
          return static_cast<unsigned>(static_cast<MatrixLoad*>(operands[8 * matrix + r])->row[c]);
        };
        for (unsigned lane = 0; lane < kWarp; ++lane) {
          const unsigned g = lane / 4;
          const unsigned t = lane % 4;
          for (unsigned m = 0; m < 4; ++m) {
            const unsigned low = kTurned ? at(m, 2 * t, g) : at(m, g, 2 * t);
            const unsigned high = kTurned ? at(m, 2 * t + 1, g) : at(m, g, 2 * t + 1);
            static_cast<MatrixLoad*>(operands[lane])->registers[m] = low | high << 16;
          }
        }
      },
      "ldmatrix");
}

struct TileProduct {
  float* c;
  const unsigned* a;
  const unsigned* b;
};

// c += a b. The hardware's order within the sixteen terms is its own; this one is ascending.
inline void multiply_tiles(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  const unsigned b[2] = {b0, b1};
  TileProduct own{c, a, b};
  ::tutti::emulation::meet_warp(
      &own,
      [](void** operands) {
        const auto half = [](unsigned packed, unsigned i) {
          return from_bf16(static_cast<Bf16>(i == 0 ? packed & 0xffffU : packed >> 16));
        };
        float left[16][16];
        float right[16][8];
        for (unsigned lane = 0; lane < kWarp; ++lane) {
          const auto* const one = static_cast<TileProduct*>(operands[lane]);
          const unsigned g = lane / 4;
          const unsigned t = lane % 4;
          for (unsigned i = 0; i < 2; ++i) {
            left[g][2 * t + i] = half(one->a[0], i);
            left[g + 8][2 * t + i] = half(one->a[1], i);
            left[g][2 * t + 8 + i] = half(one->a[2], i);
            left[g + 8][2 * t + 8 + i] = half(one->a[3], i);
            right[2 * t + i][g] = half(one->b[0], i);
            right[2 * t + 8 + i][g] = half(one->b[1], i);
          }
        }
        for (unsigned lane = 0; lane < kWarp; ++lane) {
          auto* const one = static_cast<TileProduct*>(operands[lane]);
          for (unsigned i = 0; i < 4; ++i) {
            const unsigned row = lane / 4 + (i < 2 ? 0 : 8);
            const unsigned column = 2 * (lane % 4) + i % 2;
            float sum = one->c[i];
            for (unsigned k = 0; k < 16; ++k) sum = fmaf(left[row][k], right[k][column], sum);
            one->c[i] = sum;
          }
        }
      },
      "mma.sync");
}

inline float exp2_fast(float x) { return std::exp2(x); }

#elif defined(__CUDACC__)  // the host compiler reads declarations beside these

__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
  unsigned packed = 0;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
__device__ __forceinline__ unsigned pack_fp16(float low, float high) {
  unsigned packed = 0;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

template <bool kTurned>
__device__ __forceinline__ void load_matrices(unsigned (&registers)[4], const Bf16* row) {
  const unsigned address = shared_address(row);
  if constexpr (kTurned) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address));
  }
}

__device__ __forceinline__ void multiply_tiles(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                               unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ float exp2_fast(float x) {
  float y = 0.0F;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#endif

#if defined(TUTTI_CUDA_EMULATION) || defined(__CUDACC__)
// As products read it: any NaN becomes the hardware's one.
__device__ __forceinline__ std::uint16_t narrowed(float x, Narrow narrow) {
  const unsigned pair = narrow == Narrow::bf16 ? pack_bf16(x, 0.0F) : pack_fp16(x, 0.0F);
  return static_cast<std::uint16_t>(pair & 0xffffU);
}
#endif

}  // namespace tutti::kernels::cuda
