// Numbers of things in a sentence.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tutti {

// "1 slot", "3 slots"; for nouns whose plural ends in s.
inline std::string counted(std::uint64_t count, std::string_view noun) {
  std::string out = std::to_string(count) + ' ' + std::string(noun);
  if (count != 1) out += 's';
  return out;
}

}  // namespace tutti
