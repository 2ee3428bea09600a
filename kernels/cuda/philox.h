// Philox 4x32-10 for kernels: the words of kernels/ops/random.h, from the same keys.
#pragma once

#include "kernels/cuda/launch.h"

namespace tutti::kernels::cuda {

// Half-words of a draw: so many elements take one.
inline constexpr unsigned kInDraw = 8;

struct PhiloxWords {
  __device__ __forceinline__ unsigned half(unsigned i) const {
    return i % 2 == 0 ? word[i / 2] & 0xffffU : word[i / 2] >> 16;
  }
  unsigned word[4];
};

// Counter (index, purpose), key seed; constants of Salmon et al. 2011.
__device__ __forceinline__ PhiloxWords philox(unsigned long long seed, unsigned long long purpose,
                                              unsigned long long index) {
  PhiloxWords c = {{static_cast<unsigned>(index), static_cast<unsigned>(index >> 32),
                    static_cast<unsigned>(purpose), static_cast<unsigned>(purpose >> 32)}};
  auto k0 = static_cast<unsigned>(seed);
  auto k1 = static_cast<unsigned>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const unsigned a_high = __umulhi(0xD2511F53U, c.word[0]);
    const unsigned a_low = 0xD2511F53U * c.word[0];
    const unsigned b_high = __umulhi(0xCD9E8D57U, c.word[2]);
    const unsigned b_low = 0xCD9E8D57U * c.word[2];
    c = {{b_high ^ c.word[1] ^ k0, b_low, a_high ^ c.word[3] ^ k1, a_low}};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return c;
}

}  // namespace tutti::kernels::cuda
