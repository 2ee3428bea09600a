#include "jobs/models/image_cache.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string>

#include "protocol/base/cache_folder.h"
#include "protocol/base/file.h"
#include "protocol/base/log.h"
#include "protocol/base/secret.h"

namespace tutti::models {

namespace {

using kernels::Hash128;
using Piece = std::span<const std::byte>;

constexpr std::array<char, 8> kMagic = {'t', 'u', 't', 't', 'i', 'i', 'm', 'g'};
constexpr std::uint32_t kVersion = 1;
// Some hundreds of matrices are a large model's.
constexpr std::uint32_t kPiecesMax = 1 << 20;
constexpr std::uint64_t kPage = 4096;
// KEY.images; while it is written, KEY.images.new-XXXX.
constexpr std::string_view kSuffix = ".images";
constexpr std::string_view kUnfinished = ".new-";
constexpr std::size_t kKeyDigits = 32;

struct Header {
  std::array<char, 8> magic = kMagic;
  std::uint32_t version = kVersion;
  std::uint32_t pieces = 0;
  std::uint64_t bytes = 0;  // of the file
  Hash128 key;
  Hash128 hash;  // of header and table, this field zero
  std::uint64_t unused = 0;
};
static_assert(sizeof(Header) == 64);

struct Entry {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  Hash128 hash;
};
static_assert(sizeof(Entry) == 32);

std::uint64_t whole_pages(std::uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// Of header and table, as one block.
Hash128 hash_head(Header header, std::span<const Entry> table) {
  header.hash = {};
  std::vector<float> words((sizeof header + table.size_bytes()) / sizeof(float));
  std::memcpy(words.data(), &header, sizeof header);
  if (!table.empty()) {
    std::memcpy(reinterpret_cast<std::byte*>(words.data()) + sizeof header, table.data(),
                table.size_bytes());
  }
  return kernels::hash_block(words);
}

// What is wrong with the file; empty: nothing. Fills the pieces.
std::string check(const kernels::OpContext& ctx, const Hash128& key, Piece file,
                  std::vector<Piece>& pieces) {
  Header header;
  if (file.size() < sizeof header) return "it is too short";
  std::memcpy(&header, file.data(), sizeof header);
  if (header.magic != kMagic || header.version != kVersion) return "it is no file of images";
  if (header.key != key || header.pieces > kPiecesMax) return "its header is another file's";
  if (header.bytes != file.size() || file.size() < sizeof header + header.pieces * sizeof(Entry)) {
    return "it was cut short";
  }
  std::vector<Entry> table(header.pieces);
  if (!table.empty()) {
    std::memcpy(table.data(), file.data() + sizeof header, table.size() * sizeof(Entry));
  }
  if (hash_head(header, table) != header.hash) return "its header is damaged";
  for (const Entry& entry : table) {
    if (entry.offset > file.size() || entry.bytes > file.size() - entry.offset ||
        entry.offset % kPage != 0 || entry.bytes % sizeof(float) != 0) {
      return "its table is wrong";
    }
    pieces.push_back(file.subspan(entry.offset, entry.bytes));
    if (hash_bytes(ctx, pieces.back()) != entry.hash) return "an image in it is damaged";
  }
  return {};
}

Result<> write_at(int file, Piece bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return errno_error("write", count < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return {};
}

Result<> write_file(int file, const Header& header, std::span<const Entry> table,
                    std::span<const Piece> pieces) {
  if (auto done = write_at(file, std::as_bytes(std::span(&header, 1)), 0); !done) return done;
  if (auto done = write_at(file, std::as_bytes(table), sizeof header); !done) return done;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (auto done = write_at(file, pieces[i], table[i].offset); !done) return done;
  }
  if (::ftruncate(file, static_cast<off_t>(header.bytes)) != 0) return errno_error("write", errno);
  return {};
}

enum class Name { foreign, whole, unfinished };

Name name_of(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  if (std::string_view(name).find_first_not_of("0123456789abcdef") != kKeyDigits) {
    return Name::foreign;
  }
  const std::string_view rest = std::string_view(name).substr(kKeyDigits);
  if (rest == kSuffix) return Name::whole;
  const bool ours =
      rest.starts_with(kSuffix) && rest.substr(kSuffix.size()).starts_with(kUnfinished);
  return ours ? Name::unfinished : Name::foreign;
}

bool not_kept(const std::filesystem::path& file, std::string_view why) {
  TUTTI_LOG_WARNING("models", "images of weights are not kept: {}: {}", file.string(), why);
  return false;
}

}  // namespace

Hash128 hash_bytes(const kernels::OpContext& ctx, Piece bytes) {
  std::vector<float> moved;
  std::span<const float> values;
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(float) == 0 &&
      bytes.size() % sizeof(float) == 0) {
    values = {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
  } else {
    moved.resize(bytes.size() / sizeof(float) + (bytes.size() % sizeof(float) == 0 ? 0 : 1));
    std::ranges::copy(bytes, std::as_writable_bytes(std::span(moved)).begin());
    values = moved;
  }
  std::vector<Hash128> hashes(
      static_cast<std::size_t>(kernels::grid_blocks(static_cast<kernels::Index>(values.size()))));
  const auto hashed = kernels::hash_blocks({.pool = ctx.pool}, values, hashes);
  TUTTI_ASSERT(hashed.ok());
  return kernels::combine_hashes(hashes);
}

std::uint64_t free_bytes_at(const std::filesystem::path& folder) {
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0) return 0;
  return std::uint64_t{status.f_bavail} * status.f_frsize;
}

MappedImages::~MappedImages() {
  if (!mapping_.empty()) ::munmap(mapping_.data(), mapping_.size());
}

ImageCache ImageCache::from_environment() {
  Options options;
  const auto folder = cache_folder();
  if (!folder.empty()) options.folder = folder / "images";
  const char* const text = std::getenv("TUTTI_IMAGE_BYTES");
  if (text == nullptr) return ImageCache(std::move(options));
  const std::string_view wish(text);
  const auto read = std::from_chars(wish.data(), wish.data() + wish.size(), options.bytes_max);
  if (read.ec != std::errc() || read.ptr != wish.data() + wish.size()) {
    TUTTI_LOG_WARNING("models", "TUTTI_IMAGE_BYTES is no number of bytes: \"{}\"; nothing is kept",
                      wish);
    options.bytes_max = 0;
  }
  return ImageCache(std::move(options));
}

std::filesystem::path ImageCache::file_of(const Hash128& key) const {
  return options_.folder / (kernels::to_string(key) + std::string(kSuffix));
}

std::optional<MappedImages> ImageCache::find(const kernels::OpContext& ctx,
                                             const Hash128& key) const {
  if (!keeps()) return std::nullopt;
  const auto path = file_of(key);
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (!file || ::fstat(file.get(), &status) != 0) return std::nullopt;
  std::string wrong = "it is no file";
  MappedImages found;
  if (S_ISREG(status.st_mode) && status.st_size > 0) {
    const auto bytes = static_cast<std::size_t>(status.st_size);
    void* const data = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.get(), 0);
    if (data == MAP_FAILED) {
      wrong = errno_error("map", errno).message;
    } else {
      found.mapping_ = {static_cast<std::byte*>(data), bytes};
      wrong = check(ctx, key, found.mapping_, found.pieces_);
    }
  }
  if (!wrong.empty()) {
    TUTTI_LOG_WARNING("models", "images of weights are made anew: {}: {}", path.string(), wrong);
    return std::nullopt;
  }
  // In use now: the last to be removed. Without the right to say so it only goes earlier.
  [[maybe_unused]] const int touched = ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
  return found;
}

