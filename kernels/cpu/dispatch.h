// Calls a kernel on the chosen path: each kernel file is compiled for AVX2, for AVX-512 and for
// scalars by Highway's foreach_target.
//
//   #if HWY_ONCE
//   Result<> op(...) { return TUTTI_CPU_CALL(op_kernel)(...); }
//   #endif
//
// Highway's own table would choose by CPUID alone; ours also follows TUTTI_CPU and choose_cpu_path
// (ops/cpu_path.h). Of Highway's scalar target only the name is used (scalar-inl.h).
#pragma once

#include <string>

#include "kernels/ops/cpu_path.h"
#include "kernels/tensor/op_context.h"

namespace tutti::kernels {

template <class Function>
Function* of_path(Function* scalar, Function* avx2, Function* avx512) {
  switch (cpu_path()) {
    case CpuPath::scalar: return scalar;
    case CpuPath::avx2: return avx2;
    case CpuPath::avx512:
    case CpuPath::avx512bf16: return avx512;
  }
  return scalar;
}

// For ops that no device has. Errors: unsupported.
inline Result<> only_on_cpu(const OpContext& ctx, const char* op) {
  if (ctx.device == nullptr) return {};
  return Error{ErrorCode::unsupported, std::string(op) + ": runs on CPUs only"};
}

}  // namespace tutti::kernels

#define TUTTI_CPU_CALL(function) \
  ::tutti::kernels::of_path(&N_SCALAR::function, &N_AVX2::function, &N_AVX3::function)
