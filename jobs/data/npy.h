// Token files: one-dimensional .npy arrays of uint16, uint32 or int32, as NumPy reads and writes
// them.
//
// A file is mapped, not read: opening costs nothing, pages come in as samples touch them, and the
// ranks of a node share them. The header is parsed strictly, because a file of another shape would
// train on noise without a word.
//
// Ownership: TokenFile owns its mapping. Threads: reads from any thread.
// Limits: a header of kNpyHeaderBytesMax. Errors: not_found, permission_denied; invalid_argument
// (not .npy, two dimensions, another type, big endian, shorter than its header says, negative ids
// when they are read).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "protocol/base/result.h"

namespace tutti::data {

inline constexpr std::size_t kNpyHeaderBytesMax = std::size_t{64} << 10;

enum class TokenType : std::uint8_t { uint16, uint32, int32 };

class TokenFile {
 public:
  static Result<TokenFile> open(const std::filesystem::path& path);

  TokenFile(TokenFile&& other) noexcept;
  TokenFile& operator=(TokenFile&& other) noexcept;
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;
  ~TokenFile();

  std::uint64_t size() const { return size_; }  // tokens
  TokenType type() const { return type_; }
  const std::string& path() const { return path_; }

  // Copies tokens first .. first + out.size(), which must lie inside. A negative int32 comes out as
  // its unsigned bits, above every vocabulary, so that one check covers both.
  void copy(std::uint64_t first, std::span<std::uint32_t> out) const;

  // Index of the first token in [first, first + count) that is >= `vocabulary`, or first + count if
  // there is none.
  std::uint64_t find_outside(std::uint64_t first, std::uint64_t count,
                             std::uint32_t vocabulary) const;

 private:
  TokenFile() = default;

  std::string path_;
  const std::byte* mapping_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  std::size_t offset_ = 0;  // of the first token
  std::uint64_t size_ = 0;
  TokenType type_ = TokenType::uint32;
};

// Writes tokens as uint16 if all ids fit, else as uint32; atomically: readers see the old file or
// the new.
Result<> write_token_file(const std::filesystem::path& path, std::span<const std::uint32_t> tokens);

}  // namespace tutti::data
