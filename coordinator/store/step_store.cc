#include "coordinator/store/step_store.h"

#include <fmt/core.h>

#include <boost/json/parse.hpp>

namespace tutti::coordinator {

namespace {

struct StepLine {
  std::uint64_t step = 0;
  std::string weights;
};

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

}  // namespace

Result<StepStore> StepStore::open(const std::filesystem::path& folder) {
  Result<AppendFile> file = AppendFile::open(folder / "steps.jsonl");
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
    store.offsets_.push_back(static_cast<std::uint64_t>(line.data() - content->data()));
    if (auto parsed = parse_line(line))
      store.weights_.emplace(parsed->step, std::move(parsed->weights));
  });
  return store;
}

Result<StepsTaken> StepStore::append(std::string_view lines) {
  StepsTaken taken;
  std::string fresh;
  std::vector<std::uint64_t> offsets;
  std::map<std::uint64_t, std::string> weights;
  for_each_line(lines, [&](std::string_view line) {
    if (line.size() > kStepLineBytesMax || offsets_.size() + offsets.size() >= kStepsMax) return;
    auto parsed = parse_line(line);
    if (!parsed) return;
    const auto kept = weights_.find(parsed->step);
    const auto added = weights.find(parsed->step);
    if (kept != weights_.end() || added != weights.end()) {
      const std::string& known = kept != weights_.end() ? kept->second : added->second;
      if (known != parsed->weights && !taken.mismatch) {
        taken.mismatch = {parsed->step,
                          fmt::format("two ranks have different weights after step {}: {} and {}",
                                      parsed->step, known, parsed->weights)};
      }
      return;
    }
    offsets.push_back(file_.size() + fresh.size());
    fresh.append(line).append("\n");
    weights.emplace(parsed->step, std::move(parsed->weights));
  });
  if (!fresh.empty()) {
    if (Result<> appended = file_.append(fresh); !appended) return appended.error();
    offsets_.insert(offsets_.end(), offsets.begin(), offsets.end());
    weights_.merge(weights);
  }
  taken.count = offsets.size();
  taken.newest = weights_.empty() ? 0 : weights_.rbegin()->first;
  return taken;
}

Result<std::vector<std::string>> StepStore::read(std::uint64_t after, std::size_t count_max) const {
  std::vector<std::string> out;
  if (after >= offsets_.size()) return out;
  const std::uint64_t last = std::min<std::uint64_t>(offsets_.size(), after + count_max);
  const std::uint64_t from = offsets_[after];
  const std::uint64_t to = last == offsets_.size() ? file_.size() : offsets_[last];
  const Result<std::string> text = file_.read(from, static_cast<std::size_t>(to - from));
  if (!text) return text.error();
  for_each_line(*text, [&](std::string_view line) { out.emplace_back(line); });
  return out;
}

}  // namespace tutti::coordinator
