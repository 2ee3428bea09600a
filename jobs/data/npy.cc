#include "jobs/data/npy.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "protocol/base/file.h"

namespace tutti::data {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic("\x93NUMPY", 6);

struct NpyHeader {
  TokenType type = TokenType::uint32;
  std::uint64_t count = 0;
  std::size_t offset = 0;
};

Error not_tokens(std::string_view path, std::string_view why) {
  return {ErrorCode::invalid_argument, fmt::format("{} is not a token file: {}", path, why)};
}

std::size_t width_of(TokenType type) { return type == TokenType::uint16 ? 2 : 4; }

// Reads the Python dictionary of the header: {'descr': '<u2', 'fortran_order': False, 'shape':
// (3,), }.
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : rest_(text) {}

  // Whether it is well formed; the three values are then as found.
  bool parse() {
    if (!take("{")) return false;
    while (!take("}")) {
      std::string_view key;
      if (!take_string(key) || !take(":")) return false;
      if (key == "descr" && descr.empty()) {
        if (!take_string(descr)) return false;
      } else if (key == "fortran_order") {
        if (!take("False") && !take("True")) return false;
      } else if (key == "shape" && dimensions == kNotGiven) {
        if (!take_shape()) return false;
      } else {
        return false;
      }
      if (!take(",") && !starts_with("}")) return false;
    }
    skip_space();
    return rest_.empty() && !descr.empty() && dimensions != kNotGiven;
  }

  static constexpr std::size_t kNotGiven = std::numeric_limits<std::size_t>::max();

  std::string_view descr;
  std::size_t dimensions = kNotGiven;
  std::uint64_t count = 0;  // of the only dimension

 private:
  void skip_space() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\n')) rest_.remove_prefix(1);
  }
  bool starts_with(std::string_view token) {
    skip_space();
    return rest_.starts_with(token);
  }
  bool take(std::string_view token) {
    if (!starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  bool take_string(std::string_view& value) {
    if (!take("'")) return false;
    const std::size_t end = rest_.find('\'');
    if (end == std::string_view::npos) return false;
    value = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return true;
  }
  bool take_shape() {
    if (!take("(")) return false;
    std::size_t found = 0;
    while (!take(")")) {
      skip_space();
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), count);
      if (error != std::errc{}) return false;
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      ++found;
      if (!take(",") && !starts_with(")")) return false;
    }
    dimensions = found;
    return true;
  }

  std::string_view rest_;
};

Result<NpyHeader> parse_header(std::string_view file, std::string_view path) {
  if (file.size() < 10 || !file.starts_with(kMagic)) {
    return not_tokens(path, "it does not begin like .npy");
  }
  const auto byte_at = [&](std::size_t i) {
    return static_cast<std::size_t>(static_cast<unsigned char>(file[i]));
  };
  const std::size_t major = byte_at(6);
  if (major < 1 || major > 3) {
    return not_tokens(path, fmt::format(".npy version {} is not known", major));
  }
  const std::size_t begin = major == 1 ? 10 : 12;
  if (file.size() < begin) return not_tokens(path, "its header is cut short");
  std::size_t length = byte_at(8) | byte_at(9) << 8;
  if (major > 1) length |= byte_at(10) << 16 | byte_at(11) << 24;
  if (length > kNpyHeaderBytesMax || file.size() - begin < length) {
    return not_tokens(path, "its header is cut short");
  }
  HeaderParser parser(file.substr(begin, length));
  if (!parser.parse()) return not_tokens(path, "its header cannot be read");

  NpyHeader header{.count = parser.count, .offset = begin + length};
  if (parser.descr == "<u2") {
    header.type = TokenType::uint16;
  } else if (parser.descr == "<u4") {
    header.type = TokenType::uint32;
  } else if (parser.descr == "<i4") {
    header.type = TokenType::int32;
  } else {
    return not_tokens(path, fmt::format("its type is {}; uint16, uint32 and int32 (little "
                                        "endian) can be read",
                                        parser.descr));
  }
  if (parser.dimensions != 1) {
    return not_tokens(path, fmt::format("it has {} dimensions, not one", parser.dimensions));
  }
  const std::uint64_t room = (file.size() - header.offset) / width_of(header.type);
  if (header.count > room) {
    return not_tokens(
        path, fmt::format("its header says {} tokens, but there are {}", header.count, room));
  }
  return header;
}

template <class T>
T load_at(const std::byte* tokens, std::uint64_t index) {
  T value;  // the header's length decides the alignment, so nothing is assumed about it
  std::memcpy(&value, tokens + index * sizeof(T), sizeof(T));
  return value;
}

