#include "coordinator/store/log_store.h"

#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>

#include "protocol/wire/frame.h"
#include "tests/support/temporary_folder.h"

namespace tutti::coordinator {
namespace {

wire::SpoolData chunk(std::uint64_t process, std::uint64_t offset, std::string bytes) {
  wire::SpoolData data;
  data.job = JobId{1};
  data.generation = Generation{1};
  data.process = ProcessId{process};
  data.rank = static_cast<std::uint32_t>(process - 1);
  data.offset = offset;
  data.bytes = std::move(bytes);
  return data;
}

wire::SpoolData last_chunk(std::uint64_t process, std::uint64_t offset, std::string bytes) {
  wire::SpoolData data = chunk(process, offset, std::move(bytes));
  data.end = true;
  return data;
}

LogStore open_store(const std::filesystem::path& folder) {
  auto store = LogStore::open(folder);
  REQUIRE(store.ok());
  return *std::move(store);
}

std::string text_of(const LogPage& page) {
  std::string out;
  for (const LogChunk& part : page.chunks)
    out += std::to_string(part.rank) + ":" + part.bytes + "|";
  return out;
}

std::string all_of(const LogStore& store) { return text_of(*store.read(0, std::nullopt, 1 << 20)); }

TEST_CASE("log store: output is kept in the order in which it came, by process and rank") {
  const test::TemporaryFolder folder;
  LogStore store = open_store(folder.path());
  CHECK(store.append(chunk(1, 0, "a"))->offset == 1);
  CHECK(store.append(chunk(2, 0, "bb"))->offset == 2);
  CHECK(store.append(chunk(1, 1, "ccc"))->offset == 4);
  CHECK(all_of(store) == "0:a|1:bb|0:ccc|");
  CHECK(text_of(*store.read(0, 1, 1 << 20)) == "1:bb|");
  const LogPage page = *store.read(0, std::nullopt, 1);
  CHECK(page.next == store.end());  // what was read at once is given at once
  CHECK(store.read(page.next, std::nullopt, 1 << 20)->chunks.empty());
}

TEST_CASE("log store: what comes twice is kept once, and a part that is known is left out") {
  const test::TemporaryFolder folder;
  LogStore store = open_store(folder.path());
  REQUIRE(store.append(chunk(1, 0, "abc")).ok());
  CHECK(store.append(chunk(1, 0, "abc"))->offset == 3);
  CHECK(store.append(chunk(1, 1, "b"))->offset == 3);
  CHECK(store.append(chunk(1, 2, "cde"))->offset == 5);
  CHECK(all_of(store) == "0:abc|0:de|");
}

TEST_CASE("log store: a process may end before what is known of it, if its worker lost the rest") {
  const test::TemporaryFolder folder;
  LogStore store = open_store(folder.path());
  REQUIRE(store.append(chunk(1, 0, "abcdef")).ok());
  const auto ended = store.append(last_chunk(1, 2, "c"));
  REQUIRE(ended.ok());
  CHECK(ended->offset == 6);
  CHECK(ended->end);
  CHECK(store.all_ended());
  CHECK(store.append(last_chunk(1, 0, ""))->offset == 6);
  CHECK(all_of(store) == "0:abcdef|");
  CHECK(open_store(folder.path()).all_ended());
}

TEST_CASE("log store: a process whose machine went down ends with a line that says so, once") {
  const std::string line =
      "\n[tutti: the machine went down here, and what was written last may be missing]\n";
  const test::TemporaryFolder folder;
  {
    LogStore store = open_store(folder.path());
    REQUIRE(store.append(chunk(1, 0, "abcdef")).ok());
    wire::SpoolData shorter = last_chunk(1, 2, "c");
    shorter.cut = true;
    const auto ended = store.append(shorter);
    REQUIRE(ended.ok());
    CHECK(ended->end);
    CHECK(store.all_ended());
    CHECK(store.append(shorter)->known);
    CHECK(all_of(store) == "0:abcdef|0:" + line + "|");
  }
  LogStore store = open_store(folder.path());
  CHECK(store.all_ended());
  wire::SpoolData longer = last_chunk(2, 0, "xy");
  longer.cut = true;
  REQUIRE(store.append(longer)->end);
  CHECK(all_of(store) == "0:abcdef|0:" + line + "|1:xy|1:" + line + "|");
}

TEST_CASE("log store: bytes that no store has any more are a gap, to readers of now and later") {
  const test::TemporaryFolder folder;
  std::uint64_t after_gap = 0;
  {
    LogStore store = open_store(folder.path());
    REQUIRE(store.append(chunk(1, 0, "ab")).ok());
    // The worker was told that all up to 500 is kept, by a coordinator whose records are gone.
    CHECK(store.append(chunk(1, 500, "cd"))->offset == 502);
    after_gap = store.end();
    CHECK(store.append(chunk(1, 500, "cd"))->offset == 502);
    CHECK(store.end() == after_gap);
  }
  LogStore store = open_store(folder.path());
  CHECK(store.end() == after_gap);
  CHECK(store.append(chunk(1, 502, "ef"))->offset == 504);
  const LogPage page = *store.read(0, 0, 1 << 20);
  REQUIRE(page.chunks.size() == 4);
  CHECK(page.chunks[1].gap_bytes == 498);
  CHECK(page.chunks[1].bytes.empty());
  CHECK(all_of(store) == "0:ab|0:|0:cd|0:ef|");
}

TEST_CASE(
    "log store: the end of a process is known once, also if it is empty, and after opening again") {
  const test::TemporaryFolder folder;
  {
    LogStore store = open_store(folder.path());
    REQUIRE(store.append(chunk(1, 0, "a")).ok());
    CHECK_FALSE(store.all_ended());
    CHECK(store.append(last_chunk(1, 1, ""))->end);
    CHECK(store.append(last_chunk(1, 1, ""))->end);
    CHECK(store.append(last_chunk(2, 0, ""))->end);
    CHECK(store.all_ended());
    REQUIRE(store.append(chunk(3, 0, "x")).ok());
    REQUIRE(store.sync().ok());
  }
  LogStore store = open_store(folder.path());
  CHECK(all_of(store) == "0:a|2:x|");
  CHECK_FALSE(store.all_ended());
  CHECK(store.append(last_chunk(1, 1, ""))->end);
  CHECK(store.append(chunk(3, 0, "x"))->offset == 1);
  CHECK(all_of(store) == "0:a|2:x|");
}

TEST_CASE("log store: a record cut short at any byte is dropped, what is before it stays") {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "log-00000000000000000000";
  std::uintmax_t first = 0;
  {
    LogStore store = open_store(folder.path());
    REQUIRE(store.append(chunk(1, 0, "first")).ok());
    first = std::filesystem::file_size(file);
    REQUIRE(store.append(chunk(1, 5, "second")).ok());
  }
  for (std::uintmax_t size = std::filesystem::file_size(file); size-- > first;) {
    std::filesystem::resize_file(file, size);
    {
      LogStore store = open_store(folder.path());
      CHECK(all_of(store) == "0:first|");
      CHECK(store.append(chunk(1, 5, "second"))->offset == 11);
    }
  }
  CHECK(all_of(open_store(folder.path())) == "0:first|0:second|");
}

TEST_CASE("log store: the oldest files are dropped beyond the limit, and readers are told") {
  const test::TemporaryFolder folder;
  LogStore store = open_store(folder.path());
  const std::string block(wire::kSpoolChunkBytesMax, 'x');
  const std::uint64_t blocks =
      3 + (LogStore::kLogBytesPerRank + LogStore::kSegmentBytes) / block.size();
  for (std::uint64_t i = 0; i < blocks; ++i)
    REQUIRE(store.append(chunk(1, i * block.size(), block)).ok());
  const Result<LogPage> page = store.read(0, std::nullopt, 1);
  REQUIRE(page.ok());
  REQUIRE(page->chunks.size() == 2);
  CHECK(page->chunks[0].gap_bytes >= LogStore::kSegmentBytes);
  CHECK(page->chunks[1].bytes == block);
  std::uint64_t cursor = 0;
  std::uint64_t bytes = 0;
  for (Result<LogPage> next = store.read(cursor, std::nullopt, 1 << 20);
       next && next->next != cursor; next = store.read(cursor, std::nullopt, 1 << 20)) {
    for (const LogChunk& part : next->chunks) bytes += part.bytes.size();
    cursor = next->next;
  }
  CHECK(cursor == store.end());
  CHECK(bytes <= LogStore::kLogBytesPerRank + LogStore::kSegmentBytes);
}

TEST_CASE("log store: a position that was never given out is an error") {
  const test::TemporaryFolder folder;
  LogStore store = open_store(folder.path());
  REQUIRE(store.append(chunk(1, 0, std::string(200, 'x'))).ok());
  CHECK(store.read(7, std::nullopt, 100).error().code == ErrorCode::invalid_argument);
  CHECK(store.read(10'000, std::nullopt, 100).error().code == ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace tutti::coordinator
