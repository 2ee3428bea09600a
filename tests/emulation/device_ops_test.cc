// What only a GPU has: tensor-core attention and products in bf16, stochastic rounding, sampling of
// a batch, products by quantised weights. Whatever runs them (device_runs.h), the same bits each
// time.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "kernels/cuda/convert.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/product_choices.h"
#include "kernels/ops/choose_tokens.h"
#include "kernels/ops/random.h"
#include "kernels/ops/reference/reference.h"
#include "kernels/ops/rotary.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "protocol/base/file.h"
#include "tests/emulation/device_runs.h"
#include "tests/support/larger.h"
#include "tests/support/temporary_folder.h"

namespace tutti::kernels::cuda {
namespace {

using reference::Table;
using tutti::test::draw;
using tutti::test::Floats;

float rounded(float x) { return from_bf16(to_bf16(x)); }

Floats all_rounded(Floats values) {
  for (float& value : values) value = rounded(value);
  return values;
}

CudaDevice& device() {
  static const auto one = tutti::test::open_device_for(Products::Inputs::bf16);
  return *one;
}

template <class Value>
std::vector<Value> in_all_orders(const std::function<std::vector<Value>()>& run) {
  return tutti::test::in_all_orders<Value>(device(), run);
}

double largest_difference(const Floats& actual, const Table& expected) {
  double largest = 0.0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::abs(static_cast<double>(actual[i]) - expected.data[i]);
    largest = tutti::test::larger(largest, difference);
  }
  return largest;
}

constexpr double kBf16 = 0x1p-8;  // relative error of one rounding, at most

// The log of a query's sum of exponentials in double precision, of inputs as they are given, and
// how far a tensor core may be from it.
struct ExactLse {
  double value, tolerance;
};
ExactLse exact_lse(const AttentionShape& shape, const float* q, const Floats& k,
                   std::pair<Index, Index> keys, Index kv_head) {
  const Index narrow = shape.kv_heads * shape.head_width;
  std::vector<double> scores;
  double largest = 0.0;  // of the sums of a score's terms without their signs
  for (Index key = keys.first; key < keys.second; ++key) {
    double score = 0.0;
    double size = 0.0;
    for (Index d = 0; d < shape.head_width; ++d) {
      const double term =
          static_cast<double>(q[d]) *
          static_cast<double>(
              k[static_cast<std::size_t>(key * narrow + kv_head * shape.head_width + d)]);
      score += term;
      size += std::abs(term);
    }
    scores.push_back(score * static_cast<double>(shape.scale));
    largest = std::max(largest, size * static_cast<double>(shape.scale));
  }
  const double top = *std::ranges::max_element(scores);
  double total = 0.0;
  for (const double score : scores) total += std::exp(score - top);
  const double value = top + std::log(total);
  // A score: a sum of head_width products, which a tensor core may cut (unit 2^-23), the factors of
  // scale and log2(e), and what the top is subtracted from. All weights: a sum, and an exponential
  // of 2 units. Then the top's way back, and the sum of both.
  const auto terms = static_cast<double>(scores.size());
  const double of_scores = (static_cast<double>(shape.head_width) + 6.0) * 0x1p-23 * largest;
  const double of_sums = (2.0 * terms + 16.0) * 0x1p-24;
  return {value, of_scores + of_sums + 4.0 * 0x1p-24 * (std::abs(value) + largest)};
}

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
    double worst = 0.0;  // in tolerances
    double widest = 0.0;
    for (std::size_t s = 0; s + 1 < c.offsets.size(); ++s) {
      for (Index token = c.offsets[s]; token < c.offsets[s + 1]; ++token) {
        for (Index head = 0; head < c.heads; ++head) {
          const ExactLse exact =
              exact_lse(shape, rq.data() + token * wide + head * c.width, rk,
                        {c.offsets[s], token + 1}, head / (c.heads / c.kv_heads));
          const auto given =
              static_cast<double>(lse[static_cast<std::size_t>(token * c.heads + head)]);
          const double off = std::abs(given - exact.value) / exact.tolerance;
          if (!(off <= worst)) worst = off;
          widest = std::max(widest, exact.tolerance);
        }
      }
    }
    CHECK(worst <= 1.0);
    CHECK(widest < 1e-3);  // one key more or less of 200 changes it by 5e-3
  }
}

