#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>

#include "tests/support/temporary_folder.h"
#include "worker/launcher/job_folders.h"

namespace tutti::worker {

namespace fs = std::filesystem;

namespace {

struct Disk {
  std::string make(const std::string& name) {
    const fs::path path = folder.path() / name;
    fs::create_directories(path);
    return path.string();
  }
  bool has(const std::string& name) const { return fs::exists(folder.path() / name); }

  test::TemporaryFolder folder;
  JobFolders folders;
};

}  // namespace

TEST_CASE("job folders: an empty one that we made goes once nobody of ours is in it") {
  Disk disk;
  const std::string shared = disk.make("7");
  disk.folders.made(shared, ProcessId{1});
  disk.folders.enter(shared, ProcessId{2});
  disk.folders.leave(ProcessId{1});
  disk.folders.sweep({});
  CHECK(disk.has("7"));
  CHECK_FALSE(disk.folders.has_left());
  disk.folders.leave(ProcessId{2});
  REQUIRE(disk.folders.has_left());
  disk.folders.sweep({});
  CHECK_FALSE(disk.has("7"));
  CHECK(disk.folders.known() == 0);
}

TEST_CASE("job folders: what was there before us, or has something in it, stays") {
  Disk disk;
  disk.folders.enter(disk.make("8"), ProcessId{1});
  const std::string full = disk.make("9");
  disk.folders.made(full, ProcessId{2});
  std::ofstream(full + "/result") << "42\n";
  for (const std::uint64_t process : {1, 2, 3}) disk.folders.leave(ProcessId{process});
  disk.folders.sweep({});
  CHECK(disk.has("8"));
  CHECK(disk.has("9/result"));
  CHECK(disk.folders.known() == 0);
}

TEST_CASE("job folders: one that somebody else works in waits until he has left") {
  Disk disk;
  const std::string folder = disk.make("7");
  disk.folders.made(folder, ProcessId{1});
  disk.folders.leave(ProcessId{1});
  disk.folders.sweep({fs::canonical(folder).string()});
  CHECK(disk.has("7"));
  CHECK(disk.folders.has_left());
  disk.folders.sweep({});
  CHECK_FALSE(disk.has("7"));
  // This process's own is among those of the machine.
  CHECK(working_folders().contains(fs::current_path().string()));
}

TEST_CASE("job folders: one that the next process of its job goes to is not left any more") {
  Disk disk;
  const std::string folder = disk.make("7");
  disk.folders.made(folder, ProcessId{1});
  disk.folders.leave(ProcessId{1});
  disk.folders.enter(folder, ProcessId{2});
  CHECK_FALSE(disk.folders.has_left());
  disk.folders.sweep({});
  CHECK(disk.has("7"));
}

TEST_CASE("job folders: an array's goes with its last task's, and not before") {
  Disk disk;
  for (const std::uint64_t task : {0, 1}) {
    disk.folders.made(disk.make("5/" + std::to_string(task)), ProcessId{1 + task});
  }
  disk.folders.leave(ProcessId{1});
  disk.folders.sweep({});
  CHECK_FALSE(disk.has("5/0"));
  CHECK(disk.has("5/1"));
  disk.folders.leave(ProcessId{2});
  disk.folders.sweep({});
  CHECK_FALSE(disk.has("5"));
  CHECK(fs::exists(disk.folder.path()));  // no number: nobody's array
}

}  // namespace tutti::worker
