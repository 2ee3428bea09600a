// What an op runs with: the rank's threads and their scratch memory.
//
// Ownership: the rank owns the pool; a context is copied freely. Threads: one op at a time on one
// pool.
#pragma once

#include "kernels/tensor/thread_pool.h"

namespace tutti::kernels {

struct OpContext {
  ThreadPool* pool = nullptr;  // never null when an op is called
};

}  // namespace tutti::kernels
