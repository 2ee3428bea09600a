// The plan and the judgement of `tutti verify`: which checkpoint to replay from, the job that does
// it, and the comparison of weight hashes. Pure.
//
// Same spec, same bits: a replay on one rank must give the hash of every step, whatever the job
// went through.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ops/cli/text/table.h"
#include "protocol/base/result.h"
#include "protocol/spec/job_spec.h"

namespace tutti::cli {

struct StepRange {
  std::uint64_t first = 0;
  std::uint64_t last = 0;  // included

  bool operator==(const StepRange&) const = default;
};

// "40:60", or "40" for one step. Errors: invalid_argument.
Result<StepRange> parse_step_range(std::string_view text);

struct ReplayBase {
  std::uint64_t step = 0;
  std::string folder;  // of the checkpoint; empty: the job's own beginning

  bool operator==(const ReplayBase&) const = default;
};

// The newest checkpoint of the job (as the API gives it) before the range.
ReplayBase choose_base(const boost::json::value& job, const StepRange& range);

// The same training on one rank, from the base to the end of the range, without checkpoints.
spec::JobSpec replay_spec(const spec::JobSpec& spec, const ReplayBase& base, const StepRange& range,
                          std::uint64_t job);

struct ComparedStep {
  std::uint64_t step = 0;
  std::uint64_t generation = 0;
  std::uint64_t ranks = 0;
  std::string weights;
  std::string replayed;  // empty: the replay has no such step

  bool equal() const { return !weights.empty() && weights == replayed; }
};

// One row a step of the range that the job has. Errors: not_found if it lacks a step.
Result<std::vector<ComparedStep>> compare_steps(const boost::json::array& job,
                                                const boost::json::array& replay,
                                                const StepRange& range);

std::optional<std::uint64_t> first_difference(const std::vector<ComparedStep>& steps);

std::string comparison_table(const std::vector<ComparedStep>& steps, Paint paint);

}  // namespace tutti::cli
