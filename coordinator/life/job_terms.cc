// What decisions need of a spec.
#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "coordinator/cluster/job_life.h"

namespace tutti::coordinator {

namespace {

// The step of a checkpoint folder: .../step-N.
Result<std::uint64_t> step_of(const std::string& folder) {
  std::filesystem::path path(folder);
  std::string name = path.filename().string();
  if (name.empty()) name = path.parent_path().filename().string();
  constexpr std::string_view kPrefix = "step-";
  std::uint64_t step = 0;
  if (name.starts_with(kPrefix)) {
    const char* end = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, step);
    if (parsed.ec == std::errc{} && parsed.ptr == end) return step;
  }
  return Error{ErrorCode::invalid_argument,
               fmt::format("train.resume: {} is not a checkpoint folder (.../step-N)", folder)};
}

std::string_view kind_name(spec::JobKind kind) {
  switch (kind) {
    case spec::JobKind::train: return "train";
    case spec::JobKind::serve: return "serve";
    case spec::JobKind::run: return "run";
    default: return {};
  }
}

Result<> set_ranks(const spec::JobSpec& spec, JobTerms& terms) {
  terms.ranks_min = spec.resources.ranks_min;
  terms.ranks_max = spec.resources.ranks_max;
  if (spec.kind == spec::JobKind::serve) terms.ranks_min = terms.ranks_max = 1;
  if (spec.kind == spec::JobKind::train) {
    if (spec.parallel.data != 0) terms.ranks_min = terms.ranks_max = spec.parallel.data;
    if (spec.parallel.shards != 0) {
      terms.ranks_max = std::min(terms.ranks_max, spec.parallel.shards);
    }
  }
  if (terms.ranks_min < 1 || terms.ranks_min > terms.ranks_max) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("{} to {} ranks is not possible", terms.ranks_min, terms.ranks_max)};
  }
  if (terms.ranks_max > kRanksMax) {
    return Error{ErrorCode::invalid_argument, fmt::format("a job has at most {} ranks", kRanksMax)};
  }
  return {};
}

// The parser has checked the rules.
void set_retries(const spec::RetriesSpec& retries, JobTerms& terms) {
  terms.preemptions_max = retries.preemptions;
  terms.backoff_first_ms = retries.backoff_first_ms;
  terms.backoff_max_ms = retries.backoff_max_ms;
  terms.backoff_jitter = retries.backoff_jitter;
  for (const auto& given : retries.on) {
    RetryRule rule;
    for (const auto& [key, value] : given) {
      if (key == "log") rule.log = value;
      if (key == "class" && value == "infrastructure") {
        rule.failure = wire::FailureClass::infrastructure;
      }
      if (key != "code") continue;
      rule.by_code = true;
      std::from_chars(value.data(), value.data() + value.size(), rule.code);
    }
    terms.retry_rules.push_back(std::move(rule));
  }
}

}  // namespace

Result<JobTerms> terms_of(const spec::JobSpec& spec, WallTime now) {
  const std::string_view kind = kind_name(spec.kind);
  if (kind.empty()) {
    return Error{ErrorCode::unsupported, "jobs of this kind cannot be run by this version"};
  }
  JobTerms terms;
  terms.name = spec.name;
  terms.kind = kind;
  terms.priority = spec.priority;
  if (Result<> ranks = set_ranks(spec, terms); !ranks) return ranks.error();
  terms.threads = spec.resources.threads;
  terms.cores = spec.resources.cores;
  terms.memory_bytes = spec.resources.memory_bytes;
  terms.device_memory_bytes = spec.resources.device_memory_bytes;
  // A worker says by a label of what kind its slots' devices are.
  if (spec.resources.device != "any") terms.labels.push_back("device=" + spec.resources.device);
  for (const auto& [key, value] : spec.resources.labels) terms.labels.push_back(key + "=" + value);
  for (const auto& [key, value] : spec.resources.prefer) terms.prefer.push_back(key + "=" + value);
  terms.policy = spec.resources.policy;
  if (spec.kind == spec::JobKind::train) terms.precision = spec.train.precision;
  terms.preemptible = spec.preemptible == "always" ||
                      (spec.preemptible == "auto" && spec.kind == spec::JobKind::train);
  for (const std::uint64_t job : spec.after.ok) terms.after.push_back({JobId{job}, "ok"});
  for (const std::uint64_t job : spec.after.failed) terms.after.push_back({JobId{job}, "failed"});
  for (const std::uint64_t job : spec.after.any) terms.after.push_back({JobId{job}, "any"});
  terms.begin_unix_ms = static_cast<std::int64_t>(spec.begin_unix_ms);
  if (spec.delay_ms != 0) {
    terms.begin_unix_ms = now.unix_ms + static_cast<std::int64_t>(spec.delay_ms);
  }
  terms.array_count = spec.array.count;
  terms.array_at_once = spec.array.at_once;
  if (spec.kind == spec::JobKind::train) {
    terms.steps = spec.train.stop != 0 ? spec.train.stop : spec.train.steps;
    terms.checkpoints_kept = spec.checkpoint.keep;
    if (!spec.train.resume.empty()) {
      const Result<std::uint64_t> step = step_of(spec.train.resume);
      if (!step) return step.error();
      terms.resume_folder = spec.train.resume;
      terms.resume_step = *step;
    }
  }
  for (const std::string& folder : {spec.model.path, spec.train.resume}) {
    if (!folder.empty()) terms.reads.push_back(folder);
  }
  terms.of_node = spec.on_loss.of_node;
  terms.wait_ms = spec.on_loss.wait_ms;
  terms.loss_then = spec.on_loss.then;
  set_retries(spec.retries, terms);
  terms.hang_after_ms = spec.hang.after_ms;
  terms.hang_action = spec.hang.action;
  terms.retries_user = spec.retries.user;
  terms.retries_infrastructure = spec.retries.infrastructure;
  terms.time_ms_max = spec.limit.time_ms;
  terms.queued_ms_max = spec.limit.queued_ms;
  terms.stop_after_ms = spec.stop_after_ms;
  return terms;
}

}  // namespace tutti::coordinator
