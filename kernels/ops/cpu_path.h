// Which instruction set the CPU kernels use: chosen once, by what the machine has, or by
// TUTTI_CPU=avx2|avx512.
//
// Both paths give the same bits (the `portable` numerics profile); the choice is about speed only,
// and is printed by whoever reports the machine.
#pragma once

#include <string_view>

#include "protocol/base/result.h"

namespace tutti::kernels {

enum class CpuPath { avx2, avx512 };

bool cpu_has(CpuPath path);
std::string_view to_string(CpuPath path);

// The path in use. A TUTTI_CPU that the machine lacks, or of another value, is fatal: a path is
// never swapped silently.
CpuPath cpu_path();

// For tests and benchmarks, between ops. Errors: unsupported.
Result<> choose_cpu_path(CpuPath path);

}  // namespace tutti::kernels