namespace {

// Attention of rounded inputs and its gradients in double precision; beside each gradient the sum
// of its terms without their signs, which bounds what rounding the terms may change.
struct ExactGradients {
  struct Term {
    double value = 0.0;
    double bound = 0.0;
    void add(double x) {
      value += x;
      bound += std::abs(x);
    }
  };
  std::vector<Term> dq, dk, dv;
  Floats out, lse;
};

struct AttentionInputs {
  AttentionShape shape;
  std::vector<std::int32_t> offsets;
  Floats q, k, v, dout;
};

ExactGradients exact_gradients(const AttentionInputs& in) {
  const Index heads = in.shape.heads;
  const Index width = in.shape.head_width;
  ExactGradients out;
  out.dq.resize(in.q.size());
  out.dk.resize(in.k.size());
  out.dv.resize(in.v.size());
  out.out.resize(in.q.size());
  out.lse.resize(in.q.size() / static_cast<std::size_t>(width));
  for (std::size_t sample = 0; sample + 1 < in.offsets.size(); ++sample) {
    for (Index row = in.offsets[sample]; row < in.offsets[sample + 1]; ++row) {
      for (Index head = 0; head < heads; ++head) {
        const Index kv_heads = in.shape.kv_heads;
        const auto own = static_cast<std::size_t>((row * heads + head) * width);
        const auto other = [&](Index key) {
          return static_cast<std::size_t>((key * kv_heads + head / (heads / kv_heads)) * width);
        };
        const auto dot = [&](const Floats& a, std::size_t from, const Floats& b, std::size_t at) {
          double sum = 0.0;
          for (std::size_t d = 0; d < static_cast<std::size_t>(width); ++d)
            sum += static_cast<double>(a[from + d]) * static_cast<double>(b[at + d]);
          return sum;
        };
        const double scale = static_cast<double>(in.shape.scale);
        double total = 0.0;
        for (Index key = in.offsets[sample]; key <= row; ++key)
          total += std::exp(dot(in.q, own, in.k, other(key)) * scale);
        double delta = 0.0;
        for (Index key = in.offsets[sample]; key <= row; ++key) {
          const double weight = std::exp(dot(in.q, own, in.k, other(key)) * scale) / total;
          delta += weight * dot(in.dout, own, in.v, other(key));
          for (std::size_t d = 0; d < static_cast<std::size_t>(width); ++d)
            out.out[own + d] +=
                static_cast<float>(weight * static_cast<double>(in.v[other(key) + d]));
        }
        out.lse[static_cast<std::size_t>(row * heads + head)] = static_cast<float>(std::log(total));
        for (Index key = in.offsets[sample]; key <= row; ++key) {
          const double weight = std::exp(dot(in.q, own, in.k, other(key)) * scale) / total;
          const double slope = weight * (dot(in.dout, own, in.v, other(key)) - delta) * scale;
          for (std::size_t d = 0; d < static_cast<std::size_t>(width); ++d) {
            out.dv[other(key) + d].add(weight * static_cast<double>(in.dout[own + d]));
            out.dk[other(key) + d].add(slope * static_cast<double>(in.q[own + d]));
            out.dq[own + d].add(slope * static_cast<double>(in.k[other(key) + d]));
          }
        }
      }
    }
  }
  return out;
}

// dq, then dk, then dv; each must be written whole.
Floats gradients_on(CudaDevice& on, const AttentionInputs& in, const ExactGradients& exact) {
  const Index tokens = in.offsets.back();
  const Index wide = in.shape.heads * in.shape.head_width;
  const Index narrow = in.shape.kv_heads * in.shape.head_width;
  Floats all(in.q.size() + 2 * in.k.size(), std::numeric_limits<float>::quiet_NaN());
  float* const dk = all.data() + in.q.size();
  REQUIRE(on.enqueue(AttentionBackward{.shape = in.shape,
                                       .q = ConstMatrix(in.q.data(), tokens, wide),
                                       .k = ConstMatrix(in.k.data(), tokens, narrow),
                                       .v = ConstMatrix(in.v.data(), tokens, narrow),
                                       .out = ConstMatrix(exact.out.data(), tokens, wide),
                                       .dout = ConstMatrix(in.dout.data(), tokens, wide),
                                       .lse = exact.lse.data(),
                                       .sample_offsets = in.offsets,
                                       .dq = Matrix(all.data(), tokens, wide),
                                       .dk = Matrix(dk, tokens, narrow),
                                       .dv = Matrix(dk + in.k.size(), tokens, narrow)}));
  return all;
}

AttentionInputs attention_inputs(Index heads, Index kv_heads, Index width,
                                 const std::vector<std::int32_t>& offsets) {
  static_cast<void>(device());  // whose memory the numbers are in
  AttentionInputs in{.shape = {heads, kv_heads, width, 1.0F / std::sqrt(static_cast<float>(width))},
                     .offsets = offsets,
                     .q = draw(offsets.back() * heads * width, 1),
                     .k = draw(offsets.back() * kv_heads * width, 2),
                     .v = draw(offsets.back() * kv_heads * width, 3),
                     .dout = draw(offsets.back() * heads * width, 4)};
  for (float& value : in.q) value *= 4.0F;
  return in;
}

AttentionInputs rounded_inputs(AttentionInputs in) {
  for (Floats* const values : {&in.q, &in.k, &in.v, &in.dout}) *values = all_rounded(*values);
  return in;
}

}  // namespace

