// Codes of fp8 with scales of rows, and products of them, beside a plain reference. On a GPU that
// has no such products the cases say so.
#include <catch2/catch.hpp>

#include <bit>
#include <cmath>
#include <cstdlib>

#include "kernels/ops/elementwise/bf16.h"
#include "kernels/tensor/thread_pool.h"
#include "tests/emulation/rounded/rounded_room.h"

namespace tutti::kernels::cuda {
namespace {

using tutti::test::in_all_orders;
using Codes = std::vector<std::uint8_t>;

std::unique_ptr<CudaDevice> open_fp8() {
  using Waiting = DeviceOptions::Waiting;
  auto opened = CudaDevice::open({.inputs = Inputs::fp8, .waiting = Waiting::after_each_op});
  if (!opened && opened.error().code == ErrorCode::unsupported) {
    WARN("skipped: " << opened.error().message);
    return nullptr;
  }
  REQUIRE(opened);
  tutti::test::open_heap();
  return *std::move(opened);
}

constexpr std::uint8_t kNan = 0x7f;

double value_of(std::uint8_t code) {
  if ((code & 0x7f) == kNan) return std::numeric_limits<double>::quiet_NaN();
  const int exponent = code >> 3 & 0xf;
  const int digits = code & 7;
  const double value =
      exponent == 0 ? std::ldexp(digits, -9) : std::ldexp(8 + digits, exponent - 10);
  return (code & 0x80) != 0 ? -value : value;
}

// The code whose value is nearest, the even one of two.
std::uint8_t nearest_code(double x) {
  std::uint8_t best = 0;
  for (std::uint8_t code = 1; code < kNan; ++code) {
    const double here = std::abs(value_of(code) - std::abs(x));
    const double there = std::abs(value_of(best) - std::abs(x));
    if (here < there || (here == there && code % 2 == 0)) best = code;
  }
  return static_cast<std::uint8_t>(best | (std::signbit(x) ? 0x80 : 0));
}

struct Row {
  Codes codes;
  float scale = 1.0F;
};

Row reference_row(const Floats& numbers) {
  std::vector<double> read;
  double top = 0.0;
  for (const float x : numbers) {
    read.push_back(static_cast<double>(from_bf16(to_bf16(x))));
    if (std::isfinite(read.back())) top = std::max(top, std::abs(read.back()));
  }
  double scale = top == 0.0 ? 1.0 : 0x1p-126;
  while (top / scale > 448.0) scale *= 2.0;
  Row row;
  row.scale = static_cast<float>(scale);
  for (const double x : read) {
    row.codes.push_back(std::isfinite(x) ? nearest_code(x / scale) : kNan);
  }
  return row;
}

Floats row_of(const ConstMatrix& from, Index row) {
  return Floats(from.row(row), from.row(row) + from.columns);
}
Floats column_of(const ConstMatrix& from, Index column) {
  Floats numbers;
  for (Index row = 0; row < from.rows; ++row) numbers.push_back(from.row(row)[column]);
  return numbers;
}

// Room for the codes of a weight.
struct Room {
  Room(Index rows, Index columns)
      : codes(static_cast<std::size_t>(rows * columns)),
        turned(codes.size()),
        scales(static_cast<std::size_t>(rows)),
        turned_scales(static_cast<std::size_t>(columns)) {}
  Fp8Weight weight() const {
    return {{codes.data(), scales.data()}, {turned.data(), turned_scales.data()}};
  }
  Codes codes, turned;
  Floats scales, turned_scales;
};

void check_codes(CudaDevice& on, const ConstMatrix& from) {
  in_each_order([&] {
    Room room(from.rows, from.columns);
    REQUIRE(on.make_fp8(from, room.weight()));
    const auto check = [](const Row& row, const Codes& codes, float scale, Index first) {
      CHECK(scale == row.scale);
      CHECK(std::equal(row.codes.begin(), row.codes.end(), codes.begin() + first));
    };
    for (Index row = 0; row < from.rows; ++row) {
      INFO("row " << row);
      check(reference_row(row_of(from, row)), room.codes,
            room.scales[static_cast<std::size_t>(row)], row * from.columns);
    }
    for (Index column = 0; column < from.columns; ++column) {
      INFO("column " << column);
      check(reference_row(column_of(from, column)), room.turned,
            room.turned_scales[static_cast<std::size_t>(column)], column * from.rows);
    }
  });
}

// Operands of a product, in what it reads them as.
struct Sides {
  Floats x, w;
  Index rows, inputs, outputs;
  ProductForm form;

