#include "coordinator/store/step_store.h"

#include <catch2/catch.hpp>

#include <fstream>
#include <future>

#include "coordinator/store/job_stores.h"
#include "tests/support/temporary_folder.h"

namespace tutti::coordinator {
namespace {

std::string record(int step, const std::string& weights) {
  return "{\"step\":" + std::to_string(step) + ",\"weights\":\"" + weights + "\"}";
}

TEST_CASE("step store: a step is kept once, whoever reports it") {
  const test::TemporaryFolder folder;
  auto store = StepStore::open(folder.path());
  REQUIRE(store.ok());
  CHECK(store->append(record(1, "aa") + "\n" + record(2, "bb") + "\n")->count == 2);
  const Result<StepsTaken> again = store->append(record(2, "bb") + "\n" + record(3, "cc") + "\n\n");
  REQUIRE(again.ok());
  CHECK(again->count == 1);
  CHECK(again->newest == 3);
  CHECK_FALSE(again->mismatch.has_value());
  CHECK(store->read(1, 10, {})->records ==
        std::vector<std::string>{record(2, "bb"), record(3, "cc")});
  CHECK(store->read(1, 1, {})->records.size() == 1);
  CHECK(store->read(3, 10, {})->records.empty());
}

TEST_CASE("step store: steps are read in their order, an early one waits for those before it") {
  const test::TemporaryFolder folder;
  auto store = StepStore::open(folder.path());
  REQUIRE(store.ok());
  const Instant then{std::chrono::seconds(100)};
  REQUIRE(
      store->append(record(5, "ee") + "\n" + record(6, "ff") + "\n").ok());  // from a checkpoint
  CHECK(store->read(0, 10, then)->next == 6);
  REQUIRE(store->append(record(8, "hh") + "\n").ok());  // a survivor's, before a newcomer's 7
  const auto held = store->read(6, 10, then);
  CHECK(held->records.empty());
  CHECK(held->held);
  REQUIRE(store->append(record(7, "gg") + "\n").ok());
  CHECK(store->read(6, 10, then)->records ==
        std::vector<std::string>{record(7, "gg"), record(8, "hh")});
  // What never comes is not waited for.
  REQUIRE(store->append(record(10, "jj") + "\n").ok());
  CHECK(store->read(8, 10, then)->records.empty());
  CHECK(store->read(8, 10, then + StepStore::kGapHold)->next == 10);
}

TEST_CASE("step store: the newest record's figures, and the tokens of all") {
  const test::TemporaryFolder folder;
  auto store = StepStore::open(folder.path());
  REQUIRE(store.ok());
  REQUIRE(store
              ->append("{\"step\":2,\"weights\":\"b\",\"loss\":1.5,\"tokens\":10}\n"
                       "{\"step\":1,\"weights\":\"a\",\"loss\":2.5,\"tokens\":10}\n")
              .ok());
  CHECK(store->figures().step == 2);
  CHECK(store->figures().loss == 1.5);
  CHECK(store->figures().tokens_total == 20);
}

// Steps from `first` on, of which each has its number as its hash.
void append_steps(StepStore& store, std::uint64_t first, std::uint64_t count) {
  constexpr std::uint64_t kBatch = 500;
  for (std::uint64_t done = 0; done < count; done += kBatch) {
    std::string lines;
    for (std::uint64_t i = done; i < std::min(count, done + kBatch); ++i) {
      const int step = static_cast<int>(first + i);
      lines += record(step, std::to_string(step)) + "\n";
    }
    REQUIRE(store.append(lines).ok());
    REQUIRE(store.sync().ok());
  }
}

constexpr std::uint64_t kMany = 3 * StepStore::kRecentMax;

TEST_CASE(
    "step store: of a long job the newest records are in memory, all are found and compared") {
  const test::TemporaryFolder folder;
  auto store = StepStore::open(folder.path());
  REQUIRE(store.ok());
  append_steps(*store, 1, kMany);
  const auto check = [&](StepStore& of) {
    CHECK(of.in_memory() <= StepStore::kRecentMax);
    CHECK(of.count() == kMany);
    const auto page = of.read(10, 4, {});
    REQUIRE(page.ok());
    CHECK(page->next == 14);
    CHECK(page->records.at(0) == record(11, "11"));
    CHECK(of.read(0, 2 * kMany, {})->records.size() == kMany);
    CHECK(of.read(kMany - 1, 10, {})->records.size() == 1);
    const auto same = of.append(record(12, "12") + "\n");
    CHECK(same->count == 0);
    CHECK(same->newest == kMany);
    CHECK_FALSE(same->mismatch.has_value());
    const auto other = of.append(record(12, "xx") + "\n");
    REQUIRE(other->mismatch.has_value());
    CHECK(other->mismatch->message.find("than an earlier record: xx, not 12") != std::string::npos);
  };
  check(*store);
  SECTION("another one reads the newest alone") {
    // Should it read the first one, it would find no record there.
    std::fstream(folder.path() / "steps.jsonl", std::ios::in | std::ios::out) << "xxxx";
    auto successor = StepStore::open(folder.path());
    REQUIRE(successor.ok());
    CHECK(successor->count() == kMany);
    CHECK(successor->read(1, 1, {})->records.at(0) == record(2, "2"));
  }
  SECTION("without an index all are read anew") {
    std::filesystem::remove(folder.path() / "steps.index");
    auto successor = StepStore::open(folder.path());
    REQUIRE(successor.ok());
    check(*successor);
  }
  SECTION("nor is one believed that is damaged, or says more than there is") {
    if (GENERATE(true, false)) {
      std::fstream(folder.path() / "steps.index", std::ios::in | std::ios::out).seekp(8) << "x";
      auto successor = StepStore::open(folder.path());
      REQUIRE(successor.ok());
      check(*successor);
    } else {
      const auto first = record(1, "1").size() + 1;
      std::filesystem::resize_file(folder.path() / "steps.jsonl", first);
      CHECK(StepStore::open(folder.path())->count() == 1);
    }
  }
}

TEST_CASE("step store: what a crash cut off between records and their index is read again") {
  const test::TemporaryFolder folder;
  auto store = StepStore::open(folder.path());
  REQUIRE(store.ok());
  append_steps(*store, 1, kMany);
  const auto index = folder.path() / "steps.index";
  std::filesystem::copy_file(index, folder.path() / "before");
  append_steps(*store, kMany + 1, kMany);
  // Rows without the header that counts them.
  std::string header(64, '\0');
  std::ifstream(folder.path() / "before", std::ios::binary).read(header.data(), 64);
  std::fstream(index, std::ios::in | std::ios::out | std::ios::binary).write(header.data(), 64);
  auto successor = StepStore::open(folder.path());
  REQUIRE(successor.ok());
  CHECK(successor->count() == 2 * kMany);
  CHECK(successor->read(0, 4 * kMany, {})->records.size() == 2 * kMany);
}

TEST_CASE("step store: a late step, and steps far apart, have their place in a long job") {
  const test::TemporaryFolder folder;
  auto store = StepStore::open(folder.path());
  REQUIRE(store.ok());
  append_steps(*store, 1'000'000, kMany);
  append_steps(*store, 500'000'000, kMany);
  CHECK(store->append(record(7, "late") + "\n")->count == 1);
  CHECK(store->in_memory() <= StepStore::kRecentMax + 1);
  CHECK(store->read(0, 2, {})->records ==
        std::vector<std::string>{record(7, "late"), record(1'000'000, "1000000")});
  CHECK(store->read(1'000'000 + kMany - 1, 1, {})->next == 500'000'000);
  append_steps(*store, 500'000'000 + kMany, kMany);
  CHECK(store->append(record(7, "other") + "\n")->mismatch.has_value());
}

TEST_CASE("step store: another hash for a step is told, within a batch and against what is kept") {
  const test::TemporaryFolder folder;
  auto store = StepStore::open(folder.path());
  REQUIRE(store.ok());
  const Result<StepsTaken> within = store->append(record(1, "aa") + "\n" + record(1, "bb") + "\n");
  REQUIRE(within->mismatch.has_value());
  CHECK(within->mismatch->step == 1);
  REQUIRE(store->sync().ok());
  auto opened_again = StepStore::open(folder.path());
  REQUIRE(opened_again.ok());
  CHECK(opened_again->append(record(1, "cc") + "\n")->mismatch.has_value());
  CHECK(opened_again->count() == 1);
}

TEST_CASE("step store: who has other weights is named, and who diverged where others agree") {
  const test::TemporaryFolder folder;
  auto store = StepStore::open(folder.path());
  REQUIRE(store.ok());
  const auto of = [](std::uint64_t process, std::uint32_t rank) {
    return StepReporter{.process = ProcessId{process}, .rank = rank};
  };
  REQUIRE(store->append(record(1, "aa") + "\n", of(10, 0)).ok());
  const auto second = store->append(record(1, "bb") + "\n", of(11, 1));
  REQUIRE(second->mismatch.has_value());
  CHECK(second->mismatch->message ==
        "rank 1 (process 11) has other weights after step 1 than rank 0 (process 10): bb, not aa");
  CHECK_FALSE(store->append(record(1, "aa") + "\n", of(10, 0))->mismatch.has_value());  // again
  CHECK_FALSE(store->append(record(1, "aa") + "\n", of(12, 2))->mismatch.has_value());
  const auto third = store->append(record(1, "bb") + "\n", of(11, 1));
  REQUIRE(third->mismatch.has_value());
  CHECK(
      third->mismatch->message.ends_with("; others agree on those, rank 1 (process 11) diverged"));
}

TEST_CASE("step store: lines that are no records, and a line cut short by a crash, are left out") {
  const test::TemporaryFolder folder;
  {
    auto store = StepStore::open(folder.path());
    REQUIRE(store.ok());
    CHECK(store->append("noise\n{}\n[1]\n" + record(1, "aa") + "\n")->count == 1);
  }
  std::ofstream(folder.path() / "steps.jsonl", std::ios::app) << "{\"step\":2,";
  auto store = StepStore::open(folder.path());
  REQUIRE(store.ok());
  CHECK(store->append(record(2, "bb") + "\n")->count == 1);
  CHECK(store->read(0, 10, {})->records ==
        std::vector<std::string>{record(1, "aa"), record(2, "bb")});
}

TEST_CASE("job stores: an acknowledgement follows the sync, and news wakes those who wait") {
  const test::TemporaryFolder folder;
  Notices notices;
  actor::Runtime runtime(1);
  JobStores stores(runtime, folder.path(), folder.path(), notices);
  runtime.start();
  std::promise<void> woken;
  CHECK(notices.wait_beyond(JobId{7}, notices.version(JobId{7}), [&] { woken.set_value(); }) != 0);
  wire::SpoolData data;
  data.job = JobId{7};
  data.process = ProcessId{3};
  data.stream = wire::Stream::steps;
  data.offset = 10;
  data.bytes = record(1, "aa") + "\n";
  std::promise<Result<StoreOutcome>> stored;
  stores.expect(JobId{7}, ProcessId{3});
  REQUIRE(
      stores
          .store(data, [&](Result<StoreOutcome> outcome) { stored.set_value(std::move(outcome)); })
          .ok());
  auto outcome = stored.get_future();
  REQUIRE(outcome.wait_for(std::chrono::seconds(10)) == std::future_status::ready);
  const Result<StoreOutcome> taken = outcome.get();
  REQUIRE(taken.ok());
  CHECK(taken->ack.offset == 10 + data.bytes.size());
  CHECK(taken->steps.newest == 1);
  REQUIRE(woken.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready);
  std::promise<bool> ended;
  REQUIRE(stores.host().tell([&] { ended.set_value(stores.streams_ended(JobId{7})); }).ok());
  CHECK_FALSE(ended.get_future().get());
  CHECK(std::filesystem::exists(folder.path() / "7" / "records" / "steps.jsonl"));
  runtime.stop_and_join();
}

}  // namespace
}  // namespace tutti::coordinator