TEST_CASE("device ops: attention's gradients on tensor cores agree with those of rounded inputs") {
  struct Case {
    Index heads, kv_heads, width;
    std::vector<std::int32_t> offsets;
  };
  for (const Case& c : {Case{2, 1, 64, {0, 1, 1, 34, 130}}, Case{1, 1, 128, {0, 70}},
                        Case{2, 2, 40, {0, 33}}, Case{3, 1, 8, {0, 97}}}) {
    INFO(c.heads << " heads of " << c.width);
    const AttentionInputs in = attention_inputs(c.heads, c.kv_heads, c.width, c.offsets);
    const ExactGradients exact = exact_gradients(rounded_inputs(in));
    const Floats got = in_all_orders<float>([&] { return gradients_on(device(), in, exact); });
    std::size_t at = 0;
    for (const auto* const terms : {&exact.dq, &exact.dk, &exact.dv}) {
      double worst = 0.0;
      for (const ExactGradients::Term& term : *terms) {
        // Each weight or slope is rounded once before it meets a row; the rest is fp32.
        const double off = std::abs(static_cast<double>(got[at++]) - term.value);
        const double share = off / (kBf16 * term.bound + 1e-5);
        worst = tutti::test::larger(worst, share);
      }
      CHECK(worst <= 1.0);
      CHECK(worst > 0.0);
    }
  }
}

