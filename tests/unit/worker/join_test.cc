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

TEST_CASE("join: what was learned holds until join.json itself is another") {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "join.json";
  const auto learned = folder.path() / "join.learned.json";
  const auto write = [&](const std::string& key) {
    REQUIRE(write_file_atomically(file, R"({"endpoint": "tcp://127.0.0.1:4001", "server_key": ")" +
                                            key + R"(", "join_token": "t"})"));
  };
  write("old");
  CHECK(read_join(file, learned)->server_key == "old");
  JoinInfo next = *read_join(file);
  next.endpoint = with_port(next.endpoint, 4002);
  next.server_key = "new";
  REQUIRE(keep_learned(learned, next, file));
  CHECK(*read_join(file, learned) == next);
  CHECK(next.endpoint == "tcp://127.0.0.1:4002");
  write("newest");
  CHECK(read_join(file, learned)->server_key == "newest");
}
