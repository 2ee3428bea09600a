#include "coordinator/store/step_store.h"

#include <fmt/core.h>

#include <boost/json/parse.hpp>

#include <algorithm>

namespace tutti::coordinator {

namespace {

struct StepLine {
  std::uint64_t step = 0;
  std::string weights;
  double loss = 0;
  double grad_norm = 0;
  double seconds = 0;
  std::uint64_t tokens = 0;
};

double number_in(const boost::json::object& object, std::string_view name) {
  const auto* value = object.if_contains(name);
  boost::system::error_code none;
  return value == nullptr ? 0 : value->to_number<double>(none);
}

std::optional<StepLine> parse_line(std::string_view line) {
  boost::system::error_code failed;
  const boost::json::value value = boost::json::parse(line, failed);
  const auto* object = failed ? nullptr : value.if_object();
  const auto* step = object ? object->if_contains("step") : nullptr;
  if (step == nullptr) return std::nullopt;
  boost::system::error_code wrong;
  StepLine out;
  out.step = step->to_number<std::uint64_t>(wrong);
  if (wrong) return std::nullopt;
  const auto* weights = object->if_contains("weights");
  if (weights != nullptr && weights->is_string()) out.weights = weights->as_string().c_str();
  out.loss = number_in(*object, "loss");
  out.grad_norm = number_in(*object, "grad_norm");
  out.seconds = number_in(*object, "seconds");
  out.tokens = static_cast<std::uint64_t>(std::max(0.0, number_in(*object, "tokens")));
  return out;
}

// Calls `take` for each line that is not empty.
template <class Take>
void for_each_line(std::string_view text, Take take) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (end > 0) take(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

std::string describe(const StepReporter& from) {
  if (!from.process) return "an earlier record";
  return fmt::format("rank {} (process {})", from.rank, from.process.value);
}

}  // namespace

Result<StepStore> StepStore::open(const std::filesystem::path& folder) {
  Result<AppendFile> file = AppendFile::open(folder / "steps.jsonl", MakeFile::when_appended);
  if (!file) return file.error();
  StepStore store(*std::move(file));
  const Result<std::string> content =
      store.file_.read(0, static_cast<std::size_t>(store.file_.size()));
  if (!content) return content.error();
  const std::size_t whole =
      content->rfind('\n') == std::string::npos ? 0 : content->rfind('\n') + 1;
  if (whole < content->size()) {
    if (Result<> cut = store.file_.cut(whole); !cut) return cut.error();
  }
  for_each_line(std::string_view(*content).substr(0, whole), [&](std::string_view line) {
    if (auto parsed = parse_line(line)) {
      store.rows_.emplace(parsed->step,
                          Row{.offset = static_cast<std::uint64_t>(line.data() - content->data()),
                              .size = static_cast<std::uint32_t>(line.size()),
                              .weights = std::move(parsed->weights)});
    }
  });
  // Readers may have seen all of it.
  if (!store.rows_.empty()) store.shown_ = store.rows_.rbegin()->first;
  return store;
}

std::optional<StepMismatch> StepStore::compare(std::uint64_t step, const std::string& weights,
                                               const StepReporter& from, Row& kept) {
  if (kept.weights == weights) {
    if (from.process != kept.from.process) kept.confirmed = true;
    return std::nullopt;
  }
  std::string message =
      fmt::format("{} has other weights after step {} than {}: {}, not {}", describe(from), step,
                  describe(kept.from), weights, kept.weights);
  if (kept.confirmed)
    message += fmt::format("; others agree on those, {} diverged", describe(from));
  return StepMismatch{.step = step, .message = std::move(message)};
}

Result<StepsTaken> StepStore::append(std::string_view lines, StepReporter from) {
  StepsTaken taken;
  std::string fresh;
  std::map<std::uint64_t, Row> added;
  StepFigures figures = figures_;
  for_each_line(lines, [&](std::string_view line) {
    if (line.size() > kStepLineBytesMax || rows_.size() + added.size() >= kStepsMax) return;
    auto parsed = parse_line(line);
    if (!parsed) return;
    const auto kept = rows_.find(parsed->step);
    const auto before = added.find(parsed->step);
    if (kept != rows_.end() || before != added.end()) {
      Row& known = kept != rows_.end() ? kept->second : before->second;
      auto differs = compare(parsed->step, parsed->weights, from, known);
      if (!taken.mismatch) taken.mismatch = std::move(differs);
      return;
    }
    added.emplace(parsed->step, Row{.offset = file_.size() + fresh.size(),
                                    .size = static_cast<std::uint32_t>(line.size()),
                                    .from = from,
                                    .weights = std::move(parsed->weights)});
    fresh.append(line).append("\n");
    figures.tokens_total += parsed->tokens;
    if (parsed->step < figures.step) return;
    figures.step = parsed->step;
    figures.loss = parsed->loss;
    figures.grad_norm = parsed->grad_norm;
    figures.seconds = parsed->seconds;
  });
  taken.count = added.size();
  if (!fresh.empty()) {
    if (Result<> appended = file_.append(fresh); !appended) return appended.error();
    rows_.merge(added);
    figures_ = figures;
  }
  taken.newest = rows_.empty() ? 0 : rows_.rbegin()->first;
  return taken;
}

void StepStore::advance(Instant now) {
  for (auto next = rows_.upper_bound(shown_); next != rows_.end(); ++next) {
    // Steps begin where the job does, which may be another's checkpoint.
    const bool follows = shown_ == 0 || next->first == shown_ + 1;
    if (!follows && !blocked_) blocked_ = now;
    if (!follows && now - *blocked_ < kGapHold) return;
    shown_ = next->first;
    blocked_.reset();
  }
}

Result<StepsRead> StepStore::read(std::uint64_t after, std::size_t count_max, Instant now) {
  advance(now);
  StepsRead out;
  out.next = after;
  for (auto row = rows_.upper_bound(after); row != rows_.end() && out.records.size() < count_max;
       ++row) {
    if (row->first > shown_) break;
    Result<std::string> line = file_.read(row->second.offset, row->second.size);
    if (!line) return line.error();
    out.records.push_back(*std::move(line));
    out.next = row->first;
  }
  out.held = !rows_.empty() && rows_.rbegin()->first > shown_;
  return out;
}

}  // namespace tutti::coordinator
