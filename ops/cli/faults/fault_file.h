// What `tutti fault run FILE` reads: a job, the faults that befall it, and what is expected of it.
//
//   spec: kjv.yaml                         a job to submit (path beside this file); or
//   job: kjv                               one that runs, by number or name
//   faults:
//     seed: 7
//     inject:
//       - {fault: kill-rank, at: step 20}
//       - {fault: stop-rank, rank: 1, at: step 35..60, for: 2s}
//       - {fault: kill-worker, every: 4s..9s, times: 3}
//
// It is a file of its own, not a part of the job's spec (decision 0028). Parsed as strictly as a
// spec. Moments are steps of the job, or times since it was first seen running; a range is drawn
// from the seed.
//
// Units: milliseconds. Limits: kFaultEntriesMax entries, kFaultTimesMax times each. Errors:
// invalid_argument, one line with file, line and column.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ops/cli/faults/fault_kinds.h"
#include "protocol/base/result.h"

namespace tutti::cli {

inline constexpr std::size_t kFaultEntriesMax = 100;
inline constexpr std::uint32_t kFaultTimesMax = 1'000;

enum class FaultClock { time, step };

// `3s`, `2s..5s`, `step 20`, `step 20..80`: both ends included.
struct FaultSpan {
  FaultClock clock = FaultClock::time;
  std::uint64_t first = 0;  // ms, or steps
  std::uint64_t last = 0;

  bool operator==(const FaultSpan&) const = default;
};

std::optional<FaultSpan> parse_fault_span(std::string_view text);
std::string print_fault_span(const FaultSpan& span);

struct FaultEntry {
  FaultKind kind = FaultKind::kill_rank;
  std::optional<std::uint32_t> rank;  // else any
  std::string node;                   // empty: any
  std::optional<FaultSpan> at;
  std::optional<FaultSpan> every;
  std::uint32_t times = 1;
  std::uint64_t lasts_ms = 0;  // 0 of a fault that lasts: it is not ended (stop-rank alone)
  std::uint64_t delay_ms = 0;
  std::string place;  // file:line:column, for errors that only the job's spec shows

  bool operator==(const FaultEntry&) const = default;
};

// What the job's weights are compared with.
enum class FaultCompare {
  undisturbed,  // a run of the same spec without faults, every step
  verify,       // a replay on one rank, from the newest checkpoint before the first fault
  none
};

enum class FaultUntil {
  end,       // the job ends
  recovered  // it has gone on for some steps after the last fault; it is left running
};

struct FaultFile {
  std::string name;
  std::string spec;  // path as written; or
  std::string job;
  std::vector<std::string> set;
  std::optional<std::uint64_t> seed;
  std::vector<FaultEntry> entries;
  FaultCompare compare = FaultCompare::undisturbed;
  FaultUntil until = FaultUntil::end;
  std::string expect = "done";  // a state; of until: recovered it is running
  std::uint64_t bound_ms = 60'000;
  std::uint64_t deadline_ms = 1'800'000;

  bool operator==(const FaultFile&) const = default;
};

Result<FaultFile> parse_fault_file(std::string_view yaml, std::string_view file);

// The same from the disk; `name` is the file's own where it says none.
Result<FaultFile> load_fault_file(const std::string& file);

// Every key with its default and meaning, for `tutti help fault run`.
std::string fault_file_keys();

}  // namespace tutti::cli
