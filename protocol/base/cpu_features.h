// Which instructions beyond x86-64-v3 this process may use: what kernels choose paths by, and
// workers tell numerics profiles by.
//
// Threads: any.
#pragma once

namespace tutti {

// F, VL, BW, DQ, CD.
bool has_avx512();
// With them, dot products of bf16 pairs and of int8 quads.
bool has_avx512_bf16();
// Products of tiles; the first call of either asks the system for their registers.
bool has_amx_bf16();
bool has_amx_int8();

}  // namespace tutti
