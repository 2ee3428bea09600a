#include "coordinator/store/step_store.h"

#include <fmt/core.h>

#include <boost/json/parse.hpp>

#include <algorithm>
#include <utility>

#include "protocol/base/log.h"

namespace tutti::coordinator {

namespace {

// Of the file that is read at a time.
constexpr std::size_t kPieceBytes = std::size_t{1} << 20;

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
  const std::uint64_t bytes = file->size();
  StepStore store(*std::move(file), StepIndex::open(folder, bytes));
  if (Result<> read = store.read_rows(); !read) return read.error();
  // Readers may have seen all of it.
  store.shown_ = store.newest();
  return store;
}

// Those that are not in the index: all of them, where there is none.
Result<> StepStore::read_rows() {
  std::uint64_t at = index_.covered();
  while (at < file_.size()) {
    const Result<std::string> piece = file_.read(at, kPieceBytes);
    if (!piece) return piece.error();
    const std::size_t end = piece->rfind('\n');
    if (end == std::string::npos && piece->size() == kPieceBytes)
      return Error{ErrorCode::corrupt, fmt::format("steps.jsonl: no record from {} on", at)};
    if (end == std::string::npos) return file_.cut(at);
    for_each_line(std::string_view(*piece).substr(0, end + 1), [&](std::string_view line) {
      auto parsed = parse_line(line);
      if (!parsed || parsed->step > StepIndex::kStepMax) return;
      rows_.emplace(parsed->step,
                    Row{.offset = at + static_cast<std::uint64_t>(line.data() - piece->data()),
                        .size = static_cast<std::uint32_t>(line.size()),
                        .weights = std::move(parsed->weights)});
    });
    at += end + 1;
    if (rows_.size() <= kRecentMax) continue;
    if (Result<> synced = sync(); !synced) return synced;
  }
  return {};
}

Result<> StepStore::sync() {
  if (Result<> synced = file_.sync(); !synced) return synced;
  // The records are durable. Where the index cannot be written they stay in memory until it can.
  Result<> left;
  while (left && rows_.size() > kRecentMax) left = leave_memory();
  if (!left && !index_failing_)
    TUTTI_LOG_WARNING("stores", "{}; step records stay in memory", left.error().message);
  index_failing_ = !left;
  return {};
}

// The half that came first.
Result<> StepStore::leave_memory() {
  std::vector<std::uint64_t> offsets;
  for (const auto& [step, row] : rows_) offsets.push_back(row.offset);
  const auto middle = offsets.begin() + static_cast<std::ptrdiff_t>(offsets.size() / 2);
  std::nth_element(offsets.begin(), middle, offsets.end());
  const std::uint64_t covered = *middle;
  StepIndex::Rows leaving;
  for (const auto& [step, row] : rows_) {
    if (row.offset < covered) leaving.emplace(step, StepIndex::Row{row.offset, row.size});
  }
  if (Result<> added = index_.add(leaving, covered); !added) return added;
  std::erase_if(rows_, [&](const auto& entry) { return entry.second.offset < covered; });
  // What has not come until now is waited for no more.
  shown_ = std::max(shown_, index_.newest());
  return {};
}

std::uint64_t StepStore::newest() const {
  return std::max(index_.newest(), rows_.empty() ? 0 : rows_.rbegin()->first);
}

Result<std::optional<StepStore::Row>> StepStore::find_older(std::uint64_t step) const {
  const auto found = index_.find(step);
  if (!found) return found.error();
  if (!*found) return std::optional<Row>();
  const Result<std::string> line = file_.read((*found)->offset, (*found)->size);
  if (!line) return line.error();
  auto parsed = parse_line(*line);
  if (!parsed || parsed->step != step) {
    return Error{ErrorCode::corrupt,
                 fmt::format("steps.index does not fit steps.jsonl at step {}; remove it: it is "
                             "made anew",
                             step)};
  }
  Row out;
  out.weights = std::move(parsed->weights);
  return std::optional<Row>(std::move(out));
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
  Result<> looked_up;
  for_each_line(lines, [&](std::string_view line) {
    if (line.size() > kStepLineBytesMax || !looked_up) return;
    auto parsed = parse_line(line);
    if (!parsed || parsed->step > StepIndex::kStepMax) return;
    const auto kept = rows_.find(parsed->step);
    const auto before = added.find(parsed->step);
    std::optional<Row> older;
    if (kept == rows_.end() && before == added.end()) {
      Result<std::optional<Row>> found = find_older(parsed->step);
      if (found)
        older = *std::move(found);
      else
        looked_up = found.error();
    }
    if (!looked_up) return;
    if (kept != rows_.end() || before != added.end() || older) {
      Row& known = older ? *older : kept != rows_.end() ? kept->second : before->second;
      auto differs = compare(parsed->step, parsed->weights, from, known);
      if (!taken.mismatch) taken.mismatch = std::move(differs);
      return;
    }
    if (count() + added.size() >= kStepsMax) {
      taken.full = taken.full || !std::exchange(full_, true);
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
  if (!looked_up) return looked_up.error();
  taken.count = added.size();
  if (!fresh.empty()) {
    if (Result<> appended = file_.append(fresh); !appended) return appended.error();
    rows_.merge(added);
    figures_ = figures;
  }
  taken.newest = newest();
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
  Result<StepIndex::Rows> older = index_.next(after, count_max);
  if (!older) return older.error();
  StepIndex::Rows places = *std::move(older);
  for (auto row = rows_.upper_bound(after); row != rows_.end() && row->first <= shown_; ++row) {
    // Of more than `count_max` in all, the first are those below.
    if (places.size() >= count_max && row->first > places.rbegin()->first) break;
    places.emplace(row->first, StepIndex::Row{row->second.offset, row->second.size});
  }
  for (const auto& [step, place] : places) {
    if (out.records.size() == count_max) break;
    Result<std::string> line = file_.read(place.offset, place.size);
    if (!line) return line.error();
    out.records.push_back(*std::move(line));
    out.next = step;
  }
  out.held = !rows_.empty() && rows_.rbegin()->first > shown_;
  return out;
}

}  // namespace tutti::coordinator