// Removes what writers have left that are no more, and what was used longest ago, until `bytes`
// more fit. Nothing of it where they never will. Under the folder's lock.
bool ImageCache::make_room(std::uint64_t bytes) const {
  struct Kept {
    std::filesystem::file_time_type used;
    std::uint64_t bytes;
    std::filesystem::path path;
  };
  std::vector<Kept> kept;
  std::uint64_t held = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator at(options_.folder, error), end; !error && at != end;
       at.increment(error)) {
    std::error_code gone;  // another process may remove it meanwhile
    const Name name = name_of(at->path());
    if (name == Name::foreign || !at->is_regular_file(gone)) continue;
    if (name == Name::unfinished) {
      std::filesystem::remove(at->path(), gone);
      continue;
    }
    const Kept one{at->last_write_time(gone), at->file_size(gone), at->path()};
    if (gone) continue;
    held += one.bytes;
    kept.push_back(one);
  }
  const std::uint64_t free = options_.free_bytes(options_.folder);
  std::uint64_t removed = 0;
  const auto fits = [&](std::uint64_t without) {
    return bytes <= options_.bytes_max && held - without <= options_.bytes_max - bytes &&
           bytes <= (free + without) / 2;
  };
  if (!fits(held)) return false;
  std::ranges::sort(kept, {}, &Kept::used);
  for (const Kept& oldest : kept) {
    if (fits(removed)) break;
    std::error_code ignored;
    if (std::filesystem::remove(oldest.path, ignored)) removed += oldest.bytes;
  }
  return fits(removed);
}

bool ImageCache::store(const kernels::OpContext& ctx, const Hash128& key,
                       std::span<const Piece> pieces) const {
  if (!keeps()) return false;
  const auto path = file_of(key);
  std::error_code error;
  std::filesystem::create_directories(options_.folder, error);
  if (error) return not_kept(path, error.message());
  const FileDescriptor lock(::open(options_.folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return not_kept(path, errno == EWOULDBLOCK ? "another process is writing some"
                                               : errno_error("lock", errno).message);
  }
  Header header{.pieces = static_cast<std::uint32_t>(pieces.size()), .key = key, .hash = {}};
  std::vector<Entry> table;
  header.bytes = whole_pages(sizeof header + pieces.size() * sizeof(Entry));
  for (const Piece& piece : pieces) {
    table.push_back({header.bytes, piece.size(), {}});
    header.bytes += whole_pages(piece.size());
  }
  if (!make_room(header.bytes)) {
    return not_kept(path, fmt::format("{} bytes; the limit is {}, and half of what is free",
                                      header.bytes, options_.bytes_max));
  }
  for (std::size_t i = 0; i < pieces.size(); ++i) table[i].hash = hash_bytes(ctx, pieces[i]);
  header.hash = hash_head(header, table);
  const std::filesystem::path beside =
      fmt::format("{}{}{}", path.string(), kUnfinished, random_hex(4));
  FileDescriptor file(::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file) return not_kept(path, errno_error("write", errno).message);
  Result<> written = write_file(file.get(), header, table, pieces);
  file.reset();
  if (written && ::rename(beside.c_str(), path.c_str()) != 0) {
    written = errno_error("rename", errno);
  }
  if (!written) ::unlink(beside.c_str());
  return written ? true : not_kept(path, written.error().message);
}

}  // namespace tutti::models
