// What only a GPU has: tensor-core attention and products in bf16, stochastic rounding, sampling of
// a batch, products by quantised weights. On the emulation, in three seeds of each order, the same
// bits in all of them.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "kernels/cuda/convert.h"
#include "kernels/cuda/decode/quantised.h"
#include "kernels/cuda/decode/sampling.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/product_choices.h"
#include "kernels/ops/random.h"
#include "kernels/ops/reference/reference.h"
#include "protocol/base/file.h"
#include "tests/support/temporary_folder.h"

namespace tutti::kernels::cuda {
namespace {

using emulation::Order;
using Floats = std::vector<float>;
using reference::Table;

Floats draw(Index count, std::uint64_t stream) {
  Floats values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(random_uniform({11, stream}, i) * 2.0 - 1.0);
  }
  return values;
}

float rounded(float x) { return from_bf16(to_bf16(x)); }

Floats all_rounded(Floats values) {
  for (float& value : values) value = rounded(value);
  return values;
}

CudaDevice& device() {
  static const auto one = [] {
    auto opened = CudaDevice::open(
        {.inputs = Products::Inputs::bf16, .waiting = DeviceOptions::Waiting::after_each_op});
    REQUIRE(opened);
    return *std::move(opened);
  }();
  return *one;
}

// The same numbers in every order.
template <class Value>
std::vector<Value> in_all_orders(const std::function<std::vector<Value>()>& run) {
  std::vector<Value> first;
  for (const std::uint64_t seed : {1, 2, 3}) {
    for (const auto kind : {Order::Kind::random, Order::Kind::warp_priority}) {
      emulation::set_order({kind, seed});
      std::vector<Value> result = run();
      REQUIRE(device().synchronize());
      INFO("seed " << seed);
      if (first.empty()) first = result;
      REQUIRE(result == first);
    }
  }
  emulation::set_order({});
  return first;
}

double largest_difference(const Floats& actual, const Table& expected) {
  double largest = 0.0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::abs(static_cast<double>(actual[i]) - expected.data[i]);
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

constexpr double kBf16 = 0x1p-8;  // relative error of one rounding, at most half of it

}  // namespace

TEST_CASE("device ops: attention on tensor cores agrees with its meaning on rounded inputs") {
  struct Case {
    Index heads, kv_heads, width;
    std::vector<std::int32_t> offsets;
  };
  for (const Case& c :
       {Case{2, 1, 64, {0, 1, 1, 66, 200}}, {1, 1, 128, {0, 130}}, {2, 2, 40, {0, 70}}}) {
    const Index tokens = c.offsets.back();
    const Index wide = c.heads * c.width;
    const Index narrow = c.kv_heads * c.width;
    Floats q = draw(tokens * wide, 1);
    for (float& value : q) value *= 4.0F;
    const Floats k = draw(tokens * narrow, 2);
    const Floats v = draw(tokens * narrow, 3);
    const AttentionShape shape{c.heads, c.kv_heads, c.width,
                               1.0F / std::sqrt(static_cast<float>(c.width))};
    Floats lse(static_cast<std::size_t>(tokens * c.heads));
    const Floats out = in_all_orders<float>([&] {
      Floats result(q.size(), std::numeric_limits<float>::quiet_NaN());
      REQUIRE(device().enqueue(AttentionForward{.shape = shape,
                                                .q = ConstMatrix(q.data(), tokens, wide),
                                                .k = ConstMatrix(k.data(), tokens, narrow),
                                                .v = ConstMatrix(v.data(), tokens, narrow),
                                                .sample_offsets = c.offsets,
                                                .out = Matrix(result.data(), tokens, wide),
                                                .lse = lse.data()}));
      return result;
    });
    const Floats rq = all_rounded(q);
    const Floats rk = all_rounded(k);
    const Floats rv = all_rounded(v);
    const Table expected =
        reference::attention(shape, Table(ConstMatrix(rq.data(), tokens, wide)),
                             Table(ConstMatrix(rk.data(), tokens, narrow)),
                             Table(ConstMatrix(rv.data(), tokens, narrow)), c.offsets);
    // Weights are rounded once more before they meet the values, which are at most 1.
    CHECK(largest_difference(out, expected) <= kBf16);
    CHECK(std::all_of(lse.begin(), lse.end(), [](float x) { return std::isfinite(x); }));
  }
}

TEST_CASE("device ops: a product in bf16 is that of the rounded inputs, in all three forms") {
  const Index m = 20;
  const Index n = 12;
  const Index k = 36;
  const Floats x = draw(m * k, 1);
  const Floats w = draw(n * k, 2);
  const Floats dy = draw(m * n, 3);
  const Floats rx = all_rounded(x);
  const Floats rw = all_rounded(w);
  const Floats rdy = all_rounded(dy);
  const auto check_form = [&](ProductForm form, Index rows, Index columns, const ConstMatrix& left,
                              const ConstMatrix& right, const auto& exact) {
    const Floats result = in_all_orders<float>([&] {
      Floats output(static_cast<std::size_t>(rows * columns));
      REQUIRE(device().enqueue(
          form,
          Product{.left = left, .right = right, .output = Matrix(output.data(), rows, columns)}));
      return output;
    });
    for (Index r = 0; r < rows; ++r) {
      for (Index c = 0; c < columns; ++c) {
        CHECK(result[static_cast<std::size_t>(r * columns + c)] ==
              Approx(exact(r, c)).margin(1e-5));
      }
    }
  };
  const auto at = [](const Floats& values, Index row, Index width, Index column) {
    return static_cast<double>(values[static_cast<std::size_t>(row * width + column)]);
  };
  const auto sum = [](Index count, const auto& term) {
    double total = 0.0;
    for (Index i = 0; i < count; ++i) total += term(i);
    return total;
  };
  check_form(ProductForm::nt, m, n, ConstMatrix(x.data(), m, k), ConstMatrix(w.data(), n, k),
             [&](Index r, Index c) {
               return sum(k, [&](Index i) { return at(rx, r, k, i) * at(rw, c, k, i); });
             });
  check_form(ProductForm::nn, m, k, ConstMatrix(dy.data(), m, n), ConstMatrix(w.data(), n, k),
             [&](Index r, Index c) {
               return sum(n, [&](Index i) { return at(rdy, r, n, i) * at(rw, i, k, c); });
             });
  check_form(ProductForm::tn, n, k, ConstMatrix(dy.data(), m, n), ConstMatrix(x.data(), m, k),
             [&](Index r, Index c) {
               return sum(m, [&](Index i) { return at(rdy, i, n, r) * at(rx, i, k, c); });
             });
}

TEST_CASE("device ops: the algorithm of a product is chosen once, kept in a file, and taken back") {
  const tutti::test::TemporaryFolder folder;
  const auto file = folder.path() / "new" / "products.txt";
  const ProductChoices::Key small{ProductForm::nt, ProductInputs::fp32, 8, 4, 16};
  const ProductChoices::Key large{ProductForm::tn, ProductInputs::bf16, 4096, 1024, 8};
  int asked = 0;
  const auto choose = [&]() -> tutti::Result<cublasLtMatmulAlgo_t> {
    cublasLtMatmulAlgo_t algorithm = {};
    algorithm.data[3] = static_cast<std::uint64_t>(++asked);
    return algorithm;
  };
  ProductChoices first(file);
  CHECK(first.used().empty());
  CHECK(first.take(small, choose)->data[3] == 1);
  CHECK(first.take(large, choose)->data[3] == 2);
  CHECK(first.take(small, choose)->data[3] == 1);
  CHECK(asked == 2);
  CHECK(*tutti::read_file(file) == first.used());

  // Another process takes what is there, and what it did not use is none of its profile.
  ProductChoices second(file);
  CHECK(second.take(large, choose)->data[3] == 2);
  CHECK(second.used() == "2 1 4096 1024 8 0 0 0 2 0 0 0 0\n");
  // What one chooses while the other runs is found by it, and nothing is lost.
  const ProductChoices::Key later{ProductForm::nn, ProductInputs::fp32, 16, 16, 16};
  CHECK(second.take(later, choose)->data[3] == 3);
  CHECK(first.take(later, choose)->data[3] == 3);
  CHECK(asked == 3);

  // Lines that are none are left out; without a file, choices are the process's own.
  REQUIRE(tutti::write_file_atomically(file, "0 0 12 no number\n" + second.used()));
  ProductChoices third(file);
  CHECK(third.take(large, choose)->data[3] == 2);
  CHECK(third.take(small, choose)->data[3] == 4);
  CHECK(ProductChoices("/proc/none/products.txt").take(small, choose)->data[3] == 5);
}

TEST_CASE("device ops: stochastic rounding keeps the mean, and a range has the tensor's draws") {
  constexpr Index kCount = 20000;
  const Floats values(kCount, 1.0F + 0.3F * 0x1p-7F);
  const auto round = [&](Index first, Index count) {
    std::vector<Bf16> result(static_cast<std::size_t>(count));
    const StochasticKey key{5, 7, static_cast<unsigned long long>(first)};
    REQUIRE(round_stochastic(device().stream(), std::span(values).first(result.size()),
                             result.data(), key));
    REQUIRE(device().synchronize());
    return result;
  };
  const auto all = in_all_orders<Bf16>([&] { return round(0, kCount); });
  double up = 0.0;
  for (const Bf16 one : all) {
    const float value = from_bf16(one);
    REQUIRE((value == 1.0F || value == 1.0F + 0x1p-7F));
    up += value > 1.0F ? 1.0 : 0.0;
  }
  // Five deviations of the mean of kCount draws.
  CHECK(up / kCount == Approx(0.3).margin(5.0 * std::sqrt(0.21 / kCount)));
  const auto part = round(1000, 500);
  CHECK(std::equal(part.begin(), part.end(), all.begin() + 1000));
}

TEST_CASE("device ops: sampling follows the host's rules, for each sequence alone") {
  constexpr Index kVocabulary = 700;
  std::vector<SamplingRequest> requests;
  for (const SamplingSettings& settings :
       {SamplingSettings{.temperature = 0.0},
        {.temperature = 0.8, .seed = 3},
        {.temperature = 1.0, .top_k = 5, .seed = 4},
        {.temperature = 1.3, .top_p = 0.7, .seed = 5},
        {.temperature = 0.7, .top_k = 50, .top_p = 0.9, .seed = 6},
        {.top_k = 1}}) {
    for (std::uint64_t position = 0; position < 4; ++position)
      requests.push_back({settings, position});
  }
  const auto rows = static_cast<Index>(requests.size());
  Floats logits = draw(rows * kVocabulary, 9);
  for (float& logit : logits) logit *= 6.0F;
  logits[3] = std::numeric_limits<float>::quiet_NaN();
  const auto tokens = in_all_orders<std::int32_t>([&] {
    std::vector<std::int32_t> chosen(requests.size(), -1);
    REQUIRE(sample_tokens(device(), ConstMatrix(logits.data(), rows, kVocabulary), requests,
                          chosen.data()));
    REQUIRE(device().synchronize());
    return chosen;
  });
  Sampler sampler;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    INFO("request " << i);
    const auto row = std::span(logits).subspan(i * kVocabulary, kVocabulary);
    CHECK(tokens[i] == sampler.sample(row, requests[i].settings, requests[i].position));
  }
}