TEST_CASE("device ops: a sample's gradients on tensor cores do not depend on its neighbours") {
  const AttentionInputs both = attention_inputs(2, 1, 64, {0, 37, 100});
  const ExactGradients exact = exact_gradients(rounded_inputs(both));
  const Floats all = in_all_orders<float>([&] { return gradients_on(device(), both, exact); });
  // The second sample alone.
  const auto cut = [](const Floats& values, Index row_numbers) {
    return Floats(values.begin() + 37 * row_numbers, values.end());
  };
  AttentionInputs alone = both;
  alone.offsets = {0, 63};
  alone.q = cut(both.q, 128);
  alone.dout = cut(both.dout, 128);
  alone.k = cut(both.k, 64);
  alone.v = cut(both.v, 64);
  ExactGradients own = exact;
  own.out = cut(exact.out, 128);
  own.lse = cut(exact.lse, 2);
  const Floats some = in_all_orders<float>([&] { return gradients_on(device(), alone, own); });
  const std::size_t wide = both.q.size();
  const std::size_t narrow = both.k.size();
  const auto same = [&](std::size_t from, std::size_t count, std::size_t at) {
    return std::equal(all.begin() + static_cast<std::ptrdiff_t>(from),
                      all.begin() + static_cast<std::ptrdiff_t>(from + count),
                      some.begin() + static_cast<std::ptrdiff_t>(at));
  };
  CHECK(same(37 * 128, 63 * 128, 0));
  CHECK(same(wide + 37 * 64, 63 * 64, 63 * 128));
  CHECK(same(wide + narrow + 37 * 64, 63 * 64, 63 * 192));
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
  const ProductChoices::Key small{ProductForm::nt, ProductInputs::fp32, 8, 4, {}};
  const ProductChoices::Key large{ProductForm::tn, ProductInputs::bf16, 4096, 1024, {16, 8, 4}};
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
  CHECK(second.used() == "2 1 4096 1024 16 8 4 0 0 0 2 0 0 0 0\n");
  // What one chooses while the other runs is found by it, and nothing is lost.
  const ProductChoices::Key later{ProductForm::nn, ProductInputs::fp32, 16, 16, {}};
  CHECK(second.take(later, choose)->data[3] == 3);
  CHECK(first.take(later, choose)->data[3] == 3);
  CHECK(asked == 3);

  // Lines that are none are left out; without a file, choices are the process's own.
  REQUIRE(tutti::write_file_atomically(file,
                                       "0 0 12 no number\n0 0 8 4 16 7475 1 0 0 0 0 0 0\n"
                                       "0 0 8 4 16 16 3 0 0 0 9 0 0 0 0\n" +
                                           second.used()));
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
  const auto part = in_all_orders<Bf16>([&] { return round(1000, 500); });
  CHECK(std::equal(part.begin(), part.end(), all.begin() + 1000));
}

TEST_CASE("device ops: rotary angles by a factor have the CPU's bits") {
  ThreadPool pool(1);
  const std::vector<std::int32_t> positions{0, 7, 1500};
  const Floats frequencies{1.0F, 0.3F, 0.01F};
  const auto angles_on = [&](CudaDevice* on) {
    Floats both(18);
    const Matrix cosine(both.data(), 3, 3);
    REQUIRE(rotary_angles({&pool, on}, {.positions = positions,
                                        .frequencies = frequencies,
                                        .cosine = cosine,
                                        .sine = Matrix(both.data() + 9, 3, 3),
                                        .factor = 1.3F}));
    if (on != nullptr) REQUIRE(on->synchronize());
    return both;
  };
  CHECK(in_all_orders<float>([&] { return angles_on(&device()); }) == angles_on(nullptr));
}

