// YAML text -> JobSpec, strictly.
//
// Errors (invalid_argument) are one line and name the place: `job.yaml:7:3: unknown key "stpes" in
// train; did you mean "steps"?`. Also: wrong types, numbers out of range, keys given twice, keys
// that do not belong to the job's kind, contradictions (batch below 1, shards not a power of two,
// more ranks than shards, width not a multiple of heads). Nothing here touches the file system.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/result.h"
#include "protocol/spec/job_spec.h"

namespace tutti::spec {

inline constexpr std::size_t kSpecBytesMax = std::size_t{1} << 20;

struct ParseOptions {
  std::string file = "spec";  // shown in errors
  std::vector<std::string>
      overrides;  // "train.steps=10", as --set gives them; applied before defaults
};

// The resolved spec: every default filled in, automatic values that need no inventory chosen.
Result<JobSpec> parse_job_spec(std::string_view yaml, const ParseOptions& options = {});

// The resolved spec as YAML with every key of its kind; parse_job_spec gives back an equal value.
std::string to_yaml(const JobSpec& spec);

std::string_view to_string(JobKind kind);

// Whether its ranks run on GPUs only.
bool takes_gpus(const JobSpec& spec);

// The candidate with the smallest edit distance to `word`, or empty if none is near (a third of the
// length).
std::string_view nearest_word(std::string_view word,
                              const std::vector<std::string_view>& candidates);

}  // namespace tutti::spec