TEST_CASE("device ops: products by 8-bit and 4-bit weights, a row alone as among others") {
  const Index n = 19;
  const Index k = 384;
  const Index groups = k / kQuantGroup;
  Floats scales = draw(n * groups, 2);
  for (const auto bits : {QuantisedProduct::Bits::eight, QuantisedProduct::Bits::four}) {
    const bool eight = bits == QuantisedProduct::Bits::eight;
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(eight ? n * k : n * k / 2));
    for (std::size_t i = 0; i < codes.size(); ++i)
      codes[i] = static_cast<std::uint8_t>(random_words({1, 2}, i)[0]);
    const auto code_at = [&](Index column, Index i) {
      const auto place = static_cast<std::size_t>(column * k + i);
      if (eight) return static_cast<double>(static_cast<std::int8_t>(codes[place]));
      return static_cast<double>((codes[place / 2] >> (4 * (place % 2)) & 15) - 8);
    };
    const auto run = [&](const Floats& x, Index m) {
      return in_all_orders<float>([&] {
        Floats y(static_cast<std::size_t>(m * n));
        REQUIRE(
            quantised_product(device().stream(), {bits, ConstMatrix(x.data(), m, k), codes.data(),
                                                  scales.data(), Matrix(y.data(), m, n)}));
        REQUIRE(device().synchronize());
        return y;
      });
    };
    const Floats x = draw(11 * k, 1);
    const Floats y = run(x, 11);
    for (Index r = 0; r < 11; ++r) {
      for (Index c = 0; c < n; ++c) {
        double exact = 0.0;
        for (Index i = 0; i < k; ++i) {
          exact +=
              static_cast<double>(x[static_cast<std::size_t>(r * k + i)]) * code_at(c, i) *
              static_cast<double>(scales[static_cast<std::size_t>(c * groups + i / kQuantGroup)]);
        }
        CHECK(y[static_cast<std::size_t>(r * n + c)] == Approx(exact).epsilon(1e-4).margin(1e-2));
      }
    }
    const Floats alone = run(Floats(x.begin() + 3 * k, x.begin() + 4 * k), 1);
    CHECK(std::equal(alone.begin(), alone.end(), y.begin() + 3 * n));
  }
  QuantisedProduct too_many;
  too_many.x = ConstMatrix(nullptr, 17, 128);
  too_many.y = Matrix(nullptr, 17, 0);
  CHECK_FALSE(quantised_product(device().stream(), too_many));
}

}  // namespace tutti::kernels::cuda
