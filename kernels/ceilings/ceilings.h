// What the cores and the memory of this machine can do at most, measured: shares of ceilings in
// benchmarks are of these, and `tutti check` prints them.
//
// Each is the fastest of plain loops in MeasureTime::seconds, at least three rounds of them; a loop
// takes some milliseconds, of memory some tens of them for each GB. Reading is done by five loops
// in turns: one, two and four streams, some of which ask ahead; copying past the caches and
// updating by as many streams. Each thread has memory of its own, which it touched first. With one
// thread its own time counts, so that other programs on the machine lower a ceiling by what they
// take of caches and clocks alone.
//
// Threads: the pool's. Units: 1e9 operations a second (a multiply-add is two), GB/s. Limits: up to
// 1 GiB of memory while it is read.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

#include "kernels/tensor/thread_pool.h"
#include "protocol/base/clock.h"

namespace tutti::kernels {

// None: the machine, or the path in use (cpu_path.h), has no such thing; or `until` came first.
using Ceiling = std::optional<double>;

struct MeasureTime {
  Duration seconds;
  // No loop begins later: what has not gone through all of its loops by then is not measured.
  Instant until = {Duration::max()};
};

// Multiply-adds of fp32, of bf16 pairs, of bf16 by tiles, and of int8, by tiles or in quads, by the
// widest instructions of the path. Without VNNI a quad is three instructions, which codes of
// seven and eight bits cannot use.
Ceiling fp32_ceiling(ThreadPool& pool, const MeasureTime& time);
Ceiling bf16_ceiling(ThreadPool& pool, const MeasureTime& time);
Ceiling bf16_tiles_ceiling(ThreadPool& pool, const MeasureTime& time);
Ceiling int8_ceiling(ThreadPool& pool, const MeasureTime& time);

// Reading again and again what is half of each thread's second cache, half of the third, and larger
// than all caches: in huge pages where the system gives them, and in small ones.
Ceiling second_cache_ceiling(ThreadPool& pool, const MeasureTime& time);
Ceiling third_cache_ceiling(ThreadPool& pool, const MeasureTime& time);
Ceiling memory_ceiling(ThreadPool& pool, const MeasureTime& time);
Ceiling small_pages_ceiling(ThreadPool& pool, const MeasureTime& time);
// Of the same memory: half of it to the other half, through the caches and past them, and all of it
// changed where it lies. Bytes read and written count alike, so these say what an op that writes
// can have of the reading speed.
Ceiling copy_ceiling(ThreadPool& pool, const MeasureTime& time);
Ceiling streamed_copy_ceiling(ThreadPool& pool, const MeasureTime& time);
Ceiling update_ceiling(ThreadPool& pool, const MeasureTime& time);

// What no cache holds: more than two third-level caches, up to 1 GiB.
std::size_t bytes_beyond_caches();

struct CeilingKind {
  std::string_view name;
  std::string_view unit;
  Ceiling (*measure)(ThreadPool& pool, const MeasureTime& time);
};
// All of these.
std::span<const CeilingKind> ceiling_kinds();

}  // namespace tutti::kernels
