// The weight is turned in registers, eight outputs by four k at a time, and never stored: so that
// eight chains lie side by side in a vector though their weights lie k by k in memory. AVX2 on
// every machine: memory is the limit.
#include <immintrin.h>

#include <cmath>

#include "kernels/cpu/product/product_call.h"
#include "kernels/cpu/product/transpose.h"

namespace tutti::kernels {

namespace {

// How far ahead the weight's rows are asked for, in floats.
constexpr Index kAhead = 128;

// kGroups x 8 outputs of kRows rows: kRows * kGroups chains hide the latency of the multiply-add.
template <int kRows, int kGroups>
struct VectorTile {
  __m256 sum[kRows][kGroups];

  // Not a loop over memory: indices are constants, so that the sums stay in registers.
  template <class Visit>
  static inline void each(const Visit& visit) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) visit(r, g);
    }
  }

  inline void multiply(int g, const __m256 (&weight)[4], const float* x, Index x_stride,
                       int count) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      if (i >= count) break;
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        sum[r][g] =
            _mm256_fmadd_ps(weight[i], _mm256_broadcast_ss(x + r * x_stride + i), sum[r][g]);
      }
    }
  }

  inline void walk(const float* weight, Index stride, const ConstMatrix& x) {
    Index k = 0;
    for (; k + 4 <= x.columns; k += 4) {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        const float* const rows = weight + g * 8 * stride + k;
        if (k % 16 == 0) {
          for (Index n = 0; n < 8; ++n) _mm_prefetch(rows + n * stride + kAhead, _MM_HINT_T0);
        }
        __m256 turned[4];
        turn_8x4(rows, stride, turned);
        multiply(g, turned, x.data + k, x.stride, 4);
      }
    }
    const int left = static_cast<int>(x.columns - k);
    if (left == 0) return;
    for (int g = 0; g < kGroups; ++g) {
      alignas(32) float rest[4][8] = {};
      for (int i = 0; i < left; ++i) {
        for (int n = 0; n < 8; ++n) rest[i][n] = weight[(g * 8 + n) * stride + k + i];
      }
      const __m256 turned[4] = {_mm256_load_ps(rest[0]), _mm256_load_ps(rest[1]),
                                _mm256_load_ps(rest[2]), _mm256_load_ps(rest[3])};
      multiply(g, turned, x.data + k, x.stride, left);
    }
  }
};

template <int kRows, int kGroups>
void run_tile(const Product& args, Index first) {
  VectorTile<kRows, kGroups> tile;
  const auto place = [&](int r, int g) { return args.output.row(r) + first + g * 8; };
  tile.each([&](int r, int g) {
    tile.sum[r][g] =
        args.start == ChainStart::zero ? _mm256_setzero_ps() : _mm256_loadu_ps(place(r, g));
  });
  tile.walk(args.right.row(first), args.right.stride, args.left);
  tile.each([&](int r, int g) { _mm256_storeu_ps(place(r, g), tile.sum[r][g]); });
}

template <int kRows>
void run_rows(const Product& args, Index first, Index count) {
  constexpr int kWide = kRows <= 2 ? 4 : 2;
  const Index end = first + count;
  for (; first + kWide * 8 <= end; first += kWide * 8) run_tile<kRows, kWide>(args, first);
  for (; first + 8 <= end; first += 8) run_tile<kRows, 1>(args, first);
  for (; first < end; ++first) {
    const float* const weight = args.right.row(first);
    for (int r = 0; r < kRows; ++r) {
      float& output = args.output.row(r)[first];
      float sum = args.start == ChainStart::zero ? 0.0F : output;
      const float* const x = args.left.row(r);
      for (Index k = 0; k < args.left.columns; ++k) sum = std::fma(x[k], weight[k], sum);
      output = sum;
    }
  }
}

}  // namespace

void product_vector(const Product& args, Index first, Index count) {
  switch (args.left.rows) {
    case 1: return run_rows<1>(args, first, count);
    case 2: return run_rows<2>(args, first, count);
    case 3: return run_rows<3>(args, first, count);
    default: return run_rows<4>(args, first, count);
  }
}

}  // namespace tutti::kernels
