#include "ops/cli/disks/disk_check.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <utility>

#include "ops/cli/disks/disk_measures.h"
#include "ops/cli/watched_process.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

// As `tutti doctor` wants them.
constexpr double kFreeBytesWanted = 1 << 30;
constexpr double kDiskSyncMsMax = 20;
constexpr int kDiskFailed = 3;

void say_line(const json::object& line) {
  std::printf("%s\n", json::serialize(line).c_str());
  std::fflush(stdout);
}

json::value text_or_null(const std::string& text) {
  return text.empty() ? json::value(nullptr) : json::value(text);
}

std::string text_in(const json::object& line, const char* key) {
  const json::value* const found = line.if_contains(key);
  return found != nullptr && found->is_string() ? std::string(found->as_string()) : std::string();
}

// Why the process ended before it had said all.
void note_end_of(const DiskChecking& checking, const Result<WatchedEnd>& end, FolderCheck& check) {
  if (!end) {
    check.problem = end.error().message;
    return;
  }
  const std::string late = fmt::format("it did not end in {:g} s", to_seconds(checking.each));
  if (DiskMeasure* const open = check.open(); open != nullptr) {
    open->problem = end->silent ? late : text_of(*end);
  } else if (end->silent) {
    check.problem = check.looked_at.empty()
                        ? fmt::format("it did not answer in {:g} s", to_seconds(checking.first))
                        : late;
  } else if (check.problem.empty()) {
    const bool failed = end->status.code != 0 || end->status.signal != 0;
    const bool said = !check.measures.empty() && !check.measures.back().problem.empty();
    if (check.looked_at.empty() || (failed && !said)) check.problem = text_of(*end);
  }
}

std::string value_text(const DiskMeasure& measure) {
  if (!measure.value) return "failed";
  if (measure.unit == "bytes") return print_bytes_short(static_cast<std::uint64_t>(*measure.value));
  return fmt::format("{:.{}f} {}", *measure.value, measure.unit == "ms" ? 2 : 0, measure.unit);
}

void judge_folder(const FolderCheck& check, std::vector<Finding>& out) {
  const auto add = [&](Verdict verdict, std::string found, std::string advice) {
    out.push_back({verdict, check.use, std::move(found), std::move(advice)});
  };
  if (!check.problem.empty()) add(Verdict::problem, check.problem, "see dmesg, and its mount");
  for (const DiskMeasure& measure : check.measures) {
    if (!measure.problem.empty())
      add(Verdict::problem, measure.name + ": " + measure.problem, "see dmesg, and its mount");
  }
  const DiskMeasure* const free = check.measure("free space");
  if (free != nullptr && free->value && *free->value < kFreeBytesWanted)
    add(Verdict::problem, value_text(*free) + " free", "make room");
  const DiskMeasure* const sync = check.measure("sync");
  if (sync != nullptr && sync->value && *sync->value > kDiskSyncMsMax) {
    add(check.use == "state" ? Verdict::problem : Verdict::note, "sync: " + value_text(*sync),
        "each submit waits for the state folder's: put that on a local SSD");
  }
}

}  // namespace

