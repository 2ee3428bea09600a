// Calls a kernel on the chosen path: each kernel file is compiled for AVX2 and for AVX-512 by
// Highway's foreach_target.
//
//   #if HWY_ONCE
//   Result<> op(...) { return TUTTI_CPU_CALL(op_kernel)(...); }
//   #endif
//
// Highway's own table would choose by CPUID alone; ours also follows TUTTI_CPU and choose_cpu_path
// (ops/cpu_path.h).
#pragma once

#include "kernels/ops/cpu_path.h"

#define TUTTI_CPU_CALL(function)                                                         \
  (::tutti::kernels::cpu_path() == ::tutti::kernels::CpuPath::avx512 ? &N_AVX3::function \
                                                                     : &N_AVX2::function)
