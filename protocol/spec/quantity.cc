#include "protocol/spec/quantity.h"

#include <charconv>
#include <limits>
#include <span>

namespace tutti::spec {

namespace {

struct Unit {
  std::string_view name;
  std::uint64_t size;
};

// From the largest to the smallest.
constexpr Unit kDurations[] = {
    {"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}};
constexpr Unit kSizes[] = {{"TiB", std::uint64_t{1} << 40},
                           {"GiB", std::uint64_t{1} << 30},
                           {"MiB", std::uint64_t{1} << 20},
                           {"KiB", std::uint64_t{1} << 10},
                           {"B", 1}};

std::optional<std::uint64_t> parse(std::string_view text, std::span<const Unit> units) {
  std::uint64_t count = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, count);
  if (error != std::errc{}) return std::nullopt;
  std::string_view name(rest, static_cast<std::size_t>(end - rest));
  if (name.empty() && count == 0) return 0;
  if (!name.empty() && name.front() == ' ') name.remove_prefix(1);
  for (const Unit& unit : units) {
    if (name != unit.name) continue;
    if (count > std::numeric_limits<std::uint64_t>::max() / unit.size) return std::nullopt;
    return count * unit.size;
  }
  return std::nullopt;
}

std::string print(std::uint64_t value, std::span<const Unit> units, std::string_view zero) {
  if (value == 0) return std::string(zero);
  for (const Unit& unit : units) {
    if (value % unit.size == 0) return std::to_string(value / unit.size) + std::string(unit.name);
  }
  return std::to_string(value);
}

}  // namespace

std::optional<std::uint64_t> parse_duration_ms(std::string_view text) {
  return parse(text, kDurations);
}
std::string print_duration(std::uint64_t ms) { return print(ms, kDurations, "0s"); }
std::optional<std::uint64_t> parse_bytes(std::string_view text) { return parse(text, kSizes); }
std::string print_bytes(std::uint64_t bytes) { return print(bytes, kSizes, "0B"); }

}  // namespace tutti::spec
