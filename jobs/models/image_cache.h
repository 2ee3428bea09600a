// Images of a model's weights in files of the user's cache folder, so that the next start maps them
// where this one has quantised and laid them out.
//
//   FOLDER/KEY.images    header | table: offset, bytes, hash of each piece | pieces, page by page
//
// The key is the caller's: the hash of what the images were made from and how. A file is written
// beside and renamed, and never changed after that; so processes share it, and its pages in memory.
// It is not synced: before it is used its header, its length and the hash of each piece are
// checked, and a file that is damaged or no file of ours is passed over with a line in the log, and
// replaced by the next store. So are a folder that cannot be written and a full disk: no start
// fails for its cache.
//
// One process writes at a time, by a lock on the folder; another's store keeps nothing meanwhile.
// Files are removed, the one longest unused first, so that all of them stay within `bytes_max` and
// a new one takes at most half of the space that is free; processes that have mapped one keep it.
// What a writer that died has left is removed by the next. Files of other names are nobody's
// business here.
//
// Ownership: none; what was mapped is owned by MappedImages. Threads: any; processes may share the
// folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/ops/weight_hash.h"
#include "kernels/tensor/op_context.h"

namespace tutti::models {

// Pieces of a mapped file, read-only, each on a page of its own.
class MappedImages {
 public:
  MappedImages() = default;
  MappedImages(MappedImages&& other) noexcept
      : mapping_(std::exchange(other.mapping_, {})), pieces_(std::move(other.pieces_)) {}
  MappedImages& operator=(MappedImages&& other) noexcept {
    std::swap(mapping_, other.mapping_);
    std::swap(pieces_, other.pieces_);
    return *this;
  }
  ~MappedImages();

  std::span<const std::span<const std::byte>> pieces() const { return pieces_; }

 private:
  friend class ImageCache;
  std::span<std::byte> mapping_;
  std::vector<std::span<const std::byte>> pieces_;
};

// By the pool, of bytes wherever they lie; the last float of them is filled with zeros.
kernels::Hash128 hash_bytes(const kernels::OpContext& ctx, std::span<const std::byte> bytes);

std::uint64_t free_bytes_at(const std::filesystem::path& folder);

class ImageCache {
 public:
  struct Options {
    std::filesystem::path folder;  // made when it is first written to; empty: nothing is kept
    std::uint64_t bytes_max = std::uint64_t{32} << 30;  // of all files together
    // Bytes that are free where the folder is; another one in tests.
    std::uint64_t (*free_bytes)(const std::filesystem::path& folder) = free_bytes_at;
  };

  explicit ImageCache(Options options) : options_(std::move(options)) {}
  // `images` in the cache folder (protocol/base/cache_folder.h); $TUTTI_IMAGE_BYTES: bytes_max, 0
  // keeps nothing.
  static ImageCache from_environment();

  bool keeps() const { return !options_.folder.empty() && options_.bytes_max > 0; }
  // None: there is no file of this key, or not a sound one.
  std::optional<MappedImages> find(const kernels::OpContext& ctx,
                                   const kernels::Hash128& key) const;
  // Each piece has a multiple of 4 bytes. Whether they were kept.
  bool store(const kernels::OpContext& ctx, const kernels::Hash128& key,
             std::span<const std::span<const std::byte>> pieces) const;

 private:
  std::filesystem::path file_of(const kernels::Hash128& key) const;
  bool make_room(std::uint64_t bytes) const;

  Options options_;
};

}  // namespace tutti::models
