// What JobStores and Notices keep, and do not keep, of many jobs.
#include <catch2/catch.hpp>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>

#include "coordinator/store/job_stores.h"
#include "tests/support/temporary_folder.h"

extern std::atomic<bool> syncs_are_free;  // failed_sync_test.cc

namespace tutti::coordinator {
namespace {

namespace fs = std::filesystem;

struct Stores {
  // `apart`: ranks write elsewhere than where the records are.
  explicit Stores(bool apart = false)
      : stores(runtime, folder.path(), (apart ? job_folders : folder).path(), notices) {
    syncs_are_free = true;
    runtime.start();
  }
  ~Stores() {
    runtime.stop_and_join();
    syncs_are_free = false;
  }

  wire::SpoolData chunk(std::uint64_t job, wire::Stream stream, std::uint64_t offset,
                        std::string bytes) {
    wire::SpoolData data;
    data.job = JobId{job};
    data.process = ProcessId{job};
    data.generation = Generation{1};
    data.stream = stream;
    data.offset = offset;
    data.bytes = std::move(bytes);
    return data;
  }
  void store(wire::SpoolData data) {
    auto stored = std::make_shared<std::promise<bool>>();
    REQUIRE(stores.store(std::move(data), [stored](Result<StoreOutcome> outcome) {
      stored->set_value(outcome.ok());
    }));
    auto future = stored->get_future();
    REQUIRE(future.wait_for(std::chrono::seconds(20)) == std::future_status::ready);
    REQUIRE(future.get());
  }
  void end(std::uint64_t job, wire::Stream stream, std::uint64_t offset = 0) {
    wire::SpoolData data = chunk(job, stream, offset, {});
    data.end = true;
    store(std::move(data));
  }
  // After all that was told before.
  template <class Ask>
  auto ask(Ask ask) {
    std::promise<decltype(ask())> answered;
    REQUIRE(stores.host().tell([&] { answered.set_value(ask()); }));
    return answered.get_future().get();
  }

