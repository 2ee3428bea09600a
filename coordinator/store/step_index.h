// Where the step records lie that are not in memory any more: a row of fixed width a step, on disk.
//
//   <folder>/steps.index   a header, then 24 bytes for each step from 0 on; a hole: nothing there
//
// It says nothing that the records do not: of a file without it, or with one that is damaged or of
// other records, all records are read anew. Rows are synced before the header that counts them, so
// what a crash leaves behind them is not in it.
//
// Threads: one at a time. Limits: kStepMax; the file has holes where steps are missing. Errors:
// those of the file; corrupt (a row is not as it was written).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "protocol/base/file.h"
#include "protocol/base/result.h"

namespace tutti::coordinator {

class StepIndex {
 public:
  static constexpr std::uint64_t kStepMax = std::uint64_t{1} << 32;

  struct Row {
    std::uint64_t offset = 0;  // in the file of the records
    std::uint32_t size = 0;
  };
  using Rows = std::map<std::uint64_t, Row>;  // by step

  // Of a file of records that is `bytes` long. Makes no file.
  static StepIndex open(const std::filesystem::path& folder, std::uint64_t bytes);

  // All records before this offset are in it, and no others.
  std::uint64_t covered() const { return header_.covered; }
  std::uint64_t count() const { return header_.count; }
  std::uint64_t newest() const { return header_.newest; }  // step

  // Adds the records up to the new `covered`. On an error it is as it was.
  Result<> add(const Rows& rows, std::uint64_t covered);

  Result<std::optional<Row>> find(std::uint64_t step) const;
  // The first of those above `after`, at most `count_max`.
  Result<Rows> next(std::uint64_t after, std::size_t count_max) const;

 private:
  struct Header {
    std::uint64_t magic = 0;
    std::uint64_t covered = 0;
    std::uint64_t count = 0;
    std::uint64_t newest = 0;
    std::uint64_t check = 0;
  };
  struct Cell {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    std::uint64_t check = 0;
  };

  explicit StepIndex(std::filesystem::path path) : path_(std::move(path)) {}

  static std::uint64_t check_of(const Header& header);
  static std::uint64_t check_of(std::uint64_t step, const Cell& cell);
  static std::uint64_t place_of(std::uint64_t step);
  bool counts(const Cell& cell) const;
  bool is_sound(std::uint64_t step, const Cell& cell) const;  // of one that counts
  Error damaged(std::uint64_t step) const;
  Result<FileDescriptor> open_file(int flags) const;
  Result<> write(int file, std::uint64_t at, const void* bytes, std::size_t size) const;

  std::filesystem::path path_;
  Header header_;
};

}  // namespace tutti::coordinator
