#include "jobs/tokenizers/encoder.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

namespace tutti::tokenizers {
namespace {

constexpr std::size_t kCacheSlots = std::size_t{1} << 16;
constexpr std::size_t kSmallCacheSlots = 256;
constexpr std::size_t kCachedWordBytesMax = 48;

std::uint64_t hash_of(std::string_view word) {
  std::uint64_t hash = word.size();
  const auto add = [&](std::uint64_t value) {
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 32;
  };
  std::size_t i = 0;
  for (; i + 8 <= word.size(); i += 8) {
    std::uint64_t eight = 0;
    std::memcpy(&eight, word.data() + i, 8);
    add(eight);
  }
  std::uint64_t rest = 0;
  for (int shift = 0; i < word.size(); ++i, shift += 8) {
    rest |= std::uint64_t{static_cast<unsigned char>(word[i])} << shift;
  }
  add(rest);
  return hash;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

// The characters with Unicode's White_Space property.
constexpr std::array<std::string_view, 25> kWhiteSpace = {" ",
                                                          "\t",
                                                          "\n",
                                                          "\v",
                                                          "\f",
                                                          "\r",
                                                          "\xc2\x85",
                                                          "\xc2\xa0",
                                                          "\xe1\x9a\x80",
                                                          "\xe2\x80\x80",
                                                          "\xe2\x80\x81",
                                                          "\xe2\x80\x82",
                                                          "\xe2\x80\x83",
                                                          "\xe2\x80\x84",
                                                          "\xe2\x80\x85",
                                                          "\xe2\x80\x86",
                                                          "\xe2\x80\x87",
                                                          "\xe2\x80\x88",
                                                          "\xe2\x80\x89",
                                                          "\xe2\x80\x8a",
                                                          "\xe2\x80\xa8",
                                                          "\xe2\x80\xa9",
                                                          "\xe2\x80\xaf",
                                                          "\xe2\x81\x9f",
                                                          "\xe3\x80\x80"};

std::string_view without_leading_space(std::string_view text) {
  const auto begins = [&](std::string_view space) { return text.starts_with(space); };
  for (;;) {
    const auto found = std::find_if(kWhiteSpace.begin(), kWhiteSpace.end(), begins);
    if (found == kWhiteSpace.end()) return text;
    text.remove_prefix(found->size());
  }
}

std::string_view without_trailing_space(std::string_view text) {
  const auto ends = [&](std::string_view space) { return text.ends_with(space); };
  for (;;) {
    const auto found = std::find_if(kWhiteSpace.begin(), kWhiteSpace.end(), ends);
    if (found == kWhiteSpace.end()) return text;
    text.remove_suffix(found->size());
  }
}

// Valid UTF-8 in one of Unicode's forms.
std::string in_form(std::string_view text, NormalForm form) {
  const bool composes = form == NormalForm::nfc || form == NormalForm::nfkc;
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  const int options = UTF8PROC_STABLE | (composes ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                      (compatible ? UTF8PROC_COMPAT : 0);
  utf8proc_uint8_t* formed = nullptr;
  const utf8proc_ssize_t bytes = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
      static_cast<utf8proc_ssize_t>(text.size()), &formed, static_cast<utf8proc_option_t>(options));
  if (bytes < 0) return std::string(text);
  std::string result(reinterpret_cast<const char*>(formed), static_cast<std::size_t>(bytes));
  std::free(formed);
  return result;
}

// The same where bytes may be no UTF-8: those stay as they are.
std::string normalized(std::string_view text, NormalForm form) {
  std::string normal;
  while (!text.empty()) {
    const std::size_t valid = valid_utf8_prefix(text);
    normal.append(in_form(text.substr(0, valid), form));
    text.remove_prefix(valid);
    if (text.empty()) break;
    const std::size_t invalid = utf8_start(text).bytes;
    normal.append(text.substr(0, invalid));
    text.remove_prefix(invalid);
  }
  return normal;
}

}  // namespace

Encoder::Encoder(const Model& model)
    : model_(model), pre_tokenizer_(model.pre_tokenizer), words_(kSmallCacheSlots) {}

void Encoder::encode(std::string_view text, SpecialTokens special, std::vector<TokenId>& out) {
  if (model_.added().empty()) return encode_plain(text, out);
  std::size_t plain = 0;  // where the text not yet encoded begins
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (const std::uint32_t i : model_.added_with(static_cast<unsigned char>(text[at]))) {
      const AddedToken& token = model_.added()[i];
      if (token.special && special == SpecialTokens::as_text) continue;
      if (text.compare(at, token.content.size(), token.content) != 0) continue;
      std::string_view before = text.substr(plain, at - plain);
      if (token.strips_left) before = without_trailing_space(before);
      encode_plain(before, out);
      out.push_back(token.id);
      plain = at + token.content.size();
      if (token.strips_right) {
        plain = text.size() - without_leading_space(text.substr(plain)).size();
      }
      at = plain - 1;
      break;
    }
  }
  encode_plain(text.substr(plain), out);
}

void Encoder::encode_plain(std::string_view text, std::vector<TokenId>& out) {
  // ASCII is in every form.
  if (model_.normal_forms.empty() || is_ascii(text)) return encode_pieces(text, out);
  std::string normal(text);
  for (const NormalForm form : model_.normal_forms) normal = normalized(normal, form);
  encode_pieces(normal, out);
}

void Encoder::encode_pieces(std::string_view text, std::vector<TokenId>& out) {
  pre_tokenizer_.split(text, [&](std::string_view piece) { encode_word(piece, out); });
}

void Encoder::encode_word(std::string_view word, std::vector<TokenId>& out) {
  if (word.size() > kCachedWordBytesMax) return model_.merge(word, out);
  const std::uint64_t hash = hash_of(word);
  std::size_t slot = hash & (words_.size() - 1);
  for (; words_[slot].text_bytes != 0; slot = (slot + 1) & (words_.size() - 1)) {
    const Word& found = words_[slot];
    if (found.hash == hash && found.text_bytes == word.size() &&
        std::memcmp(texts_.data() + found.text, word.data(), word.size()) == 0) {
      const auto begin = tokens_.begin() + static_cast<std::ptrdiff_t>(found.tokens);
      out.insert(out.end(), begin, begin + static_cast<std::ptrdiff_t>(found.token_count));
      return;
    }
  }
  const std::size_t before = out.size();
  model_.merge(word, out);
  words_[slot] = {
      hash, static_cast<std::uint32_t>(texts_.size()), static_cast<std::uint32_t>(word.size()),
      static_cast<std::uint32_t>(tokens_.size()), static_cast<std::uint32_t>(out.size() - before)};
  texts_.append(word);
  tokens_.insert(tokens_.end(), out.begin() + static_cast<std::ptrdiff_t>(before), out.end());
  if (++words_used_ * 2 > words_.size()) clear_cache();
}

// Short texts get by with a small table; the first time that it fills, it grows to its full size.
void Encoder::clear_cache() {
  words_.assign(kCacheSlots, {});
  words_used_ = 0;
  texts_.clear();
  tokens_.clear();
}

}  // namespace tutti::tokenizers
