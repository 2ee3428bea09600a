// What an op runs with: the rank's threads and their scratch memory, or its device.
//
// Ownership: the rank owns the pool; a context is copied freely. Threads: one op at a time on one
// pool.
#pragma once

#include "kernels/tensor/thread_pool.h"

namespace tutti::kernels {

class Device;

struct OpContext {
  ThreadPool* pool = nullptr;  // never null when an op is called
  Device* device = nullptr;    // where the op runs, if not on the pool (device.h)
};

}  // namespace tutti::kernels