TEST_CASE("device ops: of equal logits a GPU draws the CPU's tokens, whatever cuts them") {
  constexpr Index kVocabulary = 2600;
  std::vector<TokenDraw> draws;
  for (const SamplingSettings& settings :
       {SamplingSettings{.temperature = 0.0},
        {.temperature = 0.8, .seed = 3},
        {.temperature = 1.0, .top_k = 5, .seed = 4},
        {.temperature = 1.3, .top_p = 0.7, .seed = 5},
        // More candidates than a round of the selection has.
        {.temperature = 5.0, .top_p = 0.95, .seed = 6},
        {.temperature = 2.0, .top_k = 2000, .seed = 7},
        {.temperature = 3.0, .top_k = 1500, .top_p = 0.98, .seed = 8},
        {.temperature = 1.0, .top_k = 100000, .top_p = 0.5, .seed = 9},
        {.temperature = 2.0, .seed = 10, .min_p = 0.3},
        {.temperature = 4.0, .top_k = 2000, .seed = 11, .min_p = 0.5},
        {.temperature = 3.0, .top_p = 0.9, .seed = 12, .min_p = 0.2},
        {.seed = 13, .min_p = 1.5},
        {.top_k = 1}}) {
    for (std::uint64_t position = 0; position < 3; ++position) {
      TokenDraw one{.settings = settings, .position = position};
      one.logprob = position == 1;
      draws.push_back(one);
    }
  }
  TokenDraw given;
  given.given = 77;
  given.logprob = true;
  draws.push_back(given);
  const auto rows = static_cast<Index>(draws.size());
  Floats logits = draw(rows * kVocabulary, 9);
  for (float& logit : logits) logit = std::round(logit * 200.0F) / 40.0F;  // with many ties
  for (Index row = 0; row < rows; ++row) {
    const bool scored = draws[static_cast<std::size_t>(row)].logprob;
    if (!scored) logits[static_cast<std::size_t>(row * kVocabulary + 3)] = NAN;
    logits[static_cast<std::size_t>(row * kVocabulary + 9)] = -INFINITY;
    logits[static_cast<std::size_t>(row * kVocabulary + 12)] = -0.0F;
  }
  // One row has an infinite logit, and one nothing to choose from.
  logits[6 * kVocabulary + 40] = INFINITY;
  std::fill_n(logits.begin() + 4 * kVocabulary, kVocabulary, -INFINITY);
  draws[4].logprob = false;
  const ConstMatrix matrix(logits.data(), rows, kVocabulary);
  std::vector<ChosenToken> chosen(draws.size());
  const auto tokens = in_all_orders<std::int32_t>([&] {
    REQUIRE(device().enqueue(ChooseTokens{matrix, draws, chosen.data()}));
    std::vector<std::int32_t> out;
    for (const ChosenToken& one : chosen) out.push_back(one.token);
    return out;
  });
  ThreadPool pool(1);
  std::vector<ChosenToken> on_cpu(draws.size());
  REQUIRE(choose_tokens({&pool}, {matrix, draws, on_cpu.data()}));
  for (std::size_t i = 0; i < draws.size(); ++i) {
    INFO("draw " << i);
    CHECK(tokens[i] == on_cpu[i].token);
    CHECK(chosen[i].logprob == Approx(on_cpu[i].logprob).margin(1e-5));
  }
  CHECK(on_cpu.back().token == 77);
  REQUIRE_FALSE(choose_tokens({&pool, &device()}, {matrix.row_range(0, 1), draws, chosen.data()}));
  TokenDraw typical;
  typical.settings.typical_p = 0.5;
  REQUIRE_FALSE(choose_tokens({&pool, &device()},
                              {matrix.row_range(0, 1), std::span(&typical, 1), chosen.data()}));
}

TEST_CASE("device ops: products by quantised weights have the CPU's bits in all formats") {
  ThreadPool pool(1);
  const OpContext on_cpu{&pool};
  const OpContext here{&pool, &device()};
  const Index n = 35;
  const Index k = 512;
  const Floats values = draw(n * k, 2);
  const Floats x = draw(18 * k, 1);
  const Floats before = draw(18 * n, 3);
  const Floats bias = draw(n, 4);
  for (const WeightFormat format : kWeightFormats) {
    const auto weight = [&](const OpContext& ctx) {
      auto made = quantise_weight(ctx, format, ConstMatrix(values.data(), n, k));
      REQUIRE(made);
      return *std::move(made);
    };
    const QuantisedWeight at_home = weight(on_cpu);
    const QuantisedWeight there = weight(here);
    for (const auto activations : {Activations::exact, Activations::int8}) {
      if (activations == Activations::int8 && !has_integer_codes(format)) continue;
      for (const Index m : {Index{1}, Index{3}, Index{18}}) {
        INFO(to_string(format) << ", " << m << " rows");
        const auto run = [&](const OpContext& ctx, const QuantisedWeight& right) {
          Floats y(before.begin(), before.begin() + m * n);
          REQUIRE(product_quantised(ctx, {.left = ConstMatrix(x.data(), m, k),
                                          .right = &right,
                                          .output = Matrix(y.data(), m, n),
                                          .activations = activations,
                                          .start = ChainStart::output,
                                          .bias = bias.data()}));
          return y;
        };
        const Floats expected = run(on_cpu, at_home);
        CHECK(in_all_orders<float>([&] { return run(here, there); }) == expected);
      }
    }
  }
}

}  // namespace tutti::kernels::cuda
