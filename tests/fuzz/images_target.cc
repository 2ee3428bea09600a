// The header and the table of a file of kept images, as another build or a damaged disk leaves it.
#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <optional>
#include <span>
#include <vector>

#include "jobs/models/image_cache.h"
#include "kernels/tensor/thread_pool.h"
#include "protocol/base/log.h"
#include "tests/fuzz/targets.h"
#include "tests/fuzz/words.h"
#include "tests/support/temporary_folder.h"

namespace tutti::fuzz {

namespace {

using kernels::Hash128;
using models::ImageCache;

constexpr Hash128 kKey = {1, 2};
constexpr std::size_t kHeaderWords = 8;
constexpr std::size_t kEntryWords = 4;
constexpr std::size_t kPage = 4'096;
constexpr std::size_t kFilePages = 4;
constexpr std::size_t kFileWords = kFilePages * kPage / sizeof(std::uint64_t);
using File = std::array<std::uint64_t, kFileWords>;

class Kept {
 public:
  Kept() : cache_({.folder = folder_.path()}) { set_log_level(LogLevel::error); }

  // What the cache makes of a file of these bytes: how many bytes of images, if it takes it.
  std::optional<std::size_t> read(std::string_view bytes) {
    std::ofstream(folder_.path() / (kernels::to_string(kKey) + ".images"),
                  std::ios::binary | std::ios::trunc)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    const auto found = cache_.find({.pool = &pool_}, kKey);
    if (!found) return std::nullopt;
    std::size_t size = 0;
    for (const auto& piece : found->pieces()) {
      require(piece.size() <= bytes.size(), "an image is longer than its file");
      require(reinterpret_cast<std::uintptr_t>(piece.data()) % kPage == 0, "an image on no page");
      for (const std::byte each : piece) read_ = each;  // each of them is there
      size += piece.size();
    }
    return size;
  }

  // Of a piece that lies within the file, the hash that is asked for.
  Hash128 hash(std::string_view file, std::uint64_t offset, std::uint64_t bytes) {
    if (offset > file.size() || bytes > file.size() - offset) return {};
    if (offset % sizeof(float) != 0 || bytes % sizeof(float) != 0) return {};
    const std::span<const float> values(reinterpret_cast<const float*>(file.data() + offset),
                                        bytes / sizeof(float));
    std::vector<Hash128> blocks(
        static_cast<std::size_t>(kernels::grid_blocks(static_cast<kernels::Index>(values.size()))));
    require(kernels::hash_blocks({.pool = &pool_}, values, blocks).ok(), "no hash");
    return kernels::combine_hashes(blocks);
  }

 private:
  test::TemporaryFolder folder_;
  kernels::ThreadPool pool_{1};
  ImageCache cache_;
  volatile std::byte read_{};
};

std::string_view bytes_of(const File& file) {
  return {reinterpret_cast<const char*>(file.data()), sizeof file};
}

// The file's length as it is told, how many pieces, and offset and length of each; with the right
// hashes, as one would write who wants it to be taken.
File file_of(std::string_view bytes, Kept& kept) {
  File file{};
  std::memcpy(file.data(), "tuttiimg", 8);
  const std::uint64_t pieces = word_at(bytes, 1);
  file[1] = 1 | pieces << 32;
  file[2] = word_at(bytes, 0);
  file[3] = kKey.high;
  file[4] = kKey.low;
  for (std::size_t at = kPage / sizeof(std::uint64_t); at < file.size(); ++at) file[at] = at;
  const std::size_t listed = std::min<std::uint64_t>(
      pieces & 0xffffffff, (kPage / sizeof(std::uint64_t) - kHeaderWords) / kEntryWords);
  for (std::size_t i = 0; i < listed; ++i) {
    std::uint64_t* const entry = &file[kHeaderWords + i * kEntryWords];
    entry[0] = word_at(bytes, 2 + 2 * i);
    entry[1] = word_at(bytes, 3 + 2 * i);
    // Of one that begins in the table itself it would change with it.
    if (entry[0] < kPage) continue;
    const Hash128 hash = kept.hash(bytes_of(file), entry[0], entry[1]);
    entry[2] = hash.high;
    entry[3] = hash.low;
  }
  const std::string_view head =
      bytes_of(file).substr(0, (kHeaderWords + listed * kEntryWords) * sizeof(std::uint64_t));
  const Hash128 hash = kernels::hash_block(
      {reinterpret_cast<const float*>(head.data()), head.size() / sizeof(float)});
  file[5] = hash.high;
  file[6] = hash.low;
  return file;
}

}  // namespace

bool take_weight_images(std::string_view bytes) {
  static Kept kept;
  // As they are, too.
  static_cast<void>(kept.read(bytes));
  const File file = file_of(bytes, kept);
  const auto size = kept.read(bytes_of(file));
  require(!size || word_at(bytes, 0) == sizeof file, "a file of another length is taken");
  return size && *size > 0;
}

std::vector<std::string> weight_images_seeds() {
  constexpr std::uint64_t kBytes = kFilePages * kPage;
  return {words({kBytes, 2, kPage, 400, 2 * kPage, 2 * kPage}),
          words({kBytes, 1, 3 * kPage, kPage}),
          words({kBytes, 2, kPage, kPage, kPage, 4}),
          words({kBytes, 0}),
          words({kBytes - 1, 1, kPage, 400}),
          words({kBytes, 1, kPage + 4, 400}),
          words({kBytes, 1, kPage, 402}),
          words({kBytes, 1, 3 * kPage, kPage + 4}),
          words({kBytes, 1, 0, 64}),
          words({kBytes, 1, ~std::uint64_t{0} - kPage + 1, kPage}),
          words({kBytes, 0xffffffff, kPage, 4}),
          "tuttiimg"};
}

}  // namespace tutti::fuzz
