// Products of other libraries, where their headers were found when the build was configured.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ops/elementwise/bf16.h"
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
// Whether these are, and PyTorch.
bool all_peers_there();
// What BLIS_ARCH_TYPE is for cores with AVX2 and no more, or with AVX-512, which Debian's BLIS does
// not see on cores that are younger than it (a Zen 5 gets its plain C); empty where BLIS was not
// found.
std::string blis_of(bool avx512);

// Products of oneDNN that are prepared once; empty where it was not found or does
// not have them on this CPU. Operands must outlive the function.

// `image`: of nt, the right side is reordered beforehand as the library likes it best.
enum class RightSide { as_it_is, image };

// PeerProduct by the library's primitive, which is faster than its function for some shapes.
std::function<void()> onednn_matmul(const PeerProduct& product, RightSide right_side);

// Some of them, operands and outputs of one behind those of the other: one primitive.
std::function<void()> onednn_batched(const PeerProduct& first, kernels::Index count);

// bf16 by bf16 with f32 output, operands as of PeerProduct.
struct PeerBf16Product {
  ProductKind kind = ProductKind::nt;
  kernels::Index m = 0;
  kernels::Index n = 0;
  kernels::Index k = 0;
  const kernels::Bf16* left = nullptr;
  const kernels::Bf16* right = nullptr;
  float* output = nullptr;
  RightSide right_side = RightSide::as_it_is;
};
std::function<void()> onednn_bf16_product(const PeerBf16Product& product);

// int8 by int8 (nt) with one scale for each row of the right side, which is reordered beforehand.
// The library has no scale for each row of the left, so it does a little less than ours.
struct PeerInt8Product {
  kernels::Index m = 0;
  kernels::Index n = 0;
  kernels::Index k = 0;
  const std::int8_t* left = nullptr;
  const std::int8_t* right = nullptr;
  std::span<const float> scales;  // n
  float* output = nullptr;
};
std::function<void()> onednn_int8_product(const PeerInt8Product& product);

}  // namespace tutti::bench
