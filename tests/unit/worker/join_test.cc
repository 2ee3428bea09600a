#include <catch2/catch.hpp>

#include "tests/support/temporary_folder.h"
#include "worker/agent/join.h"

using namespace tutti;
using namespace tutti::worker;

TEST_CASE("join: a join file names the endpoint, its host as an address, the key and the token") {
  const auto join = parse_join(
      R"({"endpoint": "tcp://127.0.0.1:4001", "server_key": "k", "join_token": "t", "new": 1})");
  REQUIRE(join);
  CHECK(*join == JoinInfo{.endpoint = "tcp://127.0.0.1:4001",
                          .host = "127.0.0.1",
                          .server_key = "k",
                          .join_token = "t"});
  CHECK(local_address(join->host).ok());
  CHECK(is_loopback(*local_address(join->host)));
  CHECK_FALSE(is_loopback("10.0.0.1"));
}

TEST_CASE("join: what is no join file is an error, and one that is not there yet is not found") {
  for (const char* text :
       {"", "{", "[]", R"({"endpoint": 1})", R"({"endpoint": "tcp://a:1", "server_key": "k"})",
        R"({"endpoint": "ipc:///x:1", "server_key": "k", "join_token": "t"})",
        R"({"endpoint": "tcp://:1", "server_key": "k", "join_token": "t"})",
        R"({"endpoint": "tcp://[]:1", "server_key": "k", "join_token": "t"})",
        R"({"endpoint": "tcp://a:", "server_key": "k", "join_token": "t"})",
        R"({"endpoint": "tcp://a:0", "server_key": "k", "join_token": "t"})",
        R"({"endpoint": "tcp://a:65536", "server_key": "k", "join_token": "t"})",
        R"({"endpoint": "tcp://a\u0000:1", "server_key": "k", "join_token": "t"})"}) {
    INFO(text);
    CHECK(parse_join(text).error().code == ErrorCode::corrupt);
  }
  const test::TemporaryFolder folder;
  CHECK(read_join(folder.path() / "join.json").error().code == ErrorCode::not_found);
}

namespace {

// A worker's folder: join.json as it was copied, and what was learned in its place.
struct Folder {
  test::TemporaryFolder folder = {};
  std::filesystem::path file = folder.path() / "join.json";
  std::filesystem::path learned = folder.path() / "join.learned.json";

  void write(const std::string& key) const {
    REQUIRE(write_file_atomically(file, R"({"endpoint": "tcp://127.0.0.1:4001", "server_key": ")" +
                                            key + R"(", "join_token": "t"})"));
  }
  JoinInfo way(std::uint16_t port, const std::string& key) const {
    return {.endpoint = with_port("tcp://127.0.0.1:1", port),
            .host = "127.0.0.1",
            .server_key = key,
            .join_token = "t"};
  }
};

constexpr WallTime kNow{1'800'000'000'000};

}  // namespace

TEST_CASE("join: what was learned holds until join.json itself is another") {
  const Folder own;
  own.write("old");
  CHECK(*read_join(own.file, own.learned, kNow) == std::vector{own.way(4001, "old")});
  REQUIRE(keep_learned(own.learned, {own.way(4002, "new"), {}, kNow}, own.file));
  CHECK(read_join(own.file, own.learned, kNow)->front() == own.way(4002, "new"));
  own.write("newest");
  CHECK(*read_join(own.file, own.learned, kNow) == std::vector{own.way(4001, "newest")});
}

TEST_CASE("join: a new key is looked for where it was said to be, then on the port of join.json") {
  const Folder own;
  own.write("old");
  const Learned learned{own.way(4002, "new"), own.way(4001, "old"), kNow};
  REQUIRE(keep_learned(own.learned, learned, own.file));
  CHECK(*read_join(own.file, own.learned, kNow) ==
        std::vector{own.way(4002, "new"), own.way(4001, "new"), own.way(4001, "old")});
  // Found there, it leaves nothing else to look for.
  REQUIRE(keep_learned(own.learned, {own.way(4001, "new"), {}, kNow}, own.file));
  CHECK(*read_join(own.file, own.learned, kNow) == std::vector{own.way(4001, "new")});
}

TEST_CASE("join: the key of before is that of the last rotation, and trusted for an overlap only") {
  const Folder own;
  own.write("first");
  const Learned learned{own.way(4003, "third"), own.way(4002, "second"), kNow};
  REQUIRE(keep_learned(own.learned, learned, own.file));
  const std::vector new_ones{own.way(4003, "third"), own.way(4001, "third")};
  std::vector all = new_ones;
  all.push_back(own.way(4002, "second"));
  CHECK(*read_join(own.file, own.learned, kNow) == all);
  const WallTime late{kNow.unix_ms + to_ms(kOldKeyWithin)};
  CHECK(*read_join(own.file, own.learned, WallTime{late.unix_ms - 1}) == all);
  CHECK(*read_join(own.file, own.learned, late) == new_ones);
}
