// The threads of one rank: a loop over independent outputs, split over N threads of which the
// caller is one.
//
// How a loop is split never changes a result: each index writes its own outputs, and sums across
// indices do not exist here. So chunks are handed out as threads become free, which is what a busy
// machine needs. Between loops a thread spins for a bounded time (a step is thousands of short
// loops) and then sleeps in the kernel, so that two ranks on two cores do not fight for them.
//
// Every thread computes with round-to-nearest and denormal numbers kept (float_mode.h), the caller
// included.
//
// Threads are bound to cores where they are given, or TUTTI_CORES names some (cores.h): the caller
// to the first, at its first loop; without enough cores for all, none is bound.
//
// Threads: one loop at a time; a loop's body must not start another on the same pool.
// Limits: kThreadsMax threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "kernels/tensor/arena.h"
#include "kernels/tensor/cores.h"

namespace tutti::kernels {

class ThreadPool {
 public:
  static constexpr int kThreadsMax = 256;

  // `threads` >= 1 counts the caller.
  explicit ThreadPool(int threads, std::vector<int> cores = cores_from_environment());
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  int threads() const { return static_cast<int>(scratch_.size()); }

  // body(thread, begin, end) over [0, count) in chunks of `grain` indices (the last may be
  // shorter); returns when all are done. `thread` is in [0, threads()), the caller is 0.
  template <class Body>
  void parallel_for(Index count, Index grain, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run(Loop{count, grain < 1 ? 1 : grain, const_cast<void*>(static_cast<const void*>(&body)),
             [](void* context, int thread, Index begin, Index end) {
               (*static_cast<Plain*>(context))(thread, begin, end);
             }});
  }

  // Scratch memory: of one thread, used inside a loop's body; and of the op, used outside of loops.
  Arena& scratch(int thread) { return *scratch_[static_cast<std::size_t>(thread)]; }
  Arena& op_scratch() { return op_scratch_; }

 private:
  struct Loop {
    Index count = 0;
    Index grain = 1;
    void* context = nullptr;
    void (*body)(void*, int, Index, Index) = nullptr;
  };

  void run(const Loop& loop);
  void work(int thread, const Loop& loop);
  bool join(std::uint32_t turn);
  void serve(int thread);

  std::vector<std::unique_ptr<Arena>> scratch_;
  Arena op_scratch_;
  Loop loop_;             // written while the gate is closed, read by threads that joined
  bool running_ = false;  // only the caller reads and writes it
  std::vector<int> cores_;
  bool caller_bound_ = false;
  alignas(64) std::atomic<std::uint64_t> gate_{0};      // turn, open bit, threads that joined
  alignas(64) std::atomic<std::uint32_t> turn_{0};      // counts loops; a change wakes the threads
  alignas(64) std::atomic<Index> next_{0};              // first index not handed out
  alignas(64) std::atomic<std::uint32_t> finished_{0};  // threads that joined and are done
  std::atomic<int> asleep_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace tutti::kernels
