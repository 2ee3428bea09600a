// A file that only grows: appends that happen whole or not at all, and an explicit sync.
//
// Used by the stores of logs and step records. A failed append (a full disk) leaves the file as it
// was. After a failed sync the system takes what it did not write for clean, and the next sync
// would speak of nothing: so everything since the last good one is cut off, and this file takes no
// more. Whoever keeps something about the content reads it again from a file that is opened anew.
// One that rests holds no descriptor; it is opened again by whatever it is asked next.
// Errors: those of the file, with its path.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "protocol/base/file.h"
#include "protocol/base/result.h"

namespace tutti::coordinator {

// When a file that is missing is made, and its folder synced.
enum class MakeFile { at_once, when_appended };

class AppendFile {
 public:
  static Result<AppendFile> open(const std::filesystem::path& path,
                                 MakeFile make = MakeFile::at_once);

  Result<> append(std::string_view bytes);
  Result<> sync();  // nothing to do if nothing was appended since; open() counts as that
  Result<> cut(std::uint64_t bytes);

  // Up to `bytes_max` from `offset`; less at the end of the file.
  Result<std::string> read(std::uint64_t offset, std::size_t bytes_max) const;

  std::uint64_t size() const { return size_; }

  // Nothing happens to one that has something to sync.
  void rest() const;

 private:
  explicit AppendFile(std::string path) : path_(std::move(path)) {}

  Result<> make();
  Result<> wake() const;

  mutable FileDescriptor file_;
  std::string path_;
  bool there_ = false;
  std::uint64_t size_ = 0;
  std::uint64_t synced_ = 0;  // of it; what was there at open() is not known to be
  bool dirty_ = false;
  bool failed_ = false;  // a sync has
};

}  // namespace tutti::coordinator
