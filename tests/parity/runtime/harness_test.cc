// What the comparisons of the parity cases must not let pass.
#include <limits>

#include "tests/parity/harness.h"
#include "tests/support/larger.h"

namespace tutti::kernels::parity {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE("harness: what is not finite, in any place of either side, is within no tolerance") {
  const Floats right = {1.0F, -2.0F, 3.0F, 0.5F};
  const Table expected(matrix(right, 2, 2));
  REQUIRE(largest_difference(right, expected) <= 0.0);
  for (std::size_t i = 0; i < right.size(); ++i) {
    for (const float bad : {kNan, kInfinity, -kInfinity}) {
      Floats actual = right;
      actual[i] = bad;
      INFO(bad << " at " << i);
      const Table same(matrix(actual, 2, 2));
      // As large a tolerance as that of an expected infinity.
      CHECK_FALSE(largest_difference(actual, expected) <= static_cast<double>(kInfinity));
      CHECK_FALSE(largest_difference(right, same) <= static_cast<double>(kInfinity));
      CHECK_FALSE(largest_difference(actual, same) <= static_cast<double>(kInfinity));
    }
  }
  CHECK(std::isnan(largest_magnitude(Table(matrix(Floats{1.0F, kNan, 2.0F}, 1, 3)))));
}

TEST_CASE("harness: the largest difference is found in any place") {
  const Floats right = {1.0F, -2.0F, 3.0F, 0.5F};
  const Table expected(matrix(right, 2, 2));
  for (std::size_t i = 0; i < right.size(); ++i) {
    Floats actual = right;
    for (float& value : actual) value += 0.25F;
    actual[i] -= 2.25F;
    CHECK(largest_difference(actual, expected) == 2.0);
  }
}

TEST_CASE("harness: of two distances the larger stays, and a NaN whichever comes first") {
  constexpr double kNanDistance = std::numeric_limits<double>::quiet_NaN();
  CHECK(test::larger(1.0, 2.0) == 2.0);
  CHECK(test::larger(2.0, 1.0) == 2.0);
  CHECK(std::isnan(test::larger(1.0, kNanDistance)));
  CHECK(std::isnan(test::larger(kNanDistance, 1.0)));
}

TEST_CASE("harness: a gradient that is not finite is off from every slope") {
  const Floats x = {0.5F, -1.0F, 2.0F};
  for (std::size_t i = 0; i < x.size(); ++i) {
    for (const float bad : {kNan, kInfinity}) {
      Floats gradient(3, 1.0F);
      const auto error = [&] {
        return gradient_error(
            {.loss = [](const Table& t) { return t.data[0] + t.data[1] + t.data[2]; },
             .at = Table(matrix(x, 1, 3)),
             .gradient = gradient});
      };
      CHECK(error() < mean_tolerance(3));
      gradient[i] = bad;
      CHECK_FALSE(error() <= static_cast<double>(kInfinity));
    }
  }
}

}  // namespace tutti::kernels::parity