template <class T>
std::uint64_t find_at_least(const std::byte* tokens, std::uint64_t first, std::uint64_t end,
                            std::uint32_t limit) {
  if (limit > std::numeric_limits<T>::max()) return end;
  // The maximum of a block is branch-free and vectorises; only a block that offends is searched.
  constexpr std::uint64_t kBlock = 4096;
  for (std::uint64_t begin = first; begin < end; begin += kBlock) {
    const std::uint64_t block_end = std::min(begin + kBlock, end);
    T largest = 0;
    for (std::uint64_t i = begin; i < block_end; ++i) {
      largest = std::max(largest, load_at<T>(tokens, i));
    }
    if (largest < limit) continue;
    for (std::uint64_t i = begin; i < block_end; ++i) {
      if (load_at<T>(tokens, i) >= limit) return i;
    }
  }
  return end;
}

}  // namespace

Result<TokenFile> TokenFile::open(const std::filesystem::path& path) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno_error("cannot open " + path.string(), errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return errno_error("cannot read " + path.string(), errno);
  if (S_ISDIR(status.st_mode)) return errno_error("cannot read " + path.string(), EISDIR);
  if (status.st_size == 0) return not_tokens(path.string(), "it is empty");
  TokenFile tokens;
  tokens.path_ = path.string();
  tokens.mapped_bytes_ = static_cast<std::size_t>(status.st_size);
  void* mapping = ::mmap(nullptr, tokens.mapped_bytes_, PROT_READ, MAP_SHARED, file.get(), 0);
  if (mapping == MAP_FAILED) return errno_error("cannot map " + path.string(), errno);
  tokens.mapping_ = static_cast<const std::byte*>(mapping);
  const std::string_view bytes(static_cast<const char*>(mapping), tokens.mapped_bytes_);
  const Result<NpyHeader> header = parse_header(bytes, tokens.path_);
  if (!header) return header.error();
  tokens.type_ = header->type;
  tokens.size_ = header->count;
  tokens.offset_ = header->offset;
  return tokens;
}

TokenFile::TokenFile(TokenFile&& other) noexcept { *this = std::move(other); }

TokenFile& TokenFile::operator=(TokenFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  std::swap(offset_, other.offset_);
  std::swap(size_, other.size_);
  std::swap(type_, other.type_);
  return *this;
}

TokenFile::~TokenFile() {
  if (mapping_ != nullptr) ::munmap(const_cast<std::byte*>(mapping_), mapped_bytes_);
}

void TokenFile::copy(std::uint64_t first, std::span<std::uint32_t> out) const {
  TUTTI_ASSERT(first <= size_ && out.size() <= size_ - first);
  const std::byte* tokens = mapping_ + offset_;
  if (type_ == TokenType::uint16) {
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = load_at<std::uint16_t>(tokens, first + i);
    }
  } else if (!out.empty()) {
    std::memcpy(out.data(), tokens + first * sizeof(std::uint32_t), out.size_bytes());
  }
}

std::uint64_t TokenFile::find_outside(std::uint64_t first, std::uint64_t count,
                                      std::uint32_t vocabulary) const {
  TUTTI_ASSERT(first <= size_ && count <= size_ - first);
  const std::byte* tokens = mapping_ + offset_;
  return type_ == TokenType::uint16
             ? find_at_least<std::uint16_t>(tokens, first, first + count, vocabulary)
             : find_at_least<std::uint32_t>(tokens, first, first + count, vocabulary);
}

Result<> write_token_file(const std::filesystem::path& path,
                          std::span<const std::uint32_t> tokens) {
  const bool narrow = std::all_of(tokens.begin(), tokens.end(), [](std::uint32_t id) {
    return id <= std::numeric_limits<std::uint16_t>::max();
  });
  std::string dictionary =
      fmt::format("{{'descr': '<{}', 'fortran_order': False, 'shape': ({},), }}",
                  narrow ? "u2" : "u4", tokens.size());
  // NumPy pads the header so that the data begins at a multiple of 64.
  dictionary.append(63 - (10 + dictionary.size()) % 64, ' ').push_back('\n');
  std::string content(kMagic);
  content.append({'\x01', '\x00', static_cast<char>(dictionary.size() & 0xff),
                  static_cast<char>(dictionary.size() >> 8)});
  content += dictionary;
  const std::size_t offset = content.size();
  if (narrow) {
    content.resize(offset + tokens.size() * sizeof(std::uint16_t));
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const auto id = static_cast<std::uint16_t>(tokens[i]);
      std::memcpy(content.data() + offset + i * sizeof id, &id, sizeof id);
    }
  } else {
    content.append(reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes());
  }
  return write_file_atomically(path, content);
}

}  // namespace tutti::data
