// Bytes and characters: the byte alphabet of byte-level BPE, and UTF-8 that may be broken.
//
// tokenizer.json holds bytes as printable characters (Radford et al. 2019): the 188 printable ones
// of Latin-1 stand for themselves, the other 68 for U+0100 and up, in order of the byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tutti::tokenizers {

// The character of a byte, as a code point.
char32_t byte_character(unsigned char byte);

// "Ġthe" for " the".
std::string to_byte_characters(std::string_view bytes);

// " the" for "Ġthe"; nothing if a character is not in the alphabet.
std::optional<std::string> from_byte_characters(std::string_view text);

void append_utf8(std::string& out, char32_t character);

// What stands at the beginning of `text`: a whole character, the beginning of one that ends with
// the text, or a byte that no character can begin with or go on with.
struct Utf8Start {
  enum class Kind : std::uint8_t { whole, unfinished, invalid };
  Kind kind = Kind::invalid;
  std::size_t bytes = 1;  // of the character; of an invalid sequence, its longest valid prefix
};
Utf8Start utf8_start(std::string_view text);

// Bytes at the beginning of `text` that are valid UTF-8; text.size() if all are.
std::size_t valid_utf8_prefix(std::string_view text);

// The text with every invalid sequence as one U+FFFD, as Unicode recommends.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace tutti::tokenizers
