// Memory of which each thread of a pool has a part of its own, for the ceilings; internal.
//
// The thread that has a part is the first to touch it, so that it lies in that thread's NUMA node,
// and the kind of pages was asked for before: a page that has been touched keeps its size.
//
// Ownership: owns the memory, refers to the pool. Threads: the pool's. Errors: std::bad_alloc.
#pragma once

#include <immintrin.h>

#include <atomic>
#include <span>
#include <thread>

#include "kernels/tensor/thread_pool.h"

namespace tutti::kernels {

enum class Pages { huge, small };  // huge: where the system gives them

class ThreadParts {
 public:
  // `floats` in equal parts, each of whole cache lines; all are ones.
  ThreadParts(ThreadPool& pool, Index floats, Pages pages);
  ThreadParts(const ThreadParts&) = delete;
  ThreadParts& operator=(const ThreadParts&) = delete;
  ~ThreadParts();

  Index floats() const { return each_ * pool_.threads(); }  // of all parts
  std::span<float> part(int thread) const {
    return {first_ + thread * each_, static_cast<std::size_t>(each_)};
  }

  // body(part) by each thread for its own part. A thread that is done waits for the others, so that
  // none takes the turn of one that wakes late.
  template <class Body>
  void each(const Body& body) const {
    std::atomic<int> done{0};
    const int threads = pool_.threads();
    pool_.parallel_for(threads, 1, [&](int thread, Index, Index) {
      body(part(thread));
      done.fetch_add(1);
      while (done.load() < threads) {
        for (int i = 0; i < 64 && done.load() < threads; ++i) _mm_pause();
        std::this_thread::yield();
      }
    });
  }

 private:
  ThreadPool& pool_;
  Index each_ = 0;
  void* mapped_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  float* first_ = nullptr;
};

}  // namespace tutti::kernels
