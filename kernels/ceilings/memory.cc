// Reading, copying and updating: each by several loops, as no single one is the fastest on every
// machine. One stream is what the prefetcher likes best on some, two or four on others, and on
// others again only asking ahead keeps enough lines under way.
#include <immintrin.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels/ceilings/ceilings.h"
#include "kernels/ceilings/fastest.h"
#include "kernels/ops/cpu_path.h"
#include "kernels/tensor/buffer.h"

namespace tutti::kernels {

namespace {

constexpr Index kLine = 16;              // floats of a cache line
constexpr Index kAheadFloats = 256;      // 1 KiB; twice or four times that differ little
constexpr Index kPieceFloats = 1 << 18;  // what a thread takes at a time

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

enum class Pages { huge, small };

double read_ceiling(ThreadPool& pool, Duration seconds, Index floats, Pages pages) {
  FloatBuffer memory(floats);
  if (pages == Pages::small) {
    madvise(memory.data(), static_cast<std::size_t>(floats) * sizeof(float), MADV_NOHUGEPAGE);
  }
  std::fill_n(memory.data(), floats, 1.0F);
  const Index piece = std::min<Index>(floats / pool.threads(), kPieceFloats);
  std::vector<std::function<void()>> loops;
  for (const Read read : wide() ? kReadsZmm : kReadsYmm) {
    loops.push_back([&, read] {
      pool.parallel_for(floats, piece, [&](int, Index begin, Index end) {
        volatile float keep = read(memory.data() + begin, end - begin);
        static_cast<void>(keep);
      });
    });
  }
  return static_cast<double>(floats) * sizeof(float) / fastest(pool, seconds, loops) * 1e-9;
}

// To elsewhere, through the caches and past them, or back to where it came from.
enum class Write { elsewhere, past_caches, back };

template <Write kWrite>
void copy(const float* from, float* to, Index floats) {
  if constexpr (kWrite == Write::elsewhere) {
    std::memcpy(to, from, static_cast<std::size_t>(floats) * sizeof(float));
    return;
  }
  for (Index i = 0; i + kLine <= floats; i += kLine) {
    if constexpr (kWrite == Write::past_caches) {
      for (Index v = 0; v < kLine; v += 4) _mm_stream_ps(to + i + v, _mm_loadu_ps(from + i + v));
    } else {
      Line line;
      load(line, from + i);
      line *= 0.5F;
      std::memcpy(to + i, &line, sizeof(line));
    }
  }
  _mm_sfence();
}

using Copy = void (*)(const float* from, float* to, Index floats);

// Bytes read and bytes written count alike.
double copy_ceiling(ThreadPool& pool, Duration seconds, Index floats, std::span<const Copy> copies,
                    Index to_offset) {
  FloatBuffer memory(floats);
  std::fill_n(memory.data(), floats, 1.0F);
  const Index count = to_offset > 0 ? floats - to_offset : floats;
  std::vector<std::function<void()>> loops;
  for (const Copy each : copies) {
    loops.push_back([&, each] {
      pool.parallel_for(count, kPieceFloats, [&](int, Index begin, Index end) {
        each(memory.data() + begin, memory.data() + to_offset + begin, end - begin);
      });
    });
  }
  return 2.0 * static_cast<double>(count) * sizeof(float) / fastest(pool, seconds, loops) * 1e-9;
}

Index cache_floats(int name) {
  const long bytes = ::sysconf(name);
  return bytes > 0 ? bytes / static_cast<Index>(sizeof(float)) : 0;
}

// More than two third caches, but not of a machine whose cache is larger than our patience.
Index memory_floats() {
  constexpr Index kMin = Index{64} << 20;
  constexpr Index kMax = Index{256} << 20;
  return std::clamp(cache_floats(_SC_LEVEL3_CACHE_SIZE) * 9 / 4, kMin, kMax);
}

}  // namespace

std::size_t bytes_beyond_caches() {
  return static_cast<std::size_t>(memory_floats()) * sizeof(float);
}

Ceiling second_cache_ceiling(ThreadPool& pool, Duration seconds) {
  const Index floats = cache_floats(_SC_LEVEL2_CACHE_SIZE) / 2;
  if (floats == 0) return std::nullopt;
  return read_ceiling(pool, seconds, floats * pool.threads(), Pages::huge);
}

Ceiling third_cache_ceiling(ThreadPool& pool, Duration seconds) {
  const Index floats = cache_floats(_SC_LEVEL3_CACHE_SIZE) / 2;
  if (floats == 0) return std::nullopt;
  return read_ceiling(pool, seconds, floats, Pages::huge);
}

Ceiling memory_ceiling(ThreadPool& pool, Duration seconds) {
  return read_ceiling(pool, seconds, memory_floats(), Pages::huge);
}

Ceiling small_pages_ceiling(ThreadPool& pool, Duration seconds) {
  return read_ceiling(pool, seconds, memory_floats(), Pages::small);
}

Ceiling copy_ceiling(ThreadPool& pool, Duration seconds) {
  static constexpr Copy kCopies[] = {copy<Write::elsewhere>, copy<Write::past_caches>};
  const Index floats = memory_floats();
  return copy_ceiling(pool, seconds, floats, kCopies, floats / 2);
}

Ceiling update_ceiling(ThreadPool& pool, Duration seconds) {
  static constexpr Copy kCopies[] = {copy<Write::back>};
  return copy_ceiling(pool, seconds, memory_floats(), kCopies, 0);
}

}  // namespace tutti::kernels
