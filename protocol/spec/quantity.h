// Durations and sizes as people write them: "500ms", "60s", "5m", "1h", "2d"; "512MiB", "2GiB".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tutti::spec {

// Milliseconds; a whole number and a unit, or plain 0. Nothing if it is not one or does not fit.
std::optional<std::uint64_t> parse_duration_ms(std::string_view text);

// The same in the largest unit that leaves a whole number ("90s", "2m", "0s").
std::string print_duration(std::uint64_t ms);

// Milliseconds since 1970 of a time in UTC such as 2026-11-24T12:00:00Z; seconds may be left out,
// and the T may be a space. Nothing if there is no such time.
std::optional<std::uint64_t> parse_time_unix_ms(std::string_view text);

// To the second: "2026-11-24T12:00:00Z".
std::string print_time(std::uint64_t unix_ms);

// Bytes; a whole number and B, KiB, MiB, GiB or TiB, or plain 0.
std::optional<std::uint64_t> parse_bytes(std::string_view text);

std::string print_bytes(std::uint64_t bytes);

}  // namespace tutti::spec
