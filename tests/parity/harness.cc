#include "tests/parity/harness.h"
#include "tests/support/larger.h"

#include <algorithm>
#include <limits>

namespace tutti::kernels::parity {

Floats draw(Index count, std::uint64_t stream) {
  Floats values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(random_uniform({7, stream}, i) * 2.0 - 1.0);
  }
  return values;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) {
      UNSCOPED_INFO("first difference at " << i << ": " << a[i] << " and " << b[i]);
      return false;
    }
  }
  return true;
}

Floats one_nan(Floats values) {
  for (float& value : values) {
    if (std::isnan(value)) value = std::numeric_limits<float>::quiet_NaN();
  }
  return values;
}

bool same_sums(std::span<const float> a, std::span<const float> b) {
  if (continues_chains()) return same_bits(a, b);
  // Two sums of up to a thousand terms, each in its own order.
  const double of_largest = 2.0 * mean_tolerance(1000);
  if (a.size() != b.size()) return false;
  double largest = 1.0;
  for (const float value : b) largest = std::max(largest, std::abs(static_cast<double>(value)));
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!std::isfinite(difference) || difference > of_largest * largest) {
      UNSCOPED_INFO("first difference at " << i << ": " << a[i] << " and " << b[i]);
      return false;
    }
  }
  return true;
}

Floats on_all_paths(Golden& golden, const std::function<Floats(const OpContext&)>& op) {
  Floats bits = on_all_paths(op);
  golden.add(bits);
  return bits;
}

// What is not finite on either side is within no tolerance, be it that of an infinity.
double largest_difference(std::span<const float> actual, const Table& expected) {
  REQUIRE(actual.size() == expected.data.size());
  double largest = 0.0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::abs(static_cast<double>(actual[i]) - expected.data[i]);
    largest = test::larger(largest, std::isfinite(difference) ? difference : std::nan(""));
  }
  return largest;
}

double largest_magnitude(const Table& table) {
  double largest = 0.0;
  for (const double value : table.data) largest = test::larger(largest, std::abs(value));
  return largest;
}

double gradient_error(const GradientCheck& check) {
  constexpr double kStep = 1e-5;
  const Floats direction = draw(static_cast<Index>(check.at.data.size()), check.stream);
  REQUIRE(check.gradient.size() == direction.size());
  Table ahead = check.at;
  Table behind = check.at;
  double product = 0.0;
  double magnitude = 0.0;
  for (std::size_t i = 0; i < direction.size(); ++i) {
    const auto along = static_cast<double>(direction[i]);
    ahead.data[i] += kStep * along;
    behind.data[i] -= kStep * along;
    product += static_cast<double>(check.gradient[i]) * along;
    magnitude += std::abs(static_cast<double>(check.gradient[i]) * along);
  }
  const double slope = (check.loss(ahead) - check.loss(behind)) / (2.0 * kStep);
  return std::abs(slope - product) / std::max(magnitude, 1e-30);
}

double weighted_sum(const Table& y, const Floats& weights) {
  double sum = 0.0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    sum += y.data[i] * static_cast<double>(weights[i]);
  }
  return sum;
}

}  // namespace tutti::kernels::parity
