// Measures the disk below a folder by one file there: how fast it is written and synced in a row,
// how long a small write takes to be durable, how fast it is read.
//
// The file has no name in the folder while it is measured: whatever ends this process removes it.
// Only where the file system knows no such files it has one, for the moment until that is removed.
// Reads and writes go past the page cache where the file system lets them; where it does not, the
// file is dropped from it before it is read, and the measure says so.
//
// Threads: plain functions, which a disk that is not well may keep for good (disk_check.h).
// Limits: the file is `bytes_max` or a tenth of what is free, each measure kEach by its own count.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "protocol/base/clock.h"
#include "protocol/base/result.h"

namespace tutti::cli {

struct DiskMeasures {
  // Writing and reading stop after it, behind the piece that they are at.
  static constexpr Duration kEach = std::chrono::seconds(3);

  std::filesystem::path folder;
  std::uint64_t bytes_max = std::uint64_t{256} << 20;
  // What a file system may lack; for tests.
  bool nameless = true;
  bool past_the_cache = true;
};

struct DiskSpeed {
  double value = 0;
  std::string how = {};  // "past the page cache", ...; empty: it makes no difference
};

// A measure begins, and has ended.
struct DiskWords {
  std::function<void(const std::string& name, const std::string& unit)> begins;
  std::function<void(const Result<DiskSpeed>& speed)> ended;
};

// "free space" (bytes), "write" (MB/s), "sync" and "slowest sync" (ms), "read" (MB/s), in this
// order, to the first that fails. Errors: that one's; of the folder.
Result<> measure_disk(const DiskMeasures& measures, const DiskWords& words);

}  // namespace tutti::cli
