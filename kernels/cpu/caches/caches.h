// The caches of a core, for ops that choose by them among forms of equal bits.
//
// Threads: any may read; choose_caches is called while no op runs.
#pragma once

#include "kernels/tensor/matrix.h"

namespace tutti::kernels {

// What is assumed of a machine that does not say.
struct Caches {
  Index first_ways = 8;  // of the first cache for data
  Index second_bytes = Index{1} << 20;
  Index third_bytes = Index{32} << 20;
};

const Caches& caches();

// For tests, which run the forms of other machines, too.
void choose_caches(const Caches& caches);

}  // namespace tutti::kernels
