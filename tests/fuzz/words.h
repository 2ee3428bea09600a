// Inputs that are lists of 64-bit words, as a file's header and table are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>

namespace tutti::fuzz {

// Word `number` of the bytes; those that are not there are 0.
inline std::uint64_t word_at(std::string_view bytes, std::size_t number) {
  std::uint64_t out = 0;
  if (number * sizeof out >= bytes.size()) return 0;
  const std::string_view there = bytes.substr(number * sizeof out, sizeof out);
  std::memcpy(&out, there.data(), there.size());
  return out;
}

inline void put_word(std::string& out, std::uint64_t word) {
  out.append(reinterpret_cast<const char*>(&word), sizeof word);
}

inline std::string words(std::initializer_list<std::uint64_t> numbers) {
  std::string out;
  for (const std::uint64_t each : numbers) put_word(out, each);
  return out;
}

}  // namespace tutti::fuzz