  test::TemporaryFolder folder;
  test::TemporaryFolder job_folders;
  Notices notices;
  actor::Runtime runtime{1};
  JobStores stores;
};

}  // namespace

TEST_CASE("job stores: of tasks that have ended nothing is kept in memory") {
  Stores at;
  constexpr std::uint64_t kTasks = 10'000;
  for (std::uint64_t task = 1; task <= kTasks; ++task) {
    at.stores.expect(JobId{task}, ProcessId{task});
    at.notices.publish(JobId{task});
    if (task % 1000 != 0) {
      at.stores.expect_nothing(JobId{task}, ProcessId{task});
      continue;
    }
    at.store(at.chunk(task, wire::Stream::log, 0, "hello\n"));
    at.end(task, wire::Stream::log, 6);
    CHECK(at.stores.jobs_with_streams() == 1);
    at.end(task, wire::Stream::steps);
    CHECK(at.stores.jobs_with_streams() == 0);
    at.end(task, wire::Stream::log, 6);  // its acknowledgement was lost
    CHECK(at.stores.jobs_with_streams() == 0);
  }
  CHECK(at.stores.jobs_with_streams() == 0);
  CHECK(at.notices.awaited() == 0);
  CHECK(at.ask([&] { return at.stores.streams_ended(JobId{1000}); }));
  CHECK(at.ask([&] { return at.stores.read_log(JobId{1000}, 0, {})->chunks.size(); }) == 1);
}

TEST_CASE("job stores: of a forgotten job empty folders go, also where they are elsewhere") {
  Stores at(true);
  fs::create_directories(at.job_folders.path() / "5" / "checkpoints");
  fs::create_directories(at.job_folders.path() / "6" / "checkpoints" / "step-10");
  for (const char* job : {"5", "6"}) fs::create_directories(at.folder.path() / job / "records");
  CHECK(at.ask([&] { return at.stores.jobs_on_disk().size(); }) == 2);
  at.stores.forget_all({JobId{5}, JobId{6}});
  CHECK(at.ask([&] { return at.stores.jobs_on_disk().empty(); }));
  CHECK_FALSE(fs::exists(at.job_folders.path() / "5"));
  CHECK(fs::exists(at.job_folders.path() / "6" / "checkpoints" / "step-10"));
}

TEST_CASE("job stores: who was not expected counts until its second stream ends, in any order") {
  Stores at;
  const bool log_first = GENERATE(true, false);
  at.end(3, log_first ? wire::Stream::log : wire::Stream::steps);
  CHECK_FALSE(at.ask([&] { return at.stores.streams_ended(JobId{3}); }));
  at.end(3, log_first ? wire::Stream::steps : wire::Stream::log);
  CHECK(at.ask([&] { return at.stores.streams_ended(JobId{3}); }));
  at.end(3, wire::Stream::steps);
  CHECK(at.ask([&] { return at.stores.streams_ended(JobId{3}); }));
}

TEST_CASE("notices: a waiter is woken by news of its job, and nothing is kept once it has gone") {
  Notices notices;
  int woken = 0;
  const auto seen = notices.version(JobId{7});
  const auto ticket = notices.wait_beyond(JobId{7}, seen, [&] { ++woken; });
  REQUIRE(ticket != 0);
  notices.publish(JobId{8});
  CHECK(woken == 0);
  notices.publish(JobId{7});
  notices.publish(JobId{7});
  CHECK(woken == 1);
  CHECK(notices.awaited() == 0);
  // News between reading and waiting is not lost.
  CHECK(notices.wait_beyond(JobId{7}, seen, [&] { ++woken; }) == 0);
  CHECK(woken == 2);
  const auto again = notices.wait_beyond(JobId{7}, notices.version(JobId{7}), [&] { ++woken; });
  notices.cancel(JobId{7}, again);
  CHECK(notices.awaited() == 0);
  // A job that shares its counter makes a reader look once more, no worse.
  const JobId twin{7 + Notices::kCounters - 1};
  const auto before = notices.version(JobId{7});
  notices.publish(twin);
  CHECK(notices.version(JobId{7}) != before);
}

TEST_CASE("job stores: with a forgotten job go its records and its empty folders, nothing else") {
  Stores at;
  const fs::path jobs = at.folder.path();
  // An array of three, the second of which wrote something; a training job with a checkpoint.
  for (const char* task : {"5/0", "5/1", "5/2"}) fs::create_directories(jobs / task);
  std::ofstream(jobs / "5/1/result.txt") << "42\n";
  at.store(at.chunk(6, wire::Stream::log, 0, "hello\n"));
  fs::create_directories(jobs / "9/checkpoints/step-4");
  at.store(at.chunk(9, wire::Stream::log, 0, "hello\n"));
  fs::create_directories(jobs / "10/checkpoints");
  CHECK(at.stores.jobs_on_disk().size() == 4);
  at.stores.forget(JobId{5}, 3);
  at.stores.forget(JobId{9});
  at.stores.forget(JobId{10});
  at.ask([] { return true; });
  CHECK_FALSE(fs::exists(jobs / "5/0"));
  CHECK_FALSE(fs::exists(jobs / "5/2"));
  CHECK(fs::exists(jobs / "5/1/result.txt"));
  CHECK_FALSE(fs::exists(jobs / "6"));
  CHECK_FALSE(fs::exists(jobs / "9/records"));
  CHECK(fs::exists(jobs / "9/checkpoints/step-4"));
  CHECK_FALSE(fs::exists(jobs / "10"));
}

TEST_CASE("job stores: what is to be stored does not wait until a large array is forgotten") {
  Stores at;
  constexpr std::uint32_t kTasks = 20 * JobStores::kForgottenPerTurn + 1;
  const fs::path jobs = at.folder.path();
  for (std::uint32_t task = 0; task < kTasks; ++task) {
    fs::create_directories(jobs / "5" / std::to_string(task));
  }
  const JobId other{5 + kTasks + 1};
  std::promise<bool> last_was_there;
  // Told before anything runs: what it has in its turn does not depend on who is faster.
  REQUIRE(at.ask([&] {
    at.stores.forget(JobId{5}, kTasks);
    const auto stored = [&](const Result<StoreOutcome>& outcome) {
      const fs::path last = jobs / "5" / std::to_string(kTasks - 1);
      last_was_there.set_value(outcome.ok() && fs::exists(last));
    };
    return at.stores.store(at.chunk(other.value, wire::Stream::log, 0, "hello\n"), stored).ok();
  }));
  CHECK(last_was_there.get_future().get());
  while (at.ask([&] { return fs::exists(jobs / "5"); })) {
  }
  CHECK(at.stores.jobs_on_disk() == std::vector<JobId>{other});
}

TEST_CASE("job stores: many jobs that write at a time are each read once, with few files open") {
  Stores at;
  constexpr std::uint64_t kJobs = JobStores::kOpenJobsMax + 40;
  const auto open_files = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto before = open_files();
  for (int round = 0; round < 3; ++round) {
    for (std::uint64_t job = 1; job <= kJobs; ++job) {
      at.store(at.chunk(job, wire::Stream::log, static_cast<std::uint64_t>(round) * 6, "hello\n"));
    }
  }
  CHECK(at.stores.scans() == kJobs);
  CHECK(at.ask(open_files) - before <= static_cast<long>(2 * JobStores::kOpenJobsMax) + 4);
  for (const std::uint64_t job : {std::uint64_t{1}, kJobs}) {
    const auto page = at.ask([&] { return at.stores.read_log(JobId{job}, 0, {}); });
    REQUIRE(page.ok());
    CHECK(page->chunks.size() == 3);
  }
  CHECK(at.stores.scans() == kJobs);
}

TEST_CASE("append file: one that rests goes on, and refuses what somebody else has changed") {
  const test::TemporaryFolder folder;
  auto file = AppendFile::open(folder.path() / "a");
  REQUIRE(file.ok());
  REQUIRE(file->append("one"));
  file->rest();  // not synced: stays open
  REQUIRE(file->sync());
  file->rest();
  REQUIRE(file->append("two"));
  REQUIRE(file->sync());
  CHECK(*file->read(0, 10) == "onetwo");
  file->rest();
  std::ofstream(folder.path() / "a", std::ios::app) << "three";
  CHECK(file->append("four").error().code == ErrorCode::corrupt);
}

}  // namespace tutti::coordinator
