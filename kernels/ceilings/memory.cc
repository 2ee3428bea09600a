// Reading, copying and updating: each by several loops, as no single one is the fastest on every
// machine. One stream is what the prefetcher likes best on some, two or four on others, and on
// others again only asking ahead keeps enough lines under way.
#include <immintrin.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <functional>
#include <vector>

#include "kernels/ceilings/ceilings.h"
#include "kernels/ceilings/fastest.h"
#include "kernels/ceilings/thread_parts.h"
#include "kernels/ops/cpu_path.h"

namespace tutti::kernels {

namespace {

constexpr Index kLine = 16;              // floats of a cache line
constexpr Index kAheadFloats = 256;      // 1 KiB; twice or four times that differ little
constexpr Index kPieceFloats = 1 << 18;  // a loop's streams lie within one

// A line in one register or in two, as the instructions of the function that uses it allow.
using Line = float __attribute__((vector_size(64)));

inline __attribute__((always_inline)) void load(Line& line, const float* from) {
  std::memcpy(&line, from, sizeof(line));
}

enum class Ahead { machine, asked };

template <int kStreams, Ahead kAhead>
inline __attribute__((always_inline)) float read_streams(const float* from, Index floats) {
  const Index each = floats / kStreams / (2 * kLine) * (2 * kLine);
  Line sums[4] = {};
  for (Index i = 0; i < each; i += 2 * kLine) {
    for (int stream = 0; stream < kStreams; ++stream) {
      const float* const at = from + stream * each + i;
      if constexpr (kAhead == Ahead::asked) {
        __builtin_prefetch(at + kAheadFloats);
        __builtin_prefetch(at + kAheadFloats + kLine);
      }
      Line low;
      Line high;
      load(low, at);
      load(high, at + kLine);
      sums[stream % 2 * 2] += low;
      sums[stream % 2 * 2 + 1] += high;
    }
  }
  return (sums[0] + sums[1] + sums[2] + sums[3])[0];
}

using Read = float (*)(const float* from, Index floats);
template <int kStreams, Ahead kAhead>
float read_ymm(const float* from, Index floats) {
  return read_streams<kStreams, kAhead>(from, floats);
}
template <int kStreams, Ahead kAhead>
__attribute__((target("avx512f"))) float read_zmm(const float* from, Index floats) {
  return read_streams<kStreams, kAhead>(from, floats);
}

constexpr Read kReadsYmm[] = {read_ymm<1, Ahead::machine>, read_ymm<2, Ahead::machine>,
                              read_ymm<4, Ahead::machine>, read_ymm<1, Ahead::asked>,
                              read_ymm<4, Ahead::asked>};
constexpr Read kReadsZmm[] = {read_zmm<1, Ahead::machine>, read_zmm<2, Ahead::machine>,
                              read_zmm<4, Ahead::machine>, read_zmm<1, Ahead::asked>,
                              read_zmm<4, Ahead::asked>};

bool wide() { return cpu_path() == CpuPath::avx512 || cpu_path() == CpuPath::avx512bf16; }

// `run` over the first `floats` of each part, in pieces.
template <class Run>
void each_piece(const ThreadParts& memory, Index floats, const Run& run) {
  memory.each([&](std::span<float> own) {
    for (Index first = 0; first < floats; first += kPieceFloats) {
      run(own.data() + first, std::min(kPieceFloats, floats - first));
    }
  });
}

Ceiling read_ceiling(ThreadPool& pool, const MeasureTime& time, Index floats, Pages pages) {
  if (monotonic_now() >= time.until) return std::nullopt;
  const ThreadParts memory(pool, floats, pages);
  const Index each = memory.floats() / pool.threads();
  std::vector<std::function<void()>> loops;
  for (const Read read : wide() ? kReadsZmm : kReadsYmm) {
    loops.push_back([&, read] {
      each_piece(memory, each, [&](const float* from, Index count) {
        volatile float keep = read(from, count);
        static_cast<void>(keep);
      });
    });
  }
  return rate_of(static_cast<double>(memory.floats()) * sizeof(float), fastest(pool, time, loops));
}

// To elsewhere, through the caches and past them, or back to where it came from.
enum class Write { elsewhere, past_caches, back };

template <Write kWrite, int kStreams = 1>
void copy(const float* from, float* to, Index floats) {
  if constexpr (kWrite == Write::elsewhere) {
    std::memcpy(to, from, static_cast<std::size_t>(floats) * sizeof(float));
    return;
  }
  const Index each = floats / kStreams / kLine * kLine;
  for (Index i = 0; i < each; i += kLine) {
    for (int stream = 0; stream < kStreams; ++stream) {
      const Index at = stream * each + i;
      if constexpr (kWrite == Write::past_caches) {
        for (Index v = at; v < at + kLine; v += 4) _mm_stream_ps(to + v, _mm_loadu_ps(from + v));
      } else {
        Line line;
        load(line, from + at);
        line *= 0.5F;
        std::memcpy(to + at, &line, sizeof(line));
      }
    }
  }
  _mm_sfence();
}

using Copy = void (*)(const float* from, float* to, Index floats);

Index cache_floats(int name) {
  const long bytes = ::sysconf(name);
  return bytes > 0 ? bytes / static_cast<Index>(sizeof(float)) : 0;
}

// The one that a core has: some C libraries count all of a socket, of which a core fills its own
// alone.
Index third_cache_floats() {
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index3/size");
  Index kib = 0;
  char unit = 0;
  if (file >> kib >> unit && unit == 'K' && kib > 0) {
    return kib * 1024 / static_cast<Index>(sizeof(float));
  }
  return cache_floats(_SC_LEVEL3_CACHE_SIZE);
}

// More than two third caches, but not of a machine whose cache is larger than our patience.
Index memory_floats() {
  constexpr Index kMin = Index{32} << 20;
  constexpr Index kMax = Index{256} << 20;
  static const Index kFloats = std::clamp(third_cache_floats() * 9 / 4, kMin, kMax);
  return kFloats;
}

enum class Target { other_half, itself };

// Of each part the first half into the second, or all of it where it lies. Bytes read and bytes
// written count alike.
Ceiling copy_ceiling(ThreadPool& pool, const MeasureTime& time, std::span<const Copy> copies,
                     Target target) {
  if (monotonic_now() >= time.until) return std::nullopt;
  const ThreadParts memory(pool, memory_floats(), Pages::huge);
  const Index part = memory.floats() / pool.threads();
  const Index count = target == Target::itself ? part : part / 2 / kLine * kLine;
  const Index step = target == Target::itself ? 0 : count;
  std::vector<std::function<void()>> loops;
  for (const Copy each : copies) {
    loops.push_back([&, each] {
      each_piece(memory, count,
                 [&](float* from, Index floats) { each(from, from + step, floats); });
    });
  }
  const double bytes = 2.0 * static_cast<double>(count * pool.threads()) * sizeof(float);
  return rate_of(bytes, fastest(pool, time, loops));
}

}  // namespace

std::size_t bytes_beyond_caches() {
  return static_cast<std::size_t>(memory_floats()) * sizeof(float);
}

Ceiling second_cache_ceiling(ThreadPool& pool, const MeasureTime& time) {
  const Index floats = cache_floats(_SC_LEVEL2_CACHE_SIZE) / 2;
  if (floats == 0) return std::nullopt;
  return read_ceiling(pool, time, floats * pool.threads(), Pages::huge);
}

Ceiling third_cache_ceiling(ThreadPool& pool, const MeasureTime& time) {
  const Index floats = third_cache_floats() / 2;
  if (floats == 0) return std::nullopt;
  return read_ceiling(pool, time, floats, Pages::huge);
}

Ceiling memory_ceiling(ThreadPool& pool, const MeasureTime& time) {
  return read_ceiling(pool, time, memory_floats(), Pages::huge);
}

Ceiling small_pages_ceiling(ThreadPool& pool, const MeasureTime& time) {
  return read_ceiling(pool, time, memory_floats(), Pages::small);
}

Ceiling copy_ceiling(ThreadPool& pool, const MeasureTime& time) {
  static constexpr Copy kCopies[] = {copy<Write::elsewhere>};
  return copy_ceiling(pool, time, kCopies, Target::other_half);
}

Ceiling streamed_copy_ceiling(ThreadPool& pool, const MeasureTime& time) {
  static constexpr Copy kCopies[] = {copy<Write::past_caches, 1>, copy<Write::past_caches, 2>,
                                     copy<Write::past_caches, 4>};
  return copy_ceiling(pool, time, kCopies, Target::other_half);
}

Ceiling update_ceiling(ThreadPool& pool, const MeasureTime& time) {
  static constexpr Copy kCopies[] = {copy<Write::back, 1>, copy<Write::back, 2>,
                                     copy<Write::back, 4>};
  return copy_ceiling(pool, time, kCopies, Target::itself);
}

}  // namespace tutti::kernels
