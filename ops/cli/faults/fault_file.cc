#include "ops/cli/faults/fault_file.h"

#include <fmt/core.h>

#include <charconv>
#include <filesystem>
#include <functional>
#include <map>
#include <span>

#include "protocol/base/file.h"
#include "protocol/spec/document.h"
#include "protocol/spec/fill.h"
#include "protocol/spec/help.h"
#include "protocol/spec/key_table.h"
#include "protocol/spec/parse.h"
#include "protocol/spec/quantity.h"

namespace tutti::cli {

namespace {

using spec::choice;
using spec::error_at;
using spec::Form;
using spec::form;
using spec::kEvery;
using spec::kOptional;
using spec::kRequired;
using spec::Places;
using spec::reach;
using spec::whole;

constexpr double kMsMax = 7 * 24 * 3'600'000.0;
constexpr double kLastsMsMax = 3'600'000;  // the API's
constexpr std::uint64_t kLastsMsDefault = 2'000;
constexpr std::uint64_t kDelayMsDefault = 200;

constexpr std::string_view kCompares[] = {"undisturbed", "verify", "none"};
constexpr std::string_view kUntils[] = {"end", "recovered"};
constexpr std::string_view kExpected[] = {"done", "failed", "cancelled"};

// As the file has it.
struct Written {
  std::string name;
  std::string spec;
  std::string job;
  std::vector<std::string> set;
  std::uint64_t seed = 0;
  std::vector<std::map<std::string, std::string>> inject;
  std::string compare = "undisturbed";
  std::string until = "end";
  std::string expect = "done";
  std::uint64_t bound_ms = 60'000;
  std::uint64_t deadline_ms = 1'800'000;
};
using W = Written;

spec::Takes duration(double least, double most) { return {Form::duration, least, most, {}, {}}; }

const spec::Key kFileKeys[] = {
    {"name", form(Form::name), kEvery, kOptional, reach<&W::name>,
     "for the report; else the file's"},
    {"spec", form(Form::text), kEvery, kOptional, reach<&W::spec>,
     "job spec to submit, relative to this file"},
    {"set", form(Form::texts), kEvery, kOptional, reach<&W::set>,
     "keys of it to set, as in [train.steps=60]"},
    {"job", form(Form::text), kEvery, kOptional, reach<&W::job>,
     "in place of spec: a job that runs, by number or name"},
    {"faults.seed", whole(0, 9e15), kEvery, kOptional, reach<&W::seed>,
     "what is drawn, is drawn from it; else a fresh one, which the report names"},
    {"faults.inject", form(Form::text_maps), kEvery, kRequired, reach<&W::inject>,
     "the faults, a list"},
    {"compare", choice(kCompares), kEvery, kOptional, reach<&W::compare>,
     "what the weights of a training job must equal: those of a run without faults at every step; "
     "of a replay on one rank from the newest checkpoint before the first fault; with until: "
     "recovered none"},
    {"until", choice(kUntils), kEvery, kOptional, reach<&W::until>,
     "until the job ends, or until it goes on after the last fault"},
    {"expect", choice(kExpected), kEvery, kOptional, reach<&W::expect>,
     "how the job must end (until: end)"},
    {"bound", duration(1'000, kMsMax), kEvery, kOptional, reach<&W::bound_ms>,
     "after the last fault the job goes on, or ends, within this"},
    {"deadline", duration(1'000, kMsMax), kEvery, kOptional, reach<&W::deadline_ms>,
     "of the whole, the comparison included"},
};

struct WrittenEntry {
  std::string fault;
  std::uint32_t rank = 0;
  std::string node;
  std::string at;
  std::string every;
  std::uint32_t times = 1;
  std::uint64_t lasts_ms = kLastsMsDefault;
  std::uint64_t delay_ms = kDelayMsDefault;
};
using E = WrittenEntry;

constexpr std::string_view kKindNames[] = {kFaultKinds[0].name, kFaultKinds[1].name,
                                           kFaultKinds[2].name, kFaultKinds[3].name,
                                           kFaultKinds[4].name, kFaultKinds[5].name};
static_assert(std::size(kKindNames) == std::size(kFaultKinds));

const spec::Key kEntryKeys[] = {
    {"fault", choice(kKindNames), kEvery, kRequired, reach<&E::fault>, "which one"},
    {"rank", whole(0, 1e6), kEvery, kOptional, reach<&E::rank>,
     "of kill-rank, stop-rank: from 0; else any"},
    {"node", form(Form::text), kEvery, kOptional, reach<&E::node>,
     "of kill-worker, cut, slow-disk: its name; else any"},
    {"at", form(Form::text), kEvery, kOptional, reach<&E::at>,
     "3s, 2s..5s (since it was first seen running), step 20, step 20..80"},
    {"every", form(Form::text), kEvery, kOptional, reach<&E::every>,
     "the same, from one to the next"},
    {"times", whole(1, kFaultTimesMax), kEvery, kOptional, reach<&E::times>,
     "how often; each is drawn for itself"},
    {"for",
     {Form::patience, 1, kLastsMsMax, {}, {}},
     kEvery,
     kOptional,
     reach<&E::lasts_ms>,
     "of stop-rank, cut, slow-disk; never: a stopped rank waits for the job's `hang`"},
    {"delay", duration(1, kLastsMsMax), kEvery, kOptional, reach<&E::delay_ms>,
     "of slow-disk: of each write to the node's spools"},
};

template <std::size_t count>
std::size_t index_in(const std::string_view (&words)[count], std::string_view word) {
  std::size_t at = 0;
  while (at + 1 < count && words[at] != word) ++at;
  return at;
}

std::optional<std::uint64_t> parse_count(std::string_view text) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, failed] = std::from_chars(text.data(), end, value);
  if (failed != std::errc{} || rest != end) return std::nullopt;
  return value;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

class EntryReader {
 public:
  explicit EntryReader(const spec::Node& node) : node_(node) {}

  Result<FaultEntry> read() {
    WrittenEntry written;
    const spec::Table table{kEntryKeys, {}, {}};
    Result<Places> places = spec::fill(node_, table, &written, {});
    if (!places) return places.error();
    places_ = *std::move(places);
    row_ = &kFaultKinds[index_in(kKindNames, written.fault)];
    entry_.kind = row_->kind;
    entry_.times = written.times;
    entry_.node = written.node;
    if (given("rank")) entry_.rank = written.rank;
    if (row_->lasts == FaultLasts::yes) entry_.lasts_ms = written.lasts_ms;
    if (row_->kind == FaultKind::slow_disk) entry_.delay_ms = written.delay_ms;
    if (Result<> belong = check_keys(written); !belong) return belong.error();
    if (Result<> timed = read_times(written); !timed) return timed.error();
    entry_.place =
        fmt::format("{}:{}:{}", *node_.place.source, node_.place.line, node_.place.column);
    return entry_;
  }

 private:
  bool given(std::string_view key) const { return places_.contains(key); }

  Error wrong(std::string_view key, std::string_view message) const {
    const auto at = places_.find(key);
    return error_at(at == places_.end() ? node_.place : at->second, message);
  }

  Result<> check_keys(const WrittenEntry& written) const {
    const std::pair<std::string_view, bool> keys[] = {
        {"rank", row_->target == FaultTarget::rank},
        {"node", row_->target == FaultTarget::node},
        {"for", row_->lasts == FaultLasts::yes},
        {"delay", row_->kind == FaultKind::slow_disk},
    };
    for (const auto& [key, belongs] : keys) {
      if (given(key) && !belongs) {
        return wrong(key, fmt::format("\"{}\" has no meaning for {}", key, row_->name));
      }
    }
    if (written.lasts_ms == 0 && row_->lasts == FaultLasts::yes &&
        row_->kind != FaultKind::stop_rank) {
      return wrong("for", fmt::format("a {} ends: give a duration such as 2s", row_->name));
    }
    return {};
  }

  Result<std::optional<FaultSpan>> read_span(std::string_view key, std::string_view text) const {
    if (!given(key)) return std::optional<FaultSpan>();
    const std::optional<FaultSpan> span = parse_fault_span(text);
    if (!span) {
      return wrong(key, fmt::format("{} must be a moment such as 3s, 2s..5s, step 20 or "
                                    "step 20..80, not \"{}\"",
                                    key, text));
    }
    return span;
  }

  Result<> read_times(const WrittenEntry& written) {
    const auto at = read_span("at", written.at);
    if (!at) return at.error();
    const auto every = read_span("every", written.every);
    if (!every) return every.error();
    entry_.at = *at;
    entry_.every = *every;
    if (!entry_.at && !entry_.every) {
      return wrong("fault", fmt::format("{} needs a moment: at: step 20, at: 3s, every: 2s..5s",
                                        row_->name));
    }
    if (entry_.at && entry_.every && entry_.at->clock != entry_.every->clock) {
      return wrong("every", "at and every must both be times, or both steps");
    }
    if (entry_.every && entry_.every->last == 0) return wrong("every", "every must be above 0");
    const bool drawn = entry_.every || entry_.at->first != entry_.at->last;
    if (entry_.times > 1 && !drawn) {
      return wrong("times", "all of them would come at one moment: give a range, or every");
    }
    return {};
  }

  const spec::Node& node_;
  Places places_;
  const FaultKindRow* row_ = nullptr;
  FaultEntry entry_;
};

Result<std::vector<FaultEntry>> read_entries(const spec::Node& root) {
  const spec::Node* list = root.find("faults")->find("inject");
  if (list->items.empty()) return error_at(list->place, "faults.inject is empty");
  if (list->items.size() > kFaultEntriesMax) {
    return error_at(list->place, fmt::format("faults.inject has {} entries, more than {}",
                                             list->items.size(), kFaultEntriesMax));
  }
  std::vector<FaultEntry> out;
  for (const spec::Node& item : list->items) {
    Result<FaultEntry> entry = EntryReader(item).read();
    if (!entry) return entry.error();
    out.push_back(*std::move(entry));
  }
  return out;
}

Result<> check_file(const Written& written, const Places& places, const spec::Node& root) {
  const auto place_of = [&](std::string_view key) {
    const auto at = places.find(key);
    return at == places.end() ? root.place : at->second;
  };
  if (written.spec.empty() == written.job.empty()) {
    return error_at(place_of("job"), "give either spec (a job to submit) or job (one that runs)");
  }
  if (!written.set.empty() && written.spec.empty()) {
    return error_at(place_of("set"), "set belongs to spec: a job that runs has its keys");
  }
  if (places.contains("expect") && written.until != "end") {
    return error_at(place_of("expect"),
                    "expect says how the job ends, and until: recovered "
                    "leaves it running");
  }
  return {};
}

}  // namespace

std::optional<FaultSpan> parse_fault_span(std::string_view text) {
  constexpr std::string_view kStep = "step ";
  text = trimmed(text);
  FaultSpan span;
  if (text.starts_with(kStep)) {
    span.clock = FaultClock::step;
    text.remove_prefix(kStep.size());
  }
  const auto parse = [&](std::string_view one) -> std::optional<std::uint64_t> {
    one = trimmed(one);
    return span.clock == FaultClock::step ? parse_count(one) : spec::parse_duration_ms(one);
  };
  const std::size_t dots = text.find("..");
  const auto first = parse(text.substr(0, dots));
  const auto last = dots == std::string_view::npos ? first : parse(text.substr(dots + 2));
  if (!first || !last || *first > *last || static_cast<double>(*last) > kMsMax) return std::nullopt;
  span.first = *first;
  span.last = *last;
  return span;
}

std::string print_fault_span(const FaultSpan& span) {
  const auto print = [&](std::uint64_t value) {
    return span.clock == FaultClock::step ? std::to_string(value) : spec::print_duration(value);
  };
  const std::string range =
      span.first == span.last ? print(span.first) : print(span.first) + ".." + print(span.last);
  return (span.clock == FaultClock::step ? "step " : "") + range;
}

Result<FaultFile> parse_fault_file(std::string_view yaml, std::string_view file) {
  const std::string source(file);
  const Result<spec::Node> root = spec::parse_document(yaml, source);
  if (!root) return root.error();
  Written written;
  const spec::Table table{kFileKeys, {}, {}};
  const Result<Places> places = spec::fill(*root, table, &written, {});
  if (!places) return places.error();
  if (Result<> checked = check_file(written, *places, *root); !checked) return checked.error();
  Result<std::vector<FaultEntry>> entries = read_entries(*root);
  if (!entries) return entries.error();
  FaultFile out;
  out.name = written.name;
  out.spec = written.spec;
  out.job = written.job;
  out.set = written.set;
  if (places->contains("faults.seed")) out.seed = written.seed;
  out.entries = *std::move(entries);
  out.compare = static_cast<FaultCompare>(index_in(kCompares, written.compare));
  out.until = static_cast<FaultUntil>(index_in(kUntils, written.until));
  // The slots of a second run are taken by the job that is left running.
  if (out.until == FaultUntil::recovered && !places->contains("compare")) {
    out.compare = FaultCompare::none;
  }
  out.expect = out.until == FaultUntil::end ? written.expect : "running";
  out.bound_ms = written.bound_ms;
  out.deadline_ms = written.deadline_ms;
  return out;
}

Result<FaultFile> load_fault_file(const std::string& file) {
  const Result<std::string> yaml = read_file(file, spec::kSpecBytesMax);
  if (!yaml) return yaml.error();
  Result<FaultFile> out = parse_fault_file(*yaml, file);
  if (out && out->name.empty()) out->name = std::filesystem::path(file).stem().string();
  return out;
}

std::string fault_file_keys() {
  Written defaults;
  WrittenEntry entry;
  std::string text = "Keys of FILE:\n";
  text += spec::key_lines(kFileKeys, [&](const spec::Key& key) {
    return key.path == "faults.seed" ? "" : spec::print_value(key, key.at(&defaults));
  });
  text += "Keys of each of faults.inject:\n";
  text += spec::key_lines(kEntryKeys, [&](const spec::Key& key) {
    return key.path == "rank" ? "" : spec::print_value(key, key.at(&entry));
  });
  return text;
}

}  // namespace tutti::cli
