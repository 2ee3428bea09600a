// Who computes a product: the threads of a pool, or one of them alone, inside a loop of that pool.
//
// Ownership: none. Threads: as the pool's; alone, the thread whose scratch memory it is.
#pragma once

#include <algorithm>

#include "kernels/tensor/thread_pool.h"

namespace tutti::kernels {

class Workers {
 public:
  explicit Workers(ThreadPool& pool) : pool_(&pool) {}
  explicit Workers(Arena& scratch) : alone_(&scratch) {}

  Index threads() const { return alone_ != nullptr ? 1 : pool_->threads(); }
  Arena& scratch(int thread) const { return alone_ != nullptr ? *alone_ : pool_->scratch(thread); }
  Arena& op_scratch() const { return alone_ != nullptr ? *alone_ : pool_->op_scratch(); }

  template <class Body>
  void parallel_for(Index count, Index grain, Body&& body) const {
    if (alone_ == nullptr) return pool_->parallel_for(count, grain, body);
    for (Index begin = 0; begin < count; begin += grain) {
      body(0, begin, std::min(begin + grain, count));
    }
  }

 private:
  ThreadPool* pool_ = nullptr;
  Arena* alone_ = nullptr;
};

}  // namespace tutti::kernels
