// Files, with errors as values and durability said: read whole, write atomically, sync folders, own
// descriptors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "protocol/base/result.h"

namespace tutti {

// Owns one file descriptor; closes it when it ends.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
  FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  ~FileDescriptor() { reset(); }

  int get() const { return descriptor_; }
  explicit operator bool() const { return descriptor_ >= 0; }
  int release() {
    const int descriptor = descriptor_;
    descriptor_ = -1;
    return descriptor;
  }
  void reset(int descriptor = -1);

 private:
  int descriptor_ = -1;
};

// The whole file. Errors: not_found, permission_denied; exhausted above `bytes_max`.
Result<std::string> read_file(const std::filesystem::path& path,
                              std::uint64_t bytes_max = std::uint64_t{1} << 30);

// Readers see the old content or the new, never a part: written beside, synced, renamed, folder
// synced. `mode` are the permission bits of the new file. On error the old file stays and nothing
// is left beside it.
Result<> write_file_atomically(const std::filesystem::path& path, std::string_view content,
                               unsigned mode = 0644);

// Makes creations, renames and removals in the folder durable.
Result<> sync_folder(const std::filesystem::path& folder);

}  // namespace tutti
