// XXH3-128 of fp32 blocks by one thread block (Collet, XXH3, specification of xxHash 0.8, seed 0);
// for kernels.
//
// The long form adds, for each KiB, sixteen stripes of 64 bytes into eight accumulators, and mixes
// them after each KiB. Additions of a KiB may be made in any order, so warps take one KiB each; the
// mixing is a chain of at most 256 short steps, made by eight threads at the end. A lane has the
// same sixteen bytes of each half KiB, and so the same four words of the secret, in registers.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"

namespace tutti::kernels::cuda {

using Word = unsigned long long;

inline constexpr int kSecretWords = 24;
// The algorithm's constant secret, 192 bytes, as little-endian words.
__constant__ const Word kSecret[kSecretWords] = {
    0xbe4ba423396cfeb8ULL, 0x1cad21f72c81017cULL, 0xdb979083e96dd4deULL, 0x1f67b3b7a4a44072ULL,
    0x78e5c0cc4ee679cbULL, 0x2172ffcc7dd05a82ULL, 0x8e2443f7744608b8ULL, 0x4c263a81e69035e0ULL,
    0xcb00c391bb52283cULL, 0xa32e531b8b65d088ULL, 0x4ef90da297486471ULL, 0xd8acdea946ef1938ULL,
    0x3f349ce33f76faa8ULL, 0x1d4f0bc7c7bbdcf9ULL, 0x3159b4cd4be0518aULL, 0x647378d9c97e9fc8ULL,
    0xc3ebd33483acc5eaULL, 0xeb6313faffa081c5ULL, 0x49daf0b751dd0d17ULL, 0x9e68d429265516d3ULL,
    0xfca1477d58be162bULL, 0xce31d07ad1b8f88fULL, 0x280416958f3acb45ULL, 0x7e404bbbcafbd7afULL};

inline constexpr Word kPrime32a = 0x9E3779B1U;
inline constexpr Word kPrime32b = 0x85EBCA77U;
inline constexpr Word kPrime32c = 0xC2B2AE3DU;
inline constexpr Word kPrime64a = 0x9E3779B185EBCA87ULL;
inline constexpr Word kPrime64b = 0xC2B2AE3D27D4EB4FULL;
inline constexpr Word kPrime64c = 0x165667B19E3779F9ULL;
inline constexpr Word kPrime64d = 0x85EBCA77C2B2AE63ULL;
inline constexpr Word kPrime64e = 0x27D4EB2F165667C5ULL;

struct Hash {
  Word low, high;
};

// Eight bytes of the secret, from any byte on.
__device__ inline Word secret_at(unsigned byte) {
  const unsigned shift = byte % 8 * 8;
  const Word first = kSecret[byte / 8] >> shift;
  return shift == 0 ? first : first | kSecret[byte / 8 + 1] << (64 - shift);
}

__device__ inline Hash multiply_wide(Word a, Word b) {
  return {a * b, static_cast<Word>(__umul64hi(a, b))};
}
__device__ inline Word fold(Word a, Word b) {
  const Hash product = multiply_wide(a, b);
  return product.low ^ product.high;
}
__device__ inline Word avalanche(Word h) {
  h ^= h >> 37;
  h *= 0x165667919E3779F9ULL;
  return h ^ h >> 32;
}

// Numbers of the block as the hash reads them: 32 and 64 bits at a float's place.
struct HashInput {
  const std::uint32_t* words;
  unsigned bytes;