bool FolderCheck::take(std::string_view line) {
  try {
    const json::value value = json::parse(line);
    const json::object& object = value.as_object();
    if (object.contains("looked_at")) {
      looked_at = text_in(object, "looked_at");
      disk = object.at("disk").to_number<std::uint64_t>();
    } else if (object.contains("begins")) {
      measures.push_back({.name = text_in(object, "begins"), .unit = text_in(object, "unit")});
    } else if (object.contains("ended")) {
      DiskMeasure* const measure = open();
      if (measure == nullptr) return false;
      measure->problem = text_in(object, "problem");
      if (measure->problem.empty()) measure->value = object.at("ended").to_number<double>();
      measure->how = text_in(object, "how");
    } else if (object.contains("problem")) {
      problem = text_in(object, "problem");
    } else {
      return false;
    }
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

DiskMeasure* FolderCheck::open() {
  if (measures.empty()) return nullptr;
  DiskMeasure& last = measures.back();
  return last.value || !last.problem.empty() ? nullptr : &last;
}

const DiskMeasure* FolderCheck::measure(std::string_view name) const {
  const auto found = std::ranges::find(measures, name, &DiskMeasure::name);
  return found == measures.end() ? nullptr : &*found;
}

void measure_disks(const DiskChecking& checking, std::vector<FolderCheck>& folders) {
  for (auto check = folders.begin(); check != folders.end(); ++check) {
    Watched process{.command = checking.command, .first = checking.first, .each = checking.each};
    process.command.push_back(check->folder.string());
    for (auto before = folders.begin(); before != check; ++before) {
      if (before->disk != 0 && before->same_as.empty())
        process.command.push_back(std::to_string(before->disk));
    }
    const auto end =
        watch_process(process, [&](std::string_view line) { return check->take(line); });
    note_end_of(checking, end, *check);
    if (!check->measures.empty() || !check->problem.empty()) continue;
    const auto before = std::ranges::find(folders.begin(), check, check->disk, &FolderCheck::disk);
    if (before != check) check->same_as = before->use;
  }
}

int run_disk_measure(const std::filesystem::path& folder, const std::vector<std::string>& seen) {
  std::filesystem::path there = std::filesystem::absolute(folder);
  struct stat status {};
  // Where it would be made.
  while (::stat(there.c_str(), &status) != 0 && errno == ENOENT && there.has_relative_path())
    there = there.parent_path();
  if (!S_ISDIR(status.st_mode)) {
    say_line(json::object{{"problem", there.string() + " is no folder that can be looked at"}});
    return kDiskFailed;
  }
  const std::string disk = std::to_string(status.st_dev);
  say_line(json::object{{"looked_at", there.string()}, {"disk", std::uint64_t{status.st_dev}}});
  if (std::ranges::find(seen, disk) != seen.end()) return 0;
  DiskMeasures measures{.folder = there};
  if (std::getenv("TUTTI_CHECK_SMALL") != nullptr) measures.bytes_max = std::uint64_t{8} << 20;
  const auto done = measure_disk(
      measures,
      {.begins =
           [](const std::string& name, const std::string& unit) {
             say_line(json::object{{"begins", name}, {"unit", unit}});
           },
       .ended =
           [](const Result<DiskSpeed>& speed) {
             say_line(speed ? json::object{{"ended", speed->value}, {"how", speed->how}}
                            : json::object{{"ended", nullptr}, {"problem", speed.error().message}});
           }});
  return done ? 0 : kDiskFailed;
}

std::vector<Finding> judge_disks(const std::vector<FolderCheck>& folders) {
  std::vector<Finding> out;
  for (const FolderCheck& check : folders) judge_folder(check, out);
  return out;
}

std::string disks_page(const std::vector<FolderCheck>& folders,
                       const std::vector<Finding>& findings, Paint paint) {
  Table table({{"folder"}, {"measured"}, {"", Align::right}, {"how"}});
  std::string where;
  for (const FolderCheck& check : folders) {
    where += fmt::format("{}: {}", check.use, check.folder.string());
    if (!check.looked_at.empty() && check.looked_at != check.folder.string())
      where += fmt::format(", not there yet: {}", check.looked_at);
    if (!check.same_as.empty()) where += fmt::format(", on the disk of {}", check.same_as);
    where += "\n";
    for (const DiskMeasure& measure : check.measures)
      table.add({check.use, measure.name, value_text(measure), measure.how});
  }
  return where + "\n" + table.print(paint) + "\n" + findings_page(findings, paint);
}

json::object disks_json(const std::vector<FolderCheck>& folders,
                        const std::vector<Finding>& findings) {
  json::array lines;
  for (const FolderCheck& check : folders) {
    json::array measures;
    for (const DiskMeasure& measure : check.measures) {
      measures.push_back(json::object{
          {"name", measure.name},
          {"unit", measure.unit},
          {"value", measure.value ? json::value(*measure.value) : json::value(nullptr)},
          {"how", text_or_null(measure.how)},
          {"problem", text_or_null(measure.problem)}});
    }
    lines.push_back(json::object{{"use", check.use},
                                 {"folder", check.folder.string()},
                                 {"looked_at", text_or_null(check.looked_at)},
                                 {"same_as", text_or_null(check.same_as)},
                                 {"measures", std::move(measures)}});
  }
  json::object out{{"folders", std::move(lines)}};
  const json::value judged = findings_json(findings);
  for (const auto& [key, value] : judged.as_object()) out[key] = value;
  return out;
}

}  // namespace tutti::cli
