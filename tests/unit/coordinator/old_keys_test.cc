#include "coordinator/life/old_keys.h"

#include <catch2/catch.hpp>

namespace tutti::coordinator {

namespace {

KeyRecord record(const std::string& owner, const std::string& key, std::uint64_t job) {
  return {.key = key,
          .job = JobId{job},
          .spec_hash = 7 * job,
          .unix_ms = static_cast<std::int64_t>(100 + job),
          .owner = owner};
}

}  // namespace

TEST_CASE("old keys: a record comes back as it was, by its place and by its words") {
  OldKeys keys;
  const KeyRecord records[] = {record("ann", "a-key-longer-than-a-small-string", 1),
                               record("", "no owner", 2), record("ann", "", 3),
                               record("bob", std::string("\0zero", 5), 4)};
  for (const KeyRecord& each : records) keys.push(each);
  REQUIRE(keys.size() == 4);
  CHECK(keys.oldest_unix_ms() == 101);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    CHECK(keys.at(i) == records[i]);
    CHECK(keys.find(records[i].owner, records[i].key) == records[i]);
  }
}

TEST_CASE("old keys: an owner's key is not another's whose words are the same in a row") {
  OldKeys keys;
  keys.push(record("ab", "c", 1));
  CHECK_FALSE(keys.find("a", "bc"));
  CHECK_FALSE(keys.find("", "abc"));
  keys.push(record("a", "bc", 2));
  CHECK(keys.find("ab", "c")->job == JobId{1});
  CHECK(keys.find("a", "bc")->job == JobId{2});
}

TEST_CASE(
    "old keys: of two with the same words the newer is found, and stays when the older goes") {
  OldKeys keys;
  keys.push(record("ann", "key", 1));
  keys.push(record("ann", "other", 2));
  keys.push(record("ann", "key", 3));
  CHECK(keys.find("ann", "key")->job == JobId{3});
  keys.pop_oldest();
  CHECK(keys.size() == 2);
  CHECK(keys.find("ann", "key")->job == JobId{3});
  CHECK(keys.find("ann", "other")->job == JobId{2});
  keys.pop_oldest();
  keys.pop_oldest();
  CHECK(keys.empty());
  CHECK_FALSE(keys.find("ann", "key"));
}

TEST_CASE("old keys: a queue that is filled and emptied for long finds each of them") {
  OldKeys keys;
  for (std::uint64_t job = 1; job <= 5'000; ++job) {
    keys.push(record("ann", std::to_string(job % 1'500), job));
    if (keys.size() > 1'000) keys.pop_oldest();
    if (job % 97 != 0 || job < 1'001) continue;
    CHECK(keys.at(0).job == JobId{job - 999});
    CHECK(keys.find("ann", std::to_string((job - 500) % 1'500))->job == JobId{job - 500});
    CHECK_FALSE(keys.find("ann", std::to_string((job + 1) % 1'500)));
  }
  keys.clear();
  CHECK(keys.empty());
}

}  // namespace tutti::coordinator
