// cgroup v2 on a tree that keeps the kernel's rules: which controllers a group can hand down, and
// that it holds no processes while it does.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <vector>

#include "worker/launcher/unified.h"

using namespace tutti;
using namespace tutti::worker;

namespace {

namespace fs = std::filesystem;

class FakeTree : public GroupTree {
 public:
  struct Group {
    std::set<std::string> available;  // handed down to it
    std::set<std::string> enabled;    // that it hands down
    std::vector<pid_t> members;
  };

  Result<> make(const fs::path& path) override {
    if (groups.contains(path)) return {};
    if (!groups.contains(path.parent_path())) return Error{ErrorCode::not_found, "no parent"};
    groups[path].available = groups[path.parent_path()].enabled;
    return {};
  }

  Result<> put(const fs::path& file, std::string_view value) override {
    const auto found = groups.find(file.parent_path());
    if (found == groups.end()) return Error{ErrorCode::not_found, "no such group"};
    Group& group = found->second;
    if (file.filename() == "cgroup.procs") {
      const pid_t pid = std::stoi(std::string(value));
      if (!group.enabled.empty()) return Error{ErrorCode::unavailable, "EBUSY"};
      for (auto& [path, other] : groups) std::erase(other.members, pid);
      group.members.push_back(pid);
      return {};
    }
    // Several at a time are taken whole, or not at all.
    std::istringstream words{std::string(value)};
    std::set<std::string> wanted;
    for (std::string word; words >> word;) wanted.insert(word.substr(1));
    for (const std::string& each : wanted) {
      if (!group.available.contains(each)) return Error{ErrorCode::not_found, "ENOENT"};
    }
    const bool has =
        std::includes(group.enabled.begin(), group.enabled.end(), wanted.begin(), wanted.end());
    if (!has && !group.members.empty()) return Error{ErrorCode::unavailable, "EBUSY"};
    group.enabled.insert(wanted.begin(), wanted.end());
    for (auto& [path, other] : groups) {
      if (path.parent_path() == file.parent_path()) other.available = group.enabled;
    }
    return {};
  }

  std::string text_of(const fs::path& file) const override {
    const auto found = groups.find(file.parent_path());
    std::string out;
    if (found == groups.end() || file.filename() != "cgroup.procs") return out;
    for (const pid_t pid : found->second.members) out += std::to_string(pid) + "\n";
    return out;
  }

  std::map<fs::path, Group> groups;
};

constexpr pid_t kUp = 100;
constexpr pid_t kCoordinator = 101;
constexpr pid_t kStranger = 7;

bool ours(pid_t pid) { return pid != kStranger; }

FakeTree tree_of(std::set<std::string> available, std::vector<pid_t> members) {
  FakeTree out;
  out.groups["/cg/unit"] = {
      .available = std::move(available), .enabled = {}, .members = std::move(members)};
  return out;
}

}  // namespace

TEST_CASE("cgroup v2: a worker that is alone in its group moves into a leaf and limits both") {
  FakeTree tree = tree_of({"cpu", "memory", "pids"}, {::getpid()});
  const auto delegated = delegate(tree, "/cg/unit", "tutti-x", ours);
  REQUIRE(delegated);
  CHECK(delegated->groups == "/cg/unit/tutti-x");
  CHECK(delegated->cores);
  CHECK(tree.groups["/cg/unit"].members.empty());
  CHECK(tree.groups["/cg/unit/tutti-x.worker"].members == std::vector<pid_t>{::getpid()});
  CHECK(tree.groups["/cg/unit/tutti-x"].enabled == std::set<std::string>{"cpu", "memory"});
}

TEST_CASE("cgroup v2: where only memory was delegated, memory is limited, and cores are not") {
  FakeTree tree = tree_of({"memory", "pids"}, {::getpid()});
  const auto delegated = delegate(tree, "/cg/unit", "tutti-x", ours);
  REQUIRE(delegated);
  CHECK_FALSE(delegated->cores);
  CHECK(tree.groups["/cg/unit/tutti-x"].enabled == std::set<std::string>{"memory"});
}

TEST_CASE("cgroup v2: under `tutti up` supervisor and coordinator move along") {
  FakeTree tree = tree_of({"cpu", "memory"}, {kUp, kCoordinator, ::getpid()});
  REQUIRE(delegate(tree, "/cg/unit", "tutti-x", ours));
  CHECK(tree.groups["/cg/unit"].members.empty());
  CHECK(tree.groups["/cg/unit/tutti-x.worker"].members.size() == 3);
  // The next worker is a child of one that was moved.
  const auto again = delegate(tree, "/cg/unit/tutti-x.worker", "tutti-x", ours);
  REQUIRE(again);
  CHECK(again->groups == "/cg/unit/tutti-x");
  CHECK(again->cores);
}

TEST_CASE("cgroup v2: a group that somebody else is in is left as it is") {
  FakeTree tree = tree_of({"cpu", "memory"}, {kStranger, ::getpid()});
  const auto refused = delegate(tree, "/cg/unit", "tutti-x", ours);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::aborted);
  CHECK(tree.groups["/cg/unit"].members.size() == 2);
  CHECK_FALSE(tree.groups.contains("/cg/unit/tutti-x.worker"));
}

TEST_CASE("cgroup v2: without a memory controller there is no limit to be had") {
  FakeTree tree = tree_of({"cpu"}, {::getpid()});
  CHECK_FALSE(delegate(tree, "/cg/unit", "tutti-x", ours));
}

TEST_CASE("cgroup v2: who runs the same file is one of us") {
  CHECK(runs_our_binary(::getpid()));
  CHECK_FALSE(runs_our_binary(1));
}
