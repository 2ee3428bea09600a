// Outputs that are written past the caches.
//
// An ordinary store reads the line that it changes: of an op that makes one matrix of another, a
// third of what memory moves is for nothing. A streamed one does not, but the op behind finds in no
// cache what was written. So that is for outputs that no cache could have kept for it: of more than
// half of the third cache, where what the op reads lies beside them. Never for an output that takes
// the place of an input, whose lines have been read.
//
// Bits are the same. Streamed stores are not in order with others: each task ends its own, before
// the pool says that it is done.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "kernels/cpu/caches/caches.h"

namespace tutti::kernels {

enum class Writes { cached, streamed };

// A larger third cache is shared by more cores than one rank has, and is read as slowly as memory
// (18 and 17 GB/s of a Xeon's 480 MB).
inline constexpr Index kThirdBytesMax = Index{64} << 20;

// Of `count` elements from `output` on, an op's whole output.
template <class T>
Writes writes_to(const T* output, Index count, std::initializer_list<const void*> read) {
  const Index held = std::min(caches().third_bytes, kThirdBytesMax) / 2;
  const bool aligned = reinterpret_cast<std::uintptr_t>(output) % 64 == 0;
  const bool apart = std::find(read.begin(), read.end(), output) == read.end();
  const bool large = count * static_cast<Index>(sizeof(T)) > held;
  return aligned && apart && large ? Writes::streamed : Writes::cached;
}
// Whose rows all begin with a line.
template <class T>
Writes writes_to(const BasicMatrix<T>& output, std::initializer_list<const void*> read) {
  const bool whole_lines = output.stride * static_cast<Index>(sizeof(T)) % 64 == 0;
  return whole_lines ? writes_to(output.data, output.rows * output.columns, read) : Writes::cached;
}

inline void end_writes(Writes writes) {
  if (writes == Writes::streamed) _mm_sfence();
}

// What an op computes some at a time, into a buffer that the first cache holds, and streams.
inline constexpr Index kStreamedTogether = 1024;

// `to` is at a multiple of 32 bytes.
template <class T>
void stream_copy(const T* from, T* to, Index count) {
  constexpr Index kTogether = 32 / static_cast<Index>(sizeof(T));
  Index i = 0;
  for (; i + kTogether <= count; i += kTogether) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i)));
  }
  for (; i < count; ++i) to[i] = from[i];
}

// compute(first, count, to): elements [first, +count) of [begin, end) into `to`, which is
// output + first or, streamed, a buffer.
template <class T, class Compute>
void write_stretches(T* output, Index begin, Index end, Writes writes, const Compute& compute) {
  if (writes == Writes::cached) return compute(begin, end - begin, output + begin);
  alignas(64) T buffer[kStreamedTogether];
  for (Index first = begin; first < end; first += kStreamedTogether) {
    const Index count = std::min(kStreamedTogether, end - first);
    compute(first, count, buffer);
    stream_copy(buffer, output + first, count);
  }
}

}  // namespace tutti::kernels
