// Which instruction set the CPU kernels use: chosen once, by what the machine has, or by
// TUTTI_CPU=scalar|avx2|avx512|avx512bf16.
//
//   scalar      one lane after the other with fused multiply-adds: what the others are checked by
//   avx2        AVX2 and FMA
//   avx512      AVX-512 F, VL, BW, DQ, CD; dot products of int8 quads (VNNI) where the CPU has them
//   avx512bf16  the same, with them; pairs of bf16 (AVX512-BF16); int8 by tiles (AMX) where it can
//
// All paths give the same bits for fp32 and for integer sums (the `portable` numerics profile).
// Products of bf16 by bf16 with the native instruction are a profile of their own
// (product_bf16.h). The choice is printed by whoever reports the machine.
#pragma once

#include <array>
#include <string_view>

#include "protocol/base/result.h"

namespace tutti::kernels {

enum class CpuPath { scalar, avx2, avx512, avx512bf16 };

// Slowest first.
inline constexpr std::array kCpuPaths = {CpuPath::scalar, CpuPath::avx2, CpuPath::avx512,
                                         CpuPath::avx512bf16};

bool cpu_has(CpuPath path);
std::string_view to_string(CpuPath path);

// The path in use. A TUTTI_CPU that the machine lacks, or of another value, is fatal: a path is
// never swapped silently.
CpuPath cpu_path();

// For tests and benchmarks, between ops. Errors: unsupported.
Result<> choose_cpu_path(CpuPath path);

}  // namespace tutti::kernels
