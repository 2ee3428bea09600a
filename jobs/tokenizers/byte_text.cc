#include "jobs/tokenizers/byte_text.h"

#include <array>
#include <cstring>

namespace tutti::tokenizers {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

constexpr std::array<char32_t, 256> kCharacters = [] {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    characters[byte] = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
  }
  return characters;
}();

// The byte of each character of the alphabet, or -1.
constexpr std::array<int, 0x144> kBytes = [] {
  std::array<int, 0x144> bytes{};
  for (int& byte : bytes) byte = -1;
  for (unsigned byte = 0; byte < 256; ++byte) bytes[kCharacters[byte]] = static_cast<int>(byte);
  return bytes;
}();

char32_t decode_whole(std::string_view character) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(character[i]); };
  constexpr std::array<unsigned, 5> kLeadMask = {0, 0x7f, 0x1f, 0x0f, 0x07};
  char32_t value = at(0) & kLeadMask[character.size()];
  for (std::size_t i = 1; i < character.size(); ++i) value = value << 6 | (at(i) & 0x3fU);
  return value;
}

}  // namespace

char32_t byte_character(unsigned char byte) { return kCharacters[byte]; }

void append_utf8(std::string& out, char32_t character) {
  const auto put = [&](char32_t value) { out.push_back(static_cast<char>(value)); };
  if (character < 0x80) {
    put(character);
  } else if (character < 0x800) {
    put(0xc0 | character >> 6);
    put(0x80 | (character & 0x3f));
  } else if (character < 0x10000) {
    put(0xe0 | character >> 12);
    put(0x80 | (character >> 6 & 0x3f));
    put(0x80 | (character & 0x3f));
  } else {
    put(0xf0 | character >> 18);
    put(0x80 | (character >> 12 & 0x3f));
    put(0x80 | (character >> 6 & 0x3f));
    put(0x80 | (character & 0x3f));
  }
}

std::string to_byte_characters(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) append_utf8(out, byte_character(static_cast<unsigned char>(byte)));
  return out;
}

std::optional<std::string> from_byte_characters(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Utf8Start start = utf8_start(text);
    if (start.kind != Utf8Start::Kind::whole) return std::nullopt;
    const char32_t character = decode_whole(text.substr(0, start.bytes));
    if (character >= kBytes.size() || kBytes[character] < 0) return std::nullopt;
    out.push_back(static_cast<char>(kBytes[character]));
    text.remove_prefix(start.bytes);
  }
  return out;
}

// The table of well-formed sequences of the Unicode standard (table 3-7).
Utf8Start utf8_start(std::string_view text) {
  using Kind = Utf8Start::Kind;
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = at(0);
  if (lead < 0x80) return {Kind::whole, 1};
  if (lead < 0xc2 || lead > 0xf4) return {Kind::invalid, 1};
  const std::size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Kind::unfinished, i};
    const unsigned lowest = i > 1 ? 0x80 : lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const unsigned highest = i > 1 ? 0xbf : lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (at(i) < lowest || at(i) > highest) return {Kind::invalid, i};
  }
  return {Kind::whole, length};
}

std::size_t valid_utf8_prefix(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    // Eight ASCII bytes at a time: most text is mostly that.
    std::uint64_t eight = 0;
    while (i + sizeof eight <= text.size()) {
      std::memcpy(&eight, text.data() + i, sizeof eight);
      if ((eight & 0x8080808080808080ULL) != 0) break;
      i += sizeof eight;
    }
    if (i == text.size()) break;
    const Utf8Start start = utf8_start(text.substr(i));
    if (start.kind != Utf8Start::Kind::whole) return i;
    i += start.bytes;
  }
  return i;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::size_t valid = valid_utf8_prefix(text);
    out.append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) break;
    out.append(kReplacement);
    text.remove_prefix(utf8_start(text).bytes);
  }
  return out;
}

}  // namespace tutti::tokenizers