  ConstMatrix left() const { return {x.data(), rows, inputs}; }
  ConstMatrix right() const {
    return form == ProductForm::nt ? ConstMatrix(w.data(), outputs, inputs)
                                   : ConstMatrix(w.data(), inputs, outputs);
  }
};

Sides sides_for(ProductForm form, Index rows, Index inputs, Index outputs) {
  return {draw(rows * inputs, 1), draw(outputs * inputs, 2), rows, inputs, outputs, form};
}

Floats product_of(CudaDevice& on, const Sides& sides, const Product& more) {
  return in_all_orders<float>(on, [&] {
    Floats output = draw(sides.rows * sides.outputs, 3);
    Product product = more;
    product.left = sides.left();
    product.right = sides.right();
    product.output = Matrix(output.data(), sides.rows, sides.outputs);
    REQUIRE(on.enqueue(sides.form, product));
    return output;
  });
}

constexpr Product kEights{.left = {}, .right = {}, .output = {}, .eights = Eights::allowed};

// Sums of codes in few bits on a GPU, promoted to fp32 now and then.
#ifdef TUTTI_CUDA_EMULATION
constexpr double kSumsApart = 0x1p-16;
#else
constexpr double kSumsApart = 0x1p-10;
#endif

}  // namespace

TEST_CASE("device fp8: codes and scales are a plain reference's, of rows and of columns") {
  const auto on = open_fp8();
  if (on == nullptr) return;
  constexpr Index kRows = 48;
  constexpr Index kColumns = 80;
  constexpr Index kStride = 83;  // rows that lie anyhow
  Floats numbers = odd_numbers(kRows * kStride, 5);
  for (Index row = 0; row < kRows; ++row) {
    for (Index column = 0; column < kStride; ++column) {
      float& x = numbers[static_cast<std::size_t>(row * kStride + column)];
      if (row == 7) x = column % 2 == 0 ? 0.0F : -0.0F;
      if (row == 11) x = std::ldexp(x, -130);
      if (row > 20) x = std::ldexp(x, static_cast<int>(row) - 40);
    }
  }
  check_codes(*on, ConstMatrix(numbers.data(), kRows, kColumns, kStride));
  Room room(kRows, kColumns);
  const ConstMatrix wrong(numbers.data(), kRows, 72);
  CHECK(on->make_fp8(wrong, room.weight()).error().code == ErrorCode::invalid_argument);
}

TEST_CASE("device fp8: each number of bf16 has the nearest code, whatever a row's largest is") {
  const auto on = open_fp8();
  if (on == nullptr) return;
  constexpr Index kRows = 128;
  constexpr Index kColumns = 512;
  Floats numbers(kRows * kColumns);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = from_bf16(static_cast<std::uint16_t>(i));
  }
  check_codes(*on, ConstMatrix(numbers.data(), kRows, kColumns));
}

