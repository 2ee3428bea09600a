// Products by the library whatever the number of rows, and what is added to them. Whatever runs
// them (device_runs.h), the same bits each time.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdlib>

#include "tests/emulation/device_runs.h"

namespace tutti::kernels::cuda {
namespace {

using tutti::test::draw;
using tutti::test::Floats;
using tutti::test::open_device_for;

// What may be added to a product of [m, k] by [n, k]: a bias, and a residual with a stride of its
// own.
struct Ends {
  const float* bias = nullptr;
  ConstMatrix residual = {};
};
Floats product_of(CudaDevice& on, const ConstMatrix& x, const ConstMatrix& w, const Ends& ends) {
  Floats output(static_cast<std::size_t>(x.rows * w.rows));
  REQUIRE(on.enqueue(ProductForm::nt, Product{.left = x,
                                              .right = w,
                                              .output = Matrix(output.data(), x.rows, w.rows),
                                              .bias = ends.bias,
                                              .residual = ends.residual}));
  return output;
}

}  // namespace

TEST_CASE("device ops: a row of a product has the same bits among any number of rows") {
  constexpr Index kRowsMost = 130;
  constexpr Index kOutputs = 96;
  constexpr Index kDepth = 1024;
  const Floats x = draw(kRowsMost * kDepth, 1);
  for (const auto inputs : {Products::Inputs::fp32, Products::Inputs::bf16}) {
    const auto on = open_device_for(inputs);
    for (const ProductForm form : {ProductForm::nt, ProductForm::nn}) {
      const bool turned = form == ProductForm::nt;
      const Floats w = draw(kOutputs * kDepth, 2);
      const ConstMatrix weight(w.data(), turned ? kOutputs : kDepth, turned ? kDepth : kOutputs);
      const auto run = [&](Index rows) {
        Floats output(static_cast<std::size_t>(rows * kOutputs));
        REQUIRE(on->enqueue(form, Product{.left = ConstMatrix(x.data(), rows, kDepth),
                                          .right = weight,
                                          .output = Matrix(output.data(), rows, kOutputs)}));
        return output;
      };
      const Floats all = run(kRowsMost);
      for (const Index rows : {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 127, 128, 129}) {
        INFO(rows << " rows, form " << static_cast<int>(form));
        const Floats some = run(rows);
        CHECK(std::equal(some.begin(), some.end(), all.begin()));
      }
    }
  }
}

TEST_CASE("device ops: a bias and a residual are added to the rounded sum, by whomever") {
  constexpr Index kRows = 9;
  constexpr Index kOutputs = 24;
  constexpr Index kDepth = 64;
  constexpr Index kStride = 32;  // of the residual
  const Floats x = draw(kRows * kDepth, 1);
  const Floats w = draw(kOutputs * kDepth, 2);
  const Floats bias = draw(kOutputs, 3);
  const Floats base = draw(kRows * kStride, 4);
  const ConstMatrix left(x.data(), kRows, kDepth);
  const ConstMatrix right(w.data(), kOutputs, kDepth);
  const ConstMatrix residual(base.data(), kRows, kOutputs, kStride);
  // The second device's library has no algorithm that takes a bias, where it is the stand-in.
  for (const char* const takes_bias : {"1", "0"}) {
    ::setenv("TUTTI_EMULATION_BIAS", takes_bias, 1);
    for (const auto inputs : {Products::Inputs::fp32, Products::Inputs::bf16}) {
      const auto on = open_device_for(inputs);
      const Floats plain = product_of(*on, left, right, {});
      const auto added_by_hand = [&](const Ends& ends) {
        Floats sums = plain;
        for (Index r = 0; r < kRows; ++r) {
          for (Index c = 0; c < kOutputs; ++c) {
            float& sum = sums[static_cast<std::size_t>(r * kOutputs + c)];
            if (ends.residual) sum += ends.residual.row(r)[c];
            if (ends.bias != nullptr) sum += ends.bias[c];
          }
        }
        return sums;
      };
      for (const Ends& ends :
           {Ends{bias.data(), {}}, Ends{nullptr, residual}, Ends{bias.data(), residual}}) {
        CHECK(product_of(*on, left, right, ends) == added_by_hand(ends));
      }
    }
    ::unsetenv("TUTTI_EMULATION_BIAS");
  }
}

}  // namespace tutti::kernels::cuda
