// The time of the fastest of loops, for the ceilings; internal.
#pragma once

#include <functional>
#include <span>

#include "kernels/tensor/thread_pool.h"
#include "protocol/base/clock.h"

namespace tutti::kernels {

// Seconds of the fastest loop of all: in turns for `seconds`, each three times at least, after one
// to warm up. With one thread the calling thread's own time counts, with more the clock's.
double fastest(const ThreadPool& pool, Duration seconds,
               std::span<const std::function<void()>> loops);

}  // namespace tutti::kernels
