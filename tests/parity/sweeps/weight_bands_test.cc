// Bands whose elements are no floats, or that become an image: codes of int8 products, logits that
// tokens are chosen of, weights that are packed. What is beside a band would be seen in the result.
#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/ops/choose_tokens.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/ops/weights/product_int8.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

// Columns of the wide matrix before the band, and behind it.
struct Beside {
  Index before = 0;
  Index behind = 0;
};
constexpr Beside kAlone;
constexpr Beside kBands[] = {{1, 0}, {0, 1}, {3, 4}, {16, 5}};

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

// Values in a matrix of their own, or in a band; `other` is everywhere else.
template <class T>
class Band {
 public:
  Band(BasicMatrix<const T> values, const Beside& beside, T other)
      : rows_(values.rows),
        columns_(values.columns),
        beside_(beside),
        other_(other),
        data_(size_of(rows_ * stride()), other) {
    for (Index r = 0; r < rows_; ++r) std::copy_n(values.row(r), columns_, view().row(r));
  }
  BasicMatrix<T> view() {
    return BasicMatrix<T>(data_.data(), rows_, stride()).column_range(beside_.before, columns_);
  }
  std::vector<T> values() {
    std::vector<T> all;
    for (Index r = 0; r < rows_; ++r) {
      all.insert(all.end(), view().row(r), view().row(r) + columns_);
    }
    return all;
  }
  bool is_untouched_beside() const {
    for (Index i = 0; i < rows_ * stride(); ++i) {
      const Index column = i % stride() - beside_.before;
      const bool inside = column >= 0 && column < columns_;
      if (!inside && data_[size_of(i)] != other_) return false;
    }
    return true;
  }

 private:
  Index stride() const { return beside_.before + columns_ + beside_.behind; }

  Index rows_, columns_;
  Beside beside_;
  T other_;
  std::vector<T> data_;
};

constexpr Index kOutputs = 70;
constexpr Index kInputs = 96;

struct Int8Operands {
  explicit Int8Operands(Index rows_, WeightFormat format_)
      : rows(rows_),
        format(format_),
        x(draw(rows_ * kInputs, 1)),
        weight(draw(kOutputs * kInputs, 2)),
        begin(draw(rows_ * kOutputs, 3)) {}
  Index cells() const { return format == WeightFormat::int8_channel ? 1 : kInputs / 32; }

  Index rows;
  WeightFormat format;
  Floats x, weight, begin;
};

Floats int8_product(const OpContext& ctx, const Int8Operands& in, const Beside& beside) {
  const auto packed = quantise_weight(ctx, in.format, matrix(in.weight, kOutputs, kInputs));
  REQUIRE(packed);
  const std::vector<std::int8_t> none(size_of(in.rows * kInputs));
  const Floats unknown(size_of(in.rows * in.cells()));
  // A code of -128 is refused, and the largest number spoils what it scales.
  Band<std::int8_t> codes({none.data(), in.rows, kInputs}, beside, -128);
  Band<float> scales(matrix(unknown, in.rows, in.cells()), beside,
                     std::numeric_limits<float>::max());
  REQUIRE(to_int8_rows(
      ctx, {.x = matrix(in.x, in.rows, kInputs), .codes = codes.view(), .scales = scales.view()}));
  Band<float> output(matrix(in.begin, in.rows, kOutputs), beside, -9.0F);
  Band<float> residual(matrix(in.begin, in.rows, kOutputs), beside, 1e30F);
  REQUIRE(product_int8(ctx, {.codes = codes.view(),
                             .scales = scales.view(),
                             .right = &*packed,
                             .output = output.view(),
                             .start = ChainStart::output,
                             .residual = residual.view()}));
  CHECK(codes.is_untouched_beside());
  CHECK(scales.is_untouched_beside());
  CHECK(output.is_untouched_beside());
  return output.values();
}

}  // namespace

TEST_CASE("bands: int8 codes that begin at any byte give the bits of a matrix of their own") {
  for (const WeightFormat format :
       {WeightFormat::int8_channel, WeightFormat::q8_0, WeightFormat::int4_group}) {
    for (const Index rows : {1, 4, 37}) {
      const Int8Operands in(rows, format);
      const Floats own = int8_product(single(), in, kAlone);
      for (const Beside& beside : kBands) {
        INFO(to_string(format) << ", " << rows << " rows behind " << beside.before);
        const Floats band =
            on_all_paths([&](const OpContext& ctx) { return int8_product(ctx, in, beside); });
        CHECK(same_bits(band, own));
      }
    }
  }
}

TEST_CASE("bands: tokens are chosen of a band of logits as of a matrix of their own") {
  constexpr Index kVocabulary = 700;
  const std::vector<TokenDraw> draws = {
      {.settings = {.temperature = 0.0}, .position = 1, .logprob = true},
      {.settings = {.temperature = 0.7, .seed = 3}, .position = 2, .logprob = true},
      {.settings = {.top_k = 20, .seed = 4}, .position = 3},
      {.settings = {.top_p = 0.9, .seed = 5}, .position = 4, .logprob = true},
      {.settings = {.seed = 6, .min_p = 0.05}, .position = 5},
      {.settings = {}, .given = kVocabulary - 1, .logprob = true}};
  const auto rows = static_cast<Index>(draws.size());
  Floats logits = draw(rows * kVocabulary, 1);
  for (float& logit : logits) logit *= 8.0F;
  const auto choose = [&](const OpContext& ctx, const Beside& beside) {
    // Beside the band is what would be chosen.
    Band<float> band(matrix(std::as_const(logits), rows, kVocabulary), beside, 1e30F);
    std::vector<ChosenToken> chosen(draws.size());
    REQUIRE(choose_tokens(ctx, {band.view(), draws, chosen.data()}));
    Floats result;
    for (const ChosenToken& one : chosen) {
      result.push_back(static_cast<float>(one.token));
      result.push_back(one.logprob);
    }
    return result;
  };
  const Floats own = choose(single(), kAlone);
  for (const Beside& beside : kBands) {
    CHECK(same_bits(on_all_paths([&](const OpContext& ctx) { return choose(ctx, beside); }), own));
  }
}

TEST_CASE("bands: the image of a weight that is a band is that of a matrix of its own") {
  const Floats weight = draw(kOutputs * kInputs, 1);
  const auto image = [&](const OpContext& ctx, const Beside& beside) {
    Band<float> band(matrix(weight, kOutputs, kInputs), beside, 1e30F);
    const auto packed = pack_weight(ctx, band.view());
    REQUIRE(packed);
    return Floats(packed->image(), packed->image() + packed->bytes() / sizeof(float));
  };
  const Floats own = image(single(), kAlone);
  REQUIRE(std::ranges::count(own, weight[7]) > 0);
  for (const Beside& beside : kBands) {
    CHECK(same_bits(on_all_paths([&](const OpContext& ctx) { return image(ctx, beside); }), own));
  }
}

}  // namespace tutti::kernels::parity
