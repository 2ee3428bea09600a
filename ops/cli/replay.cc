#include "ops/cli/replay.h"

#include <fmt/core.h>

#include <charconv>
#include <map>

#include "ops/cli/client/fields.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

std::optional<std::uint64_t> parse_step(std::string_view text) {
  std::uint64_t step = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, step);
  if (error != std::errc{} || rest != end || step == 0) return std::nullopt;
  return step;
}

std::map<std::uint64_t, const json::value*> by_step(const json::array& records,
                                                    const StepRange& range) {
  std::map<std::uint64_t, const json::value*> found;
  for (const json::value& record : records) {
    const auto step = static_cast<std::uint64_t>(whole_of(record, "step"));
    if (step >= range.first && step <= range.last) found.emplace(step, &record);
  }
  return found;
}

}  // namespace

Result<StepRange> parse_step_range(std::string_view text) {
  const std::size_t colon = text.find(':');
  const auto first = parse_step(text.substr(0, colon));
  const auto last = colon == std::string_view::npos ? first : parse_step(text.substr(colon + 1));
  if (!first || !last || *first > *last) {
    return Error{
        ErrorCode::invalid_argument,
        fmt::format("--steps must be FIRST:LAST with 1 <= FIRST <= LAST, not \"{}\"", text)};
  }
  return StepRange{*first, *last};
}

ReplayBase choose_base(const json::value& job, const StepRange& range) {
  ReplayBase base;
  for (const json::value& checkpoint : list_of(job, "checkpoints")) {
    const auto step =
        static_cast<std::uint64_t>(checkpoint.is_number() ? checkpoint.to_number<std::int64_t>()
                                                          : whole_of(checkpoint, "step"));
    if (step >= range.first || step <= base.step) continue;
    const std::string folder = text_of(checkpoint, "folder");
    base.step = step;
    base.folder = !folder.empty()
                      ? folder
                      : fmt::format("{}/checkpoints/step-{}", text_of(job, "folder"), step);
  }
  return base;
}

spec::JobSpec replay_spec(const spec::JobSpec& spec, const ReplayBase& base, const StepRange& range,
                          std::uint64_t job) {
  spec::JobSpec replay = spec;
  replay.name = fmt::format("verify-{}-{}-{}", job, range.first, range.last);
  replay.train.stop = range.last;
  if (!base.folder.empty()) replay.train.resume = base.folder;
  replay.parallel.data = 1;
  replay.resources.ranks_min = replay.resources.ranks_max = 1;
  replay.checkpoint = {.every = 0, .keep = 0, .last = false};
  replay.limit = {};
  return replay;
}

Result<std::vector<ComparedStep>> compare_steps(const json::array& job, const json::array& replay,
                                                const StepRange& range) {
  const auto original = by_step(job, range);
  const auto replayed = by_step(replay, range);
  std::vector<ComparedStep> steps;
  for (std::uint64_t step = range.first; step <= range.last; ++step) {
    const auto record = original.find(step);
    if (record == original.end()) {
      return Error{ErrorCode::not_found, fmt::format("the job has no record of step {}", step)};
    }
    ComparedStep row;
    row.step = step;
    row.generation = static_cast<std::uint64_t>(whole_of(*record->second, "generation"));
    row.ranks = static_cast<std::uint64_t>(whole_of(*record->second, "ranks"));
    row.weights = text_of(*record->second, "weights");
    if (const auto other = replayed.find(step); other != replayed.end()) {
      row.replayed = text_of(*other->second, "weights");
    }
    steps.push_back(std::move(row));
  }
  return steps;
}

std::optional<std::uint64_t> first_difference(const std::vector<ComparedStep>& steps) {
  for (const ComparedStep& step : steps) {
    if (!step.equal()) return step.step;
  }
  return std::nullopt;
}

std::string comparison_table(const std::vector<ComparedStep>& steps, Paint paint) {
  Table table({{"STEP", Align::right},
               {"GEN", Align::right},
               {"RANKS", Align::right},
               {"WEIGHTS"},
               {"REPLAYED"},
               {""}});
  for (const ComparedStep& step : steps) {
    table.add({std::to_string(step.step), std::to_string(step.generation),
               std::to_string(step.ranks), step.weights,
               step.replayed.empty() ? "missing" : step.replayed,
               step.equal() ? "equal" : "DIFFERENT"});
  }
  return table.print(paint);
}

}  // namespace tutti::cli
