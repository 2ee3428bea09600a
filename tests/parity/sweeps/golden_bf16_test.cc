// The committed bits of bf16 products and of packed bf16 weights, in every profile. They are summed
// and laid out here as the headers say, so that the rows of a profile are checked on machines that
// lack its instructions, too; where a machine has them, the ops must give the same bits.
#include <cstring>
#include <string>

#include "kernels/ops/product_batched.h"
#include "kernels/ops/weights/packed_bf16.h"
#include "tests/parity/harness.h"
#include "tests/parity/products/bf16_orders.h"
#include "tests/parity/products/halves.h"
#include "tests/support/skip.h"

namespace tutti::kernels::parity {
namespace {

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

std::string of_profile(const char* what, Bf16Arithmetic arithmetic) {
  return std::string(what) + std::string(profile_of(arithmetic));
}

// Requires these bits of `op` where this machine has the arithmetic.
void require_where_it_is(Bf16Arithmetic arithmetic, const Floats& expected,
                         const std::function<Floats(const OpContext&)>& op) {
  if (arithmetic == Bf16Arithmetic::widened) {
    REQUIRE(same_bits(on_all_paths(op), expected));
    return;
  }
  static ThreadPool pools[] = {ThreadPool(1), ThreadPool(2), ThreadPool(3), ThreadPool(4),
                               ThreadPool(7)};
  const CpuPath before = cpu_path();
  if (choose_cpu_path(CpuPath::avx512bf16) && has_bf16(arithmetic)) {
    for (ThreadPool& pool : pools) REQUIRE(same_bits(op({.pool = &pool}), expected));
  } else {
    static bool said[std::size(kArithmetics)] = {};
    bool& once = said[static_cast<std::size_t>(arithmetic)];
    if (!once) test::skip_part(of_profile("this machine has no products of ", arithmetic));
    once = true;
  }
  REQUIRE(choose_cpu_path(before));
}

struct Shape {
  Index count, m, n, k;
};

enum class Ending { none, all, all_to_bf16 };
constexpr Ending kEndings[] = {Ending::none, Ending::all, Ending::all_to_bf16};

// A batch of products; a single one is a batch of one.
struct Case {
  Case(ProductForm form_in, const Shape& s)
      : form(form_in),
        shape(s),
        left(rounded(draw(s.count * s.m * s.k, 1))),
        right(rounded(draw(s.count * s.n * s.k, 2))),
        before(draw(s.count * s.m * s.n, 3)),
        bias(draw(s.count * s.n, 4)),
        residual(draw(s.m * s.n, 5)),
        gate(draw(s.count * s.m * s.n, 6)) {
    if (!left.empty()) left[0] = 0x0040;  // below the normal numbers
  }

  Index outputs() const { return shape.m * shape.n; }
  float left_at(Index b, Index row, Index k) const {
    const Index place = form == ProductForm::tn ? k * shape.m + row : row * shape.k + k;
    return wide(left[size_of(b * shape.m * shape.k + place)]);
  }
  float right_at(Index b, Index k, Index column) const {
    const Index place = form == ProductForm::nt ? column * shape.k + k : k * shape.n + column;
    return wide(right[size_of(b * shape.n * shape.k + place)]);
  }
  Bf16Matrix lefts() const {
    return form == ProductForm::tn ? Bf16Matrix(left.data(), shape.k, shape.m)
                                   : Bf16Matrix(left.data(), shape.m, shape.k);
  }
  Bf16Matrix rights() const {
    return form == ProductForm::nt ? Bf16Matrix(right.data(), shape.n, shape.k)
                                   : Bf16Matrix(right.data(), shape.k, shape.n);
  }

  // The sums in their stated order, then the ends of a product without terms in fp32.
  Floats expected(Bf16Arithmetic arithmetic, Ending ending) const {
    Floats y = ending == Ending::all_to_bf16 ? Floats(before.size()) : before;
    for (Index b = 0; b < shape.count; ++b) {
      for (Index i = 0; i < outputs(); ++i) {
        float& sum = y[size_of(b * outputs() + i)];
        sum = bf16_sum(
            arithmetic, sum, shape.k, [&](Index k) { return left_at(b, i / shape.n, k); },
            [&](Index k) { return right_at(b, k, i % shape.n); });
      }
      if (ending == Ending::none) continue;
      REQUIRE(product_nt(single(), ended(Product{.left = {bias.data(), shape.m, 0},
                                                 .right = {bias.data(), shape.n, 0},
                                                 .output = output_of(y, b),
                                                 .start = ChainStart::output},
                                         b)));
    }
    return ending == Ending::all_to_bf16 ? widened(rounded(y)) : y;
  }