TEST_CASE("device fp8: a product sums codes and multiplies by both scales, row by row") {
  const auto on = open_fp8();
  if (on == nullptr) return;
  constexpr Index kRows = 33;
  constexpr Index kInputs = 112;
  constexpr Index kOutputs = 48;
  for (const ProductForm form : {ProductForm::nt, ProductForm::nn}) {
    Sides sides = sides_for(form, kRows, kInputs, kOutputs);
    for (std::size_t i = 0; i < sides.x.size(); ++i) {
      sides.x[i] = std::ldexp(sides.x[i], static_cast<int>(i / kInputs) - 20);
    }
    const Floats given = product_of(*on, sides, kEights);
    for (Index i = 0; i < kRows * kOutputs; ++i) {
      const Index output = i % kOutputs;
      const Row left = reference_row(row_of(sides.left(), i / kOutputs));
      const Row right = reference_row(form == ProductForm::nt ? row_of(sides.right(), output)
                                                              : column_of(sides.right(), output));
      double sum = 0.0;
      double size = 0.0;
      for (std::size_t k = 0; k < kInputs; ++k) {
        const double term = value_of(left.codes[k]) * value_of(right.codes[k]);
        sum += term;
        size += std::abs(term);
      }
      const double scale = static_cast<double>(left.scale) * static_cast<double>(right.scale);
      const auto value = static_cast<double>(given[static_cast<std::size_t>(i)]);
      INFO("row " << i / kOutputs << ", output " << output);
      CHECK(std::abs(value - sum * scale) <= kSumsApart * size * scale);
    }
    // The same of fewer rows, of rounded operands, and of codes that are there.
    for (const Index rows : {1, 2, 3, 15, 16, 17, 32}) {
      Sides fewer = sides;
      fewer.rows = rows;
      const Floats some = product_of(*on, fewer, kEights);
      CHECK(std::equal(some.begin(), some.end(), given.begin()));
    }
    const ConstMatrix weight = sides.right();
    Room room(weight.rows, weight.columns);
    REQUIRE(on->make_fp8(weight, room.weight()));
    Product with_codes = kEights;
    with_codes.right_fp8 = room.weight();
    CHECK(product_of(*on, sides, with_codes) == given);
    Halves left = rounded_behind(*on, sides.left(), Inputs::bf16, 0);
    Halves right = rounded_behind(*on, weight, Inputs::bf16, 0);
    Product rounded = kEights;
    rounded.left_rounded = {left.data(), kRows, kInputs};
    rounded.right_rounded = {right.data(), weight.rows, weight.columns};
    CHECK(product_of(*on, sides, rounded) == given);
  }
}

TEST_CASE("device fp8: what is added to a product is added to its finished sums") {
  const auto on = open_fp8();
  if (on == nullptr) return;
  const Sides sides = sides_for(ProductForm::nt, 9, 64, 32);
  const Floats sums = product_of(*on, sides, kEights);
  const Floats bias = draw(32, 7);
  const Floats residual = draw(9 * 32, 8);
  const Floats before = draw(9 * 32, 3);
  const auto check = [&](bool starts, bool biased, bool adds) {
    Product product = kEights;
    if (starts) product.start = ChainStart::output;
    if (biased) product.bias = bias.data();
    if (adds) product.residual = ConstMatrix(residual.data(), 9, 32);
    const Floats given = product_of(*on, sides, product);
    for (std::size_t i = 0; i < given.size(); ++i) {
      float expected = sums[i];
      if (starts) expected += before[i];
      if (biased) expected += bias[i % 32];
      if (adds) expected += residual[i];
      CHECK(given[i] == expected);
    }
  };
  for (const bool starts : {false, true}) {
    for (const bool biased : {false, true}) {
      for (const bool adds : {false, true}) check(starts, biased, adds);
    }
  }
}

TEST_CASE("device fp8: what is not finite is seen in its row or column, and in no other") {
  const auto on = open_fp8();
  if (on == nullptr) return;
  for (const ProductForm form : {ProductForm::nt, ProductForm::nn}) {
    const Sides clean = sides_for(form, 5, 32, 16);
    const Floats expected = product_of(*on, clean, kEights);
    Sides spoilt = clean;
    spoilt.x[1 * 32 + 9] = std::numeric_limits<float>::infinity();
    spoilt.x[3 * 32 + 31] = std::numeric_limits<float>::quiet_NaN();
    const std::size_t in_weight = form == ProductForm::nt ? 2 * 32 + 5 : 5 * 16 + 2;  // output 2
    spoilt.w[in_weight] = -std::numeric_limits<float>::infinity();
    const Floats given = product_of(*on, spoilt, kEights);
    for (std::size_t i = 0; i < given.size(); ++i) {
      INFO("row " << i / 16 << ", output " << i % 16);
      if (i / 16 == 1 || i / 16 == 3 || i % 16 == 2) {
        CHECK(std::isnan(given[i]));
      } else {
        CHECK(std::isfinite(given[i]));
      }
    }
    // A row whose largest number is not finite has the scale of its finite ones.
    for (std::size_t i = 0; i < 16; ++i) {
      if (i != 2) CHECK(given[i] == expected[i]);
    }
  }
}

