// The step records of one job: every step once, whoever reported it first, in the order in which
// they came.
//
//   <folder>/steps.jsonl   one JSON object a line
//
// All ranks report each step, and a generation that goes back to a checkpoint reports steps again:
// these records must carry the same `weights`. If one does not, two ranks have different weights,
// which the caller must make the end of the job.
//
// Threads: one at a time. Limits: kStepLineBytesMax a record; kStepsMax records, then further steps
// are not kept. Errors: those of the file; `exhausted` on a full disk leaves the store as it was.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/store/append_file.h"
#include "protocol/base/result.h"

namespace tutti::coordinator {

struct StepMismatch {
  std::uint64_t step = 0;
  std::string message;
};

struct StepsTaken {
  std::uint64_t count = 0;               // records that are new
  std::uint64_t newest = 0;              // the largest step of all records kept
  std::optional<StepMismatch> mismatch;  // the first one met
};

class StepStore {
 public:
  static constexpr std::size_t kStepLineBytesMax = 4096;
  static constexpr std::size_t kStepsMax = 10'000'000;

  static Result<StepStore> open(const std::filesystem::path& folder);

  // Whole lines. Not durable before sync. Lines that are no step records are left out.
  Result<StepsTaken> append(std::string_view lines);
  Result<> sync() { return file_.sync(); }

  // Records after the first `after` ones, at most `count_max`.
  Result<std::vector<std::string>> read(std::uint64_t after, std::size_t count_max) const;

  std::uint64_t count() const { return offsets_.size(); }

 private:
  explicit StepStore(AppendFile file) : file_(std::move(file)) {}

  AppendFile file_;
  std::vector<std::uint64_t> offsets_;            // of each record
  std::map<std::uint64_t, std::string> weights_;  // by step
};

}  // namespace tutti::coordinator
