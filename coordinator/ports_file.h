// The ports that a coordinator had last, as ports.json keeps them for the next one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tutti::coordinator {

// 0: none is known.
struct Ports {
  std::uint16_t http = 0;
  std::uint16_t control = 0;
  std::uint16_t liveness = 0;

  bool operator==(const Ports&) const = default;
};

std::string to_json(const Ports& ports);
// What says no port is none.
Ports parse_ports(std::string_view text);

}  // namespace tutti::coordinator
