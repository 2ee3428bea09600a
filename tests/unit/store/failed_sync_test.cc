// What a sync that failed once does: the system has dropped what it could not write and says so
// once only, so nothing of it may count as stored.
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <future>
#include <string>
#include <vector>

#include "coordinator/store/job_stores.h"
#include "tests/support/temporary_folder.h"

// For tests of this program that sync by the thousand.
std::atomic<bool> syncs_are_free{false};

namespace {

std::atomic<int> syncs{0};
std::atomic<int> failing_syncs{0};
std::atomic<int> failing_folders{0};
// By one thread at a time.
std::vector<std::filesystem::path> synced_folders;

}  // namespace

// Takes the place of the system's in this program.
extern "C" int fdatasync(int file) {
  if (syncs_are_free) return 0;
  ++syncs;
  if (failing_syncs > 0) {
    --failing_syncs;
    errno = EIO;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fdatasync, file));
}

extern "C" int fsync(int file) {
  if (syncs_are_free) return 0;
  if (failing_folders > 0) {
    --failing_folders;
    errno = EIO;
    return -1;
  }
  std::error_code none;
  synced_folders.push_back(
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(file), none));
  return static_cast<int>(::syscall(SYS_fsync, file));
}

namespace tutti::coordinator {
namespace {

constexpr JobId kJob{7};

struct Storing {
  Storing() { runtime.start(); }
  ~Storing() { runtime.stop_and_join(); }

  Result<StoreOutcome> store(wire::Stream stream, std::uint64_t offset, std::string bytes) {
    return store_in(stores, stream, offset, std::move(bytes));
  }
  Result<StoreOutcome> store_in(JobStores& into, wire::Stream stream, std::uint64_t offset,
                                std::string bytes) {
    wire::SpoolData data;
    data.job = kJob;
    data.process = ProcessId{3};
    data.generation = Generation{1};
    data.stream = stream;
    data.offset = offset;
    data.bytes = std::move(bytes);
    std::promise<Result<StoreOutcome>> stored;
    REQUIRE(into.store(std::move(data),
                       [&](Result<StoreOutcome> outcome) { stored.set_value(std::move(outcome)); })
                .ok());
    return stored.get_future().get();
  }
  std::uintmax_t size_of(const char* file) const {
    return std::filesystem::file_size(folder.path() / "7" / "records" / file);
  }

  const test::TemporaryFolder folder;
  Notices notices;
  actor::Runtime runtime{1};
  JobStores stores{runtime, folder.path(), folder.path(), notices};
};

TEST_CASE("stores: what a failed sync lost is written again before it is acknowledged") {
  const struct {
    wire::Stream stream;
    const char* file;
    std::string first;
    std::string second;
  } cases[] = {
      {wire::Stream::log, "log-00000000000000000000", "first", "second"},
      {wire::Stream::steps, "steps.jsonl", "{\"step\":1,\"weights\":\"aa\"}\n",
       "{\"step\":2,\"weights\":\"bb\"}\n"},
  };
  for (const auto& each : cases) {
    INFO(each.file);
    Storing storing;
    REQUIRE(storing.store(each.stream, 0, each.first).ok());
    const std::uintmax_t durable = storing.size_of(each.file);
    failing_syncs = 1;
    const Result<StoreOutcome> failed = storing.store(each.stream, each.first.size(), each.second);
    REQUIRE_FALSE(failed.ok());
    CHECK(storing.size_of(each.file) == durable);
    // The worker sends it again.
    const Result<StoreOutcome> again = storing.store(each.stream, each.first.size(), each.second);
    REQUIRE(again.ok());
    CHECK(again->ack.offset == each.first.size() + each.second.size());
    CHECK(storing.size_of(each.file) > durable);
  }
}

TEST_CASE("stores: what an earlier coordinator wrote is synced before it is said to be known") {
  const test::TemporaryFolder folder;
  wire::SpoolData data;
  data.process = ProcessId{3};
  data.bytes = "text";
  {
    auto store = LogStore::open(folder.path());
    REQUIRE(store.ok());
    REQUIRE(store->append(data).ok());  // and it ends before the sync
  }
  auto store = LogStore::open(folder.path());
  REQUIRE(store.ok());
  CHECK(store->append(data)->offset == 4);
  const int before = syncs;
  REQUIRE(store->sync().ok());
  CHECK(syncs == before + 1);
}

TEST_CASE("stores: what a program wrote takes one sync of a file, as it has no step records") {
  Storing storing;
  const int before = syncs;
  REQUIRE(storing.store(wire::Stream::log, 0, "hello\n").ok());
  REQUIRE(storing.store(wire::Stream::steps, 0, "").ok());
  CHECK(syncs == before + 1);
  CHECK_FALSE(std::filesystem::exists(storing.folder.path() / "7" / "records" / "steps.jsonl"));
  REQUIRE(storing.store(wire::Stream::steps, 0, "{\"step\":1,\"weights\":\"aa\"}\n").ok());
  CHECK(storing.size_of("steps.jsonl") > 0);
  CHECK(syncs == before + 2);
}

TEST_CASE("stores: a job's first record is acknowledged once its folders are durable, too") {
  Storing storing;
  synced_folders.clear();
  REQUIRE(storing.store(wire::Stream::log, 0, "hello\n").ok());
  const std::filesystem::path own = storing.folder.path() / "7";
  CHECK(synced_folders ==
        std::vector<std::filesystem::path>{own / "records", own, storing.folder.path()});
  synced_folders.clear();
  REQUIRE(storing.store(wire::Stream::log, 6, "again\n").ok());
  CHECK(synced_folders.empty());
}

TEST_CASE("stores: what lies in a folder that could not be synced is not acknowledged") {
  Storing storing;
  REQUIRE(storing.store(wire::Stream::log, 0, "hello\n").ok());
  JobStores successor(storing.runtime, storing.folder.path(), storing.folder.path(),
                      storing.notices);
  failing_folders = 1;
  CHECK_FALSE(storing.store_in(successor, wire::Stream::log, 6, "again\n").ok());
  const Result<StoreOutcome> again = storing.store_in(successor, wire::Stream::log, 6, "again\n");
  REQUIRE(again.ok());
  CHECK(again->ack.offset == 12);
}

}  // namespace
}  // namespace tutti::coordinator
