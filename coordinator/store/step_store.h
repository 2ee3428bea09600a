// The step records of one job: every step once, whoever reported it first, read in the order of
// steps.
//
//   <folder>/steps.jsonl   one JSON object a line, as they came; only where there are any
//   <folder>/steps.index   where the older ones lie in it (step_index.h)
//
// All ranks report each step, and a generation that goes back to a checkpoint reports steps again:
// these records must carry the same `weights`. If one does not, two ranks have different weights,
// which the caller must make the end of the job.
//
// A reader's cursor is a step. After a recovery a survivor's later step may arrive before a
// newcomer's earlier one, so readers see a step only once all before it are there, or once these
// have not come for kGapHold.
//
// Threads: one at a time. Limits: kStepLineBytesMax a record; kStepsMax records, then further steps
// are not kept, which is said once; kRecentMax records and what came since the last sync are in
// memory. Errors: those of the file; `exhausted` on a full disk leaves the store as it was.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/store/append_file.h"
#include "coordinator/store/step_index.h"
#include "protocol/base/clock.h"
#include "protocol/base/ids.h"
#include "protocol/base/result.h"

namespace tutti::coordinator {

// Whose records they are; process 0: nobody knows any more.
struct StepReporter {
  ProcessId process;
  std::uint32_t rank = 0;  // that the process began as
};

struct StepMismatch {
  std::uint64_t step = 0;
  std::string message;  // names who said what, and the one that differs where several agree
};

struct StepsTaken {
  std::uint64_t count = 0;               // records that are new
  std::uint64_t newest = 0;              // the largest step of all records kept
  std::optional<StepMismatch> mismatch;  // the first one met
  bool full = false;                     // records are dropped from here on: said once
};

// What the newest record says, for those who only want to know how it goes.
struct StepFigures {
  std::uint64_t step = 0;
  double loss = 0;
  double grad_norm = 0;
  double seconds = 0;
  std::uint64_t tokens_total = 0;  // of all records kept since the store was opened
};

struct StepsRead {
  std::vector<std::string> records;
  std::uint64_t next = 0;
  bool held = false;  // there are later steps that readers do not see yet
};

class StepStore {
 public:
  static constexpr std::size_t kStepLineBytesMax = 4096;
  static constexpr std::size_t kStepsMax = 10'000'000;
  static constexpr std::size_t kRecentMax = 8'192;
  static constexpr Duration kGapHold = std::chrono::seconds(3);

  static Result<StepStore> open(const std::filesystem::path& folder);

  // Whole lines. Not durable before sync. Lines that are no step records are left out.
  Result<StepsTaken> append(std::string_view lines, StepReporter from = {});
  Result<> sync();
  // Holds no descriptor until it is asked for something, if all is synced.
  void rest() const { file_.rest(); }

  // Records of steps above `after`, at most `count_max`.
  Result<StepsRead> read(std::uint64_t after, std::size_t count_max, Instant now);

  std::uint64_t count() const { return index_.count() + rows_.size(); }
  std::size_t in_memory() const { return rows_.size(); }
  const StepFigures& figures() const { return figures_; }

 private:
  StepStore(AppendFile file, StepIndex index) : file_(std::move(file)), index_(std::move(index)) {}

  struct Row {
    std::uint64_t offset = 0;
    std::uint32_t size = 0;
    bool confirmed = false;  // another process said the same
    StepReporter from = {};
    std::string weights;
  };

  // Whether it agrees with what is kept of the step.
  static std::optional<StepMismatch> compare(std::uint64_t step, const std::string& weights,
                                             const StepReporter& from, Row& kept);

  Result<> read_rows();
  Result<> leave_memory();
  // What is kept of a step that is in the index.
  Result<std::optional<Row>> find_older(std::uint64_t step) const;
  std::uint64_t newest() const;
  void advance(Instant now);

  AppendFile file_;
  StepIndex index_;
  std::map<std::uint64_t, Row> rows_;  // the newest that came, by step
  bool full_ = false;
  bool index_failing_ = false;
  std::uint64_t shown_ = 0;         // readers see the steps up to this one
  std::optional<Instant> blocked_;  // since when the next one is missing
  StepFigures figures_;
};

}  // namespace tutti::coordinator
