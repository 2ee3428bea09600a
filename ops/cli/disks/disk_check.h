// What `tutti check --disk` has found out about the disks below some folders.
//
// A disk that is not well (a network file system whose server is away) keeps for good whoever asks
// it: each folder is measured by a process of its own, `tutti check --disk-measure FOLDER`, that
// writes a line before each measure and after it, and is ended when it does not in its time.
//
// Threads: measure_disks on the main one (it forks); the rest is pure.
#pragma once

#include <boost/json/object.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ops/cli/doctor/findings.h"
#include "protocol/base/clock.h"

namespace tutti::cli {

// The word behind `tutti check` of that process; for nobody else.
inline constexpr std::string_view kDiskMeasureWord = "--disk-measure";

struct DiskMeasure {
  std::string name;
  std::string unit;
  std::optional<double> value = {};
  std::string how = {};
  std::string problem = {};  // why there is no value
};

struct FolderCheck {
  std::string use;  // "state"; what it is for
  std::filesystem::path folder;
  std::string looked_at = {};  // itself, or what of its path is there
  std::uint64_t disk = 0;      // number of its file system; 0: not known
  std::string same_as = {};    // use of a folder before it on the same one, which was measured
  std::string problem = {};    // why not all was measured, where no measure says it
  std::vector<DiskMeasure> measures = {};  // in their order

  // A line of its process; others are ignored. Whether it is one.
  bool take(std::string_view line);
  // The measure that has begun and not ended; null: none.
  DiskMeasure* open();
  const DiskMeasure* measure(std::string_view name) const;
};

struct DiskChecking {
  std::vector<std::string> command;           // `tutti check --disk-measure`; the folder follows
  Duration first = std::chrono::seconds(20);  // until a process has looked at its folder
  Duration each = std::chrono::seconds(20);   // of one measure
};

// Each of the folders, of which `use` and `folder` are set.
void measure_disks(const DiskChecking& checking, std::vector<FolderCheck>& folders);

// What that process does. Gives its exit code.
int run_disk_measure(const std::filesystem::path& folder, const std::vector<std::string>& seen);

std::vector<Finding> judge_disks(const std::vector<FolderCheck>& folders);
std::string disks_page(const std::vector<FolderCheck>& folders,
                       const std::vector<Finding>& findings, Paint paint);
boost::json::object disks_json(const std::vector<FolderCheck>& folders,
                               const std::vector<Finding>& findings);

}  // namespace tutti::cli