  __device__ Word half(unsigned byte) const { return words[byte / 4]; }
  __device__ Word at(unsigned byte) const { return half(byte) | half(byte + 4) << 32; }
  // Zeros where they are not all there.
  __device__ __forceinline__ uint4 sixteen(unsigned byte) const {
    if (byte + 16 > bytes) return {0, 0, 0, 0};
    const std::uint32_t* const from = words + byte / 4;
    if (reinterpret_cast<std::uintptr_t>(from) % sizeof(uint4) == 0) {
      return *reinterpret_cast<const uint4*>(from);
    }
    return {from[0], from[1], from[2], from[3]};
  }
};

__device__ inline void mix_pair(Hash& sum, const HashInput& in, unsigned first, unsigned second,
                                unsigned secret) {
  sum.low += fold(in.at(first) ^ secret_at(secret), in.at(first + 8) ^ secret_at(secret + 8));
  sum.low ^= in.at(second) + in.at(second + 8);
  sum.high +=
      fold(in.at(second) ^ secret_at(secret + 16), in.at(second + 8) ^ secret_at(secret + 24));
  sum.high ^= in.at(first) + in.at(first + 8);
}

__device__ inline Hash finish_medium(const Hash& sum, unsigned bytes) {
  const Word high = sum.low * kPrime64a + sum.high * kPrime64d + bytes * kPrime64b;
  return {avalanche(sum.low + sum.high), 0 - avalanche(high)};
}

__device__ inline Hash hash_up_to_16(const HashInput& in) {
  const unsigned n = in.bytes;
  if (n > 8) {
    const Word low = in.at(0);
    const Word high = in.at(n - 8) ^ (secret_at(48) ^ secret_at(56));
    Hash m = multiply_wide(low ^ in.at(n - 8) ^ (secret_at(32) ^ secret_at(40)), kPrime64a);
    m.low += static_cast<Word>(n - 1) << 54;
    m.high += high + (high & 0xffffffffU) * (kPrime32b - 1);
    Word swapped = 0;
    for (int byte = 0; byte < 8; ++byte)
      swapped |= (m.high >> (8 * byte) & 0xff) << (56 - 8 * byte);
    m.low ^= swapped;
    Hash h = multiply_wide(m.low, kPrime64b);
    h.high += m.high * kPrime64b;
    return {avalanche(h.low), avalanche(h.high)};
  }
  const Word keyed = (in.half(0) + (in.half(n - 4) << 32)) ^ (secret_at(16) ^ secret_at(24));
  Hash m = multiply_wide(keyed, kPrime64a + (static_cast<Word>(n) << 2));
  m.high += m.low << 1;
  m.low ^= m.high >> 3;
  m.low ^= m.low >> 35;
  m.low *= 0x9FB21C651E98DF25ULL;
  m.low ^= m.low >> 28;
  return {m.low, avalanche(m.high)};
}

// Up to 240 bytes, by one thread.
__device__ inline Hash hash_short(const HashInput& in) {
  const unsigned n = in.bytes;
  if (n <= 16) return hash_up_to_16(in);
  Hash sum{n * kPrime64a, 0};
  if (n <= 128) {
    for (unsigned part = (n - 1) / 32; part > 0; --part) {
      mix_pair(sum, in, 16 * part, n - 16 - 16 * part, 32 * part);
    }
    mix_pair(sum, in, 0, n - 16, 0);
    return finish_medium(sum, n);
  }
  for (unsigned i = 0; i < 4; ++i) mix_pair(sum, in, 32 * i, 32 * i + 16, 32 * i);
  sum = {avalanche(sum.low), avalanche(sum.high)};
  for (unsigned i = 4; i < n / 32; ++i) mix_pair(sum, in, 32 * i, 32 * i + 16, 3 + 32 * (i - 4));
  mix_pair(sum, in, n - 16, n - 32, 103);
  return finish_medium(sum, n);
}

inline constexpr unsigned kHashThreads = 256;
inline constexpr unsigned kKibsMax = 256;  // of a grid block
inline constexpr unsigned kAccumulators = 8;
inline constexpr unsigned kStripesInKib = 16;

// Sixteen bytes as two words by two of the secret, added to two accumulators.
__device__ __forceinline__ void add_words(Word a, Word b, const Word (&secret)[2], Word* sums) {
  const Word a_keyed = a ^ secret[0];
  const Word b_keyed = b ^ secret[1];
  sums[0] += b + (a_keyed & 0xffffffffU) * (a_keyed >> 32);
  sums[1] += a + (b_keyed & 0xffffffffU) * (b_keyed >> 32);
}

__device__ inline Word merge_accumulators(const Word* a, unsigned secret, Word start) {
  for (unsigned i = 0; i < 4; ++i) {
    start +=
        fold(a[2 * i] ^ secret_at(secret + 16 * i), a[2 * i + 1] ^ secret_at(secret + 16 * i + 8));
  }
  return avalanche(start);
}

// All kHashThreads threads of the block call it; thread 0 has the result. `sums` is shared:
// kKibsMax * kAccumulators. sixteen(byte) gives a lane the sixteen bytes from there on, once for
// each that the block has any of; what it leaves in memory is read again at the end.
template <class Sixteen>
__device__ __forceinline__ Hash hash_by_block(const HashInput& in, Word* sums,
                                              const Sixteen& sixteen) {
  const unsigned thread = threadIdx.x;
  const unsigned kibs = (in.bytes - 1) / 1024;  // whole, mixed after
  const unsigned stripes = (in.bytes - 1 - 1024 * kibs) / 64;
  const unsigned lane = thread % kWarp;
  Word secret[2][2];
  for (unsigned half = 0; half < 2; ++half) {
    for (unsigned i = 0; i < 2; ++i) {
      secret[half][i] = kSecret[lane / 4 + 2 * (lane % 4) + 8 * half + i];
    }
  }
  for (unsigned kib = thread / kWarp; kib <= kibs; kib += kHashThreads / kWarp) {
    const unsigned count = kib < kibs ? kStripesInKib : stripes;
    Word own[2] = {0, 0};
    for (unsigned half = 0; half < 2; ++half) {
      const unsigned byte = 1024 * kib + 512 * half + 16 * lane;
      if (byte >= in.bytes) continue;
      const uint4 w = sixteen(byte);
      if (lane / 4 + 8 * half >= count) continue;
      add_words(w.x | Word{w.y} << 32, w.z | Word{w.w} << 32, secret[half], own);
    }
    for (unsigned by = 4; by < kWarp; by *= 2) {
      own[0] += __shfl_xor_sync(kAllLanes, own[0], by);
      own[1] += __shfl_xor_sync(kAllLanes, own[1], by);
    }
    if (lane < 4) {
      sums[kib * kAccumulators + 2 * lane] = own[0];
      sums[kib * kAccumulators + 2 * lane + 1] = own[1];
    }
  }
  __syncthreads();
  if (in.bytes <= 240) return thread == 0 ? hash_short(in) : Hash{0, 0};
  if (thread < kAccumulators) {
    const Word starts[kAccumulators] = {kPrime32c, kPrime64a, kPrime64b, kPrime64c,
                                        kPrime64d, kPrime32b, kPrime64e, kPrime32a};
    const Word key = secret_at(128 + 8 * thread);
    Word a = starts[thread];
    for (unsigned kib = 0; kib < kibs; ++kib) {
      a += sums[kib * kAccumulators + thread];
      a = (a ^ a >> 47 ^ key) * kPrime32a;
    }
    a += sums[kibs * kAccumulators + thread];
    sums[thread] = a;
  }
  __syncthreads();
  if (thread != 0) return {0, 0};
  for (unsigned p = 0; p < 4; ++p) {
    const unsigned byte = in.bytes - 64 + 16 * p;
    const Word last[2] = {secret_at(121 + 16 * p), secret_at(121 + 16 * p + 8)};
    add_words(in.at(byte), in.at(byte + 8), last, sums + 2 * p);
  }
  const Word length = in.bytes;
  return {merge_accumulators(sums, 11, length * kPrime64a),
          merge_accumulators(sums, 117, ~(length * kPrime64b))};
}

}  // namespace tutti::kernels::cuda