TEST_CASE("device fp8: shapes without codes, gradients of weights and other products are bf16's") {
  const auto on = open_fp8();
  if (on == nullptr) return;
  const auto coarse = open_device_for(Inputs::bf16);
  for (const ProductForm form : {ProductForm::nt, ProductForm::nn}) {
    for (const auto& [inputs, outputs] : {std::pair<Index, Index>{64, 24}, {24, 64}}) {
      const Sides sides = sides_for(form, 7, inputs, outputs);
      CHECK(product_of(*on, sides, kEights) == product_of(*coarse, sides, {}));
    }
    const Sides sides = sides_for(form, 7, 64, 32);
    const Floats in_bf16 = product_of(*coarse, sides, {});
    CHECK(product_of(*on, sides, kEights) != in_bf16);
    CHECK(product_of(*on, sides, {}) == in_bf16);
    CHECK(product_of(*coarse, sides, kEights) == in_bf16);
  }
  const auto gradient = [](CudaDevice& device) {
    const Floats dy = draw(48 * 32, 1);
    const Floats x = draw(48 * 64, 2);
    Floats output(32 * 64);
    REQUIRE(device.enqueue(ProductForm::tn, Product{.left = ConstMatrix(dy.data(), 48, 32),
                                                    .right = ConstMatrix(x.data(), 48, 64),
                                                    .output = Matrix(output.data(), 32, 64),
                                                    .eights = Eights::allowed}));
    return output;
  };
  CHECK(gradient(*on) == gradient(*coarse));
}

TEST_CASE("device fp8: codes are refused by what was not opened for fp8, and by CPUs") {
  const auto coarse = open_device_for(Inputs::bf16);
  const Sides sides = sides_for(ProductForm::nt, 3, 32, 16);
  Room room(16, 32);
  CHECK(coarse->make_fp8(sides.right(), room.weight()).error().code == ErrorCode::unsupported);
  Floats output(3 * 16);
  const Product product{.left = sides.left(),
                        .right = sides.right(),
                        .output = Matrix(output.data(), 3, 16),
                        .right_fp8 = room.weight()};
  CHECK(coarse->enqueue(ProductForm::nt, product).error().code == ErrorCode::unsupported);
  ThreadPool pool(1);
  CHECK(product_nt({&pool}, product).error().code == ErrorCode::unsupported);
  CHECK(output == Floats(3 * 16));
}

#ifdef TUTTI_CUDA_EMULATION
TEST_CASE("device fp8: a GPU that is no Hopper, and a library that is too old, give one line") {
  const auto refused = [](const char* variable, const char* value) {
    ::setenv(variable, value, 1);
    const auto opened = CudaDevice::open({.inputs = Inputs::fp8});
    const bool others = CudaDevice::open({.inputs = Inputs::bf16}).ok();
    ::unsetenv(variable);
    REQUIRE_FALSE(opened);
    CHECK(others);
    CHECK(opened.error().code == ErrorCode::unsupported);
    return opened.error().message;
  };
  const std::string needs = "fp8 needs a GPU of compute capability 9.0 and cuBLAS 12.9 or later: ";
  for (const auto& [said, has] : {std::pair("89", "8.9"), {"100", "10.0"}, {"120", "12.0"}}) {
    CHECK(refused("TUTTI_EMULATION_CAPABILITY", said) ==
          needs + "emulation has " + has + ", with cublaslt-130000");
  }
  CHECK(refused("TUTTI_EMULATION_BLAS", "120800") ==
        needs + "emulation has 9.0, with cublaslt-120800");
}
#endif

}  // namespace tutti::kernels::cuda