  Matrix output_of(Floats& y, Index b) const {
    return {y.data() + b * outputs(), shape.m, shape.n};
  }
  template <class Args>
  Args ended(Args args, Index b) const {
    args.bias = bias.data() + b * shape.n;
    args.residual = matrix(residual, shape.m, shape.n);
    args.activation = Activation::silu;
    args.gate = {gate.data() + b * outputs(), shape.m, shape.n};
    return args;
  }
  // Outputs of `call`, which is given arguments but for their operands.
  template <class Args, class Call>
  Floats run(Args args, Ending ending, const Call& call) const {
    Floats y = before;
    Halves narrow(before.size());
    if (ending != Ending::none) args = ended(args, 0);
    if (ending == Ending::all_to_bf16) {
      args.narrow = {narrow.data(), shape.m, shape.n};
    } else {
      args.output = output_of(y, 0);
      args.start = ChainStart::output;
    }
    REQUIRE(call(args));
    return ending == Ending::all_to_bf16 ? widened(narrow) : y;
  }
  bool has(Ending ending) const {  // without memory there is no output in bf16
    return ending != Ending::all_to_bf16 || !before.empty();
  }

  ProductForm form;
  Shape shape;
  Halves left, right;
  Floats before, bias, residual, gate;
};

// By `run`, in every arithmetic and with every ending, of each case; rows "<what><profile>".
void check_profiles(
    const char* what, std::span<const ProductForm> forms, std::span<const Shape> shapes,
    const std::function<Floats(const OpContext&, const Case&, Bf16Arithmetic, Ending)>& run) {
  for (const Bf16Arithmetic arithmetic : kArithmetics) {
    Golden golden(of_profile(what, arithmetic));
    for (const ProductForm form : forms) {
      for (const Shape& s : shapes) {
        const Case c(form, s);
        for (const Ending ending : kEndings) {
          if (!c.has(ending)) continue;
          INFO(profile_of(arithmetic)
               << ", form " << static_cast<int>(form) << ", " << s.count << " of " << s.m << " x "
               << s.n << " x " << s.k << ", ending " << static_cast<int>(ending));
          const Floats expected = c.expected(arithmetic, ending);
          golden.add(expected);
          require_where_it_is(arithmetic, expected, [&](const OpContext& ctx) {
            return run(ctx, c, arithmetic, ending);
          });
        }
      }
    }
    golden.check();
  }
}

const Shape kSingles[] = {{1, 1, 1, 1},   {1, 0, 3, 4},    {1, 2, 5, 0},     {1, 1, 70, 33},
                          {1, 5, 64, 64}, {1, 40, 20, 90}, {1, 270, 70, 41}, {1, 9, 130, 1030}};
constexpr ProductForm kForms[] = {ProductForm::nt, ProductForm::nn, ProductForm::tn};

// The image of a weight as packed_bf16.h has it.
Floats image_of(const Halves& weight, Index outputs, Index inputs, Bf16Arithmetic arithmetic) {
  constexpr Index kPanel = 64;
  const Index together = arithmetic == Bf16Arithmetic::widened ? 1 : 2;
  const Index group = arithmetic == Bf16Arithmetic::native ? together : 32;
  const Index units = (inputs + group - 1) / group * group / together;
  const Index behind = arithmetic == Bf16Arithmetic::widened ? 32 : 0;
  Halves image(size_of((outputs + kPanel - 1) / kPanel * units * kPanel * together + behind));
  for (Index o = 0; o < outputs; ++o) {
    for (Index k = 0; k < inputs; ++k) {
      const Index unit = (o / kPanel * units + k / together) * kPanel + o % kPanel;
      image[size_of(unit * together + k % together)] = weight[size_of(o * inputs + k)];
    }
  }
  Floats bits(image.size() / 2);
  std::memcpy(bits.data(), image.data(), bits.size() * sizeof(float));
  return bits;
}

}  // namespace

// Bits of an image are its build's alone; where they change, readers of the layout do too.
TEST_CASE("golden: images of packed bf16 weights, byte by byte") {
  for (const Bf16Arithmetic arithmetic : kArithmetics) {
    Golden golden(of_profile("pack bf16 weight, profile ", arithmetic));
    for (const auto& [outputs, inputs] : {std::pair<Index, Index>{1, 1}, {70, 33}, {64, 64}}) {
      const Halves weight = rounded(draw(outputs * inputs, 1));
      const Floats expected = image_of(weight, outputs, inputs, arithmetic);
      golden.add(expected);
      INFO(profile_of(arithmetic) << ", " << outputs << " x " << inputs);
      require_where_it_is(arithmetic, expected, [&](const OpContext& ctx) {
        const auto packed = pack_bf16_weight(ctx, {weight.data(), outputs, inputs}, arithmetic);
        REQUIRE(packed);
        const bool is_wide = arithmetic == Bf16Arithmetic::widened;
        Floats image((is_wide ? packed->widened().bytes() : packed->pairs().bytes()) / 4);
        const void* const bytes =
            is_wide ? static_cast<const void*>(packed->widened().image()) : packed->pairs().image();
        std::memcpy(image.data(), bytes, image.size() * sizeof(float));
        return image;
      });
    }
    golden.check();
  }
}

TEST_CASE("golden: bf16 products with their ends, in every profile") {
  check_profiles(
      "product bf16, fused ends, profile ", kForms, kSingles,
      [](const OpContext& ctx, const Case& c, Bf16Arithmetic arithmetic, Ending ending) {
        const Bf16Product args{
            .left = c.lefts(), .right = c.rights(), .output = {}, .arithmetic = arithmetic};
        return c.run(args, ending, [&](const Bf16Product& product) {
          switch (c.form) {
            case ProductForm::nt: return product_bf16_nt(ctx, product);
            case ProductForm::nn: return product_bf16_nn(ctx, product);
            default: return product_bf16_tn(ctx, product);
          }
        });
      });
}

// The weight is there beside its image for an even number of rows.
TEST_CASE("golden: products by packed bf16 weights, in every profile") {
  check_profiles("product bf16, packed, profile ", std::span(kForms).first(1), kSingles,
                 [](const OpContext& ctx, const Case& c, Bf16Arithmetic arithmetic, Ending ending) {
                   const auto packed = pack_bf16_weight(ctx, c.rights(), arithmetic);
                   REQUIRE(packed);
                   Bf16Product args{.left = c.lefts(),
                                    .right = c.rights(),
                                    .output = {},
                                    .arithmetic = arithmetic,
                                    .packed = &*packed};
                   if (c.shape.m % 2 != 0) args.right.data = nullptr;
                   return c.run(args, ending, [&](const Bf16Product& product) {
                     return product_bf16_nt(ctx, product);
                   });
                 });
}

TEST_CASE("golden: batches of bf16 products with their ends, in every profile") {
  const Shape shapes[] = {{1, 5, 7, 9},     {3, 40, 33, 20},  {2, 30, 170, 65},
                          {40, 17, 15, 64}, {13, 64, 48, 31}, {0, 3, 4, 5},
                          {4, 5, 0, 3},     {3, 6, 5, 0},     {2, 257, 60, 3}};
  check_profiles("product, batched, of bf16, profile ", kForms, shapes,
                 [](const OpContext& ctx, const Case& c, Bf16Arithmetic arithmetic, Ending ending) {
                   const Shape& s = c.shape;
                   const Bf16BatchedProduct args{.form = c.form,
                                                 .count = s.count,
                                                 .left = c.lefts(),
                                                 .left_step = s.m * s.k,
                                                 .right = c.rights(),
                                                 .right_step = s.n * s.k,
                                                 .output = {},
                                                 .output_step = c.outputs(),
                                                 .arithmetic = arithmetic,
                                                 .bias_step = s.n,
                                                 .gate_step = c.outputs()};
                   return c.run(args, ending, [&](const Bf16BatchedProduct& batch) {
                     return product_bf16_batched(ctx, batch);
                   });
                 });
}

TEST_CASE("golden: the order of one bf16 arithmetic is no other's") {
  const Case c(ProductForm::nt, {1, 9, 20, 100});
  const Floats chain = c.expected(Bf16Arithmetic::widened, Ending::none);
  const Floats pairs = c.expected(Bf16Arithmetic::native, Ending::none);
  const Floats groups = c.expected(Bf16Arithmetic::tiles, Ending::none);
  CHECK_FALSE(same_bits(chain, pairs));
  CHECK_FALSE(same_bits(chain, groups));
  CHECK_FALSE(same_bits(pairs, groups));
}

}  // namespace tutti::kernels::parity
