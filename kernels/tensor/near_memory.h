// Memory near the cores that use it.
//
// Pages are those of the NUMA node whose thread touches them first. So the thread that makes a
// rank's memory is bound before it makes any, the threads of its pool bind themselves before they
// touch their scratch arenas, and a bound thread takes pages of its own node whatever policy the
// process was started under (cores.h). A worker gives a rank cores of one node where it can
// (worker/launcher/core_share.h).
//
// Threads: the one that will call the pool's loops.
#pragma once

#include "kernels/tensor/thread_pool.h"

namespace tutti::kernels {

// What the pool's first loop does too late for memory that is made before it: after this the
// calling thread is on the first of the pool's cores, where it has any.
void bind_caller(ThreadPool& pool);

}  // namespace tutti::kernels
