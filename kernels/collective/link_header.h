// What goes before the bytes of each transfer on a link, and the two notices that end a link.
#pragma once

#include <cstdint>
#include <limits>

namespace tutti::kernels {

struct LinkHeader {
  std::uint64_t group = 0;  // number of the exchange, from 1; or a notice
  std::uint64_t bytes = 0;  // that follow; for kLinkBroken: the rank seen gone, or kNoSuspect
};

// Numbers that no group reaches: the sender leaves in good order, or because its group broke.
inline constexpr std::uint64_t kLinkGoodbye = std::numeric_limits<std::uint64_t>::max();
inline constexpr std::uint64_t kLinkBroken = kLinkGoodbye - 1;
inline constexpr std::uint64_t kNoSuspect = kLinkGoodbye;

}  // namespace tutti::kernels
