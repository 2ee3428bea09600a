// One kernel launch on the host: the threads of a block run as fibers of one operating system
// thread, in an order drawn from a seed.
//
// A GPU runs warps in any order between two barriers. So that a missing barrier shows, the order is
// one of two kinds, and tests use both, because each finds mistakes that the other misses:
//   random          at each step any thread that can run
//   warp_priority   the thread of the warp that is first in a drawn ranking: warps run ahead of
//   each other by far
// An asynchronous copy (cp.async) is done at once or as late as allowed, drawn for each. Shared
// memory is filled with 0xff (a NaN) before each block, and what is around its pieces must stay
// so. Blocks run one after the other in a drawn order. A barrier that not all threads reach, or a
// warp operation that not all lanes reach, ends the launch with an error that names it; so do more
// static and dynamic shared memory than a block has, and an address that is not a multiple of what
// an asynchronous copy or a matrix load needs.
//
// What is not emulated: the time anything takes, memory coalescing, bank conflicts, register
// limits, weak memory order between blocks.
//
// Threads: each host thread may run a launch of its own; the order is of the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace tutti::emulation {

struct Extent {
  unsigned x = 1, y = 1, z = 1;

  std::size_t count() const { return std::size_t{x} * y * z; }
};

struct Order {
  enum class Kind { random, warp_priority };
  Kind kind = Kind::random;
  std::uint64_t seed = 1;
};
void set_order(const Order& order);
Order order();

inline constexpr unsigned kWarp = 32;
inline constexpr unsigned kThreadsMax = 1024;
inline constexpr std::size_t kSharedBytesMax = 227 * 1024;  // of a block on sm_90
// What a block has without asking, of static and dynamic memory together, and what it may have of
// static shared memory at all.
inline constexpr std::size_t kSharedBytesPlain = 48 * 1024;

struct GridShape {
  Extent blocks;
  Extent threads;
  std::size_t shared_bytes = 0;  // dynamic
  std::size_t shared_room = 0;   // that the kernel has asked for; 0: it has not asked
};

// Runs `thread_body` once for each thread of the grid. Empty: all went well, else what was wrong.
std::string run_grid(const GridShape& shape, const std::function<void()>& thread_body);

// For kernels ------------------------------------------------------------------------------------

struct Position {
  Extent thread, block, threads, blocks;
};
// Of the thread that asks; outside of a kernel a broken invariant.
const Position& position();
unsigned lane();

void sync_threads();
// All lanes of the warp meet; the last to come calls act(operands of the 32 lanes), then all go on.
void meet_warp(void* operand, void (*act)(void** operands), const char* name);
// The same bytes for all threads of the block that ask with one `site`.
void* static_shared(const void* site, std::size_t bytes);
void* dynamic_shared();
void copy_async(void* to, const void* from, std::size_t bytes, std::size_t bytes_from);
// `what` needs an address that is a multiple of `bytes`.
void require_aligned(const void* address, std::size_t bytes, const char* what);
void commit_copies();
// Until at most `groups` of this thread's groups are not done.
void wait_copies(unsigned groups);
// Ends the launch with this error; does not return.
[[noreturn]] void fault(const std::string& what);

}  // namespace tutti::emulation
