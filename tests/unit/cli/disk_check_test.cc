// Disks: what is measured, what is left behind, and what is said of one that fails or hangs.
#include "ops/cli/disks/disk_check.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "ops/cli/disks/disk_measures.h"
#include "tests/support/temporary_folder.h"

namespace tutti::cli {
namespace {

constexpr Duration kLong = std::chrono::seconds(20);
constexpr std::uint64_t kSmall = std::uint64_t{8} << 20;

struct Said {
  std::vector<std::string> names;
  std::vector<DiskSpeed> speeds;
  std::vector<std::string> left;  // in the folder while it was measured
  Result<> done = {};
};

Said measure(const DiskMeasures& measures) {
  Said said;
  said.done = measure_disk(
      measures,
      {.begins = [&](const std::string& name, const std::string&) { said.names.push_back(name); },
       .ended =
           [&](const Result<DiskSpeed>& speed) {
             if (speed) said.speeds.push_back(*speed);
             for (const auto& entry : std::filesystem::directory_iterator(measures.folder)) {
               said.left.push_back(entry.path().string());
             }
           }});
  return said;
}

std::vector<std::string> problems_of(const std::vector<FolderCheck>& folders) {
  std::vector<std::string> out;
  for (const Finding& each : judge_disks(folders)) {
    if (each.verdict == Verdict::problem) out.push_back(each.subject + ": " + each.found);
  }
  return out;
}

// A folder measured by a shell that says these lines, and then does that.
FolderCheck by_shell(const std::string& script, Duration first, Duration each) {
  std::vector<FolderCheck> folders{{.use = "state", .folder = "/nowhere"}};
  measure_disks({.command = {"/bin/sh", "-c", script}, .first = first, .each = each}, folders);
  return folders.front();
}

constexpr const char* kBegun =
    R"(printf '{"looked_at": "/x", "disk": 7}\n{"begins": "write", "unit": "MB/s"}\n'; )";

}  // namespace

TEST_CASE("disk check: every measure has a value, and no file has a name meanwhile") {
  const test::TemporaryFolder folder;
  const Said said = measure({.folder = folder.path(), .bytes_max = kSmall});
  REQUIRE(said.done);
  CHECK(said.names ==
        std::vector<std::string>{"free space", "write", "sync", "slowest sync", "read"});
  REQUIRE(said.speeds.size() == 5);
  for (const DiskSpeed& speed : said.speeds) CHECK(speed.value > 0);
  CHECK(said.speeds[3].value >= said.speeds[2].value);
  CHECK(said.left.empty());
}

TEST_CASE("disk check: where a file needs a name, or the page cache, it is measured and said") {
  const test::TemporaryFolder folder;
  const Said said = measure(
      {.folder = folder.path(), .bytes_max = kSmall, .nameless = false, .past_the_cache = false});
  REQUIRE(said.done);
  REQUIRE(said.speeds.size() == 5);
  CHECK(said.speeds[1].how == "by the page cache, with a sync");
  CHECK(said.speeds[4].how == "by the page cache, which was told to drop it");
  CHECK(said.left.empty());
}

TEST_CASE("disk check: a size without room for a piece, and a folder that is none, are errors") {
  const test::TemporaryFolder folder;
  const Said small = measure({.folder = folder.path(), .bytes_max = 1});
  REQUIRE_FALSE(small.done);
  CHECK(small.done.error().code == ErrorCode::exhausted);
  CHECK(small.names.back() == "write");
  const auto none = measure_disk({.folder = folder.path() / "none"},
                                 {.begins = [](const auto&, const auto&) {},
                                  .ended = [](const auto& speed) { CHECK_FALSE(speed); }});
  REQUIRE_FALSE(none);
  CHECK(none.error().code == ErrorCode::not_found);
}

TEST_CASE("disk check: one that says nothing in its time is ended, and named with its measure") {
  constexpr Duration kShort = std::chrono::milliseconds(20);
  const FolderCheck hung = by_shell(std::string(kBegun) + "sleep 100", kLong, kShort);
  CHECK(problems_of({hung}) == std::vector<std::string>{"state: write: it did not end in 0.02 s"});
  const FolderCheck silent = by_shell("sleep 100", kShort, kLong);
  CHECK(problems_of({silent}) == std::vector<std::string>{"state: it did not answer in 0.02 s"});
}

TEST_CASE("disk check: one that fails, dies or says nothing is a problem with what it said") {
  const auto by = [](const std::string& script) { return by_shell(script, kLong, kLong); };
  CHECK(problems_of({by(std::string(kBegun) +
                        R"(echo '{"ended": null, "problem": "no space"}'; exit 3)")}) ==
        std::vector<std::string>{"state: write: no space"});
  CHECK(problems_of({by(std::string(kBegun) + "kill -9 $$")}) ==
        std::vector<std::string>{"state: write: its process ended by signal 9"});
  CHECK(problems_of({by("echo words; exit 1")}) ==
        std::vector<std::string>{"state: its process ended with 1: words"});
  CHECK(problems_of({by("true")}) == std::vector<std::string>{"state: its process ended with 0"});
}

TEST_CASE("disk check: a folder on the disk of one before it is not measured again") {
  std::vector<FolderCheck> folders{{.use = "state", .folder = "/a"},
                                   {.use = "cache", .folder = "/b"}};
  // Without a disk that was measured before, as its words say, it measures.
  const std::string script = std::string(R"([ -n "$1" ] && { echo '{"looked_at": "/b", "disk": )"
                                         R"(7}'; exit 0; }; )") +
                             kBegun + R"(echo '{"ended": 5, "how": "x"}')";
  measure_disks({.command = {"/bin/sh", "-c", script}}, folders);
  CHECK(folders[0].same_as.empty());
  REQUIRE(folders[0].measures.size() == 1);
  CHECK(folders[0].measures[0].value == 5);
  CHECK(folders[1].same_as == "state");
  CHECK(folders[1].measures.empty());
  CHECK(problems_of(folders).empty());
  const auto said = disks_json(folders, judge_disks(folders));
  CHECK(said.at("folders").at(0).at("measures").at(0).at("value") == 5.0);
  CHECK(said.at("folders").at(1).at("same_as") == "state");
  CHECK(disks_page(folders, {}, Paint::plain).find("on the disk of state") != std::string::npos);
}

TEST_CASE("disk check: little room is a problem, slow syncs are one of the state folder only") {
  const auto with = [](const char* use, const char* name, const char* unit, double value) {
    FolderCheck check{.use = use, .folder = "/x"};
    check.measures.push_back({.name = name, .unit = unit, .value = value});
    return check;
  };
  CHECK(problems_of({with("cache", "free space", "bytes", 1 << 29)}) ==
        std::vector<std::string>{"cache: 512 MiB free"});
  CHECK(problems_of({with("cache", "free space", "bytes", 1U << 31)}).empty());
  CHECK(problems_of({with("state", "sync", "ms", 21)}).size() == 1);
  CHECK(problems_of({with("state", "sync", "ms", 19)}).empty());
  CHECK(problems_of({with("cache", "sync", "ms", 21)}).empty());
  CHECK(judge_disks({with("cache", "sync", "ms", 21)}).size() == 1);
}

TEST_CASE("disk check: lines that are not its own, or that nothing began, are ignored") {
  FolderCheck check;
  for (const char* const line : {"words", "{}", "[1]", R"({"ended": 1, "how": "x"})"}) {
    INFO(line);
    CHECK_FALSE(check.take(line));
  }
  CHECK(check.measures.empty());
}

}  // namespace tutti::cli
