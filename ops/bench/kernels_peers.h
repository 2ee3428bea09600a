// Products of other libraries, where their headers were found when the build was configured.
#pragma once

#include <string_view>
#include <vector>

#include "kernels/tensor/matrix.h"

namespace tutti::bench {

// output[m, n] = left[m, k] right, row-major; right is [n, k] (nt) or [k, n] (nn), left of tn [k,
// m].
enum class ProductKind { nt, nn, tn };

struct PeerProduct {
  ProductKind kind = ProductKind::nt;
  kernels::Index m = 0;
  kernels::Index n = 0;
  kernels::Index k = 0;
  const float* left = nullptr;
  const float* right = nullptr;
  float* output = nullptr;
};

struct Peer {
  std::string_view name;
  void (*product)(const PeerProduct&);
};

// Empty where none was found. Their threads follow OMP_NUM_THREADS and BLIS_NUM_THREADS.
std::vector<Peer> product_peers();

}  // namespace tutti::bench
