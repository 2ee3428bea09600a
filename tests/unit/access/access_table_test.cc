#include "coordinator/access/access_table.h"

#include <catch2/catch.hpp>

#include "protocol/base/sha256.h"

namespace tutti::coordinator {
namespace {

constexpr std::int64_t kNow = 1'000'000;
const std::string kSecret(48, 'a');

TEST_CASE("access: a token is good once it is applied, for its user and role, until it expires") {
  AccessTable access("first", "join");
  const auto made = access.make(
      {.user = "ann", .role = Role::user, .expires_unix_ms = kNow + 10, .made_by = "admin"},
      kSecret, kNow);
  REQUIRE(made.ok());
  CHECK(made->token == "tutti-" + kSecret);
  CHECK(made->change.record.hash == sha256_hex(made->token));
  CHECK_FALSE(access.of_token(made->token, kNow));
  access.apply(made->change);
  CHECK(access.of_token(made->token, kNow) == Principal{1, "ann", Role::user});
  CHECK_FALSE(access.of_token(made->token, kNow + 10));
  CHECK_FALSE(access.is_good(1, kNow + 10));
  CHECK(access.expired(kNow + 10).size() == 1);
  CHECK_FALSE(access.of_token(made->token + "x", kNow));
  CHECK_FALSE(access.of_token("", kNow));
  // Its hash is no token.
  CHECK_FALSE(access.of_token(made->change.record.hash, kNow));
}

TEST_CASE("access: a revoked token is good no more, and numbers are never used again") {
  AccessTable access("first", "join");
  const auto made = access.make({.user = "ann"}, kSecret, kNow);
  access.apply(made->change);
  access.apply({made->change.record, true});
  CHECK_FALSE(access.of_token(made->token, kNow));
  CHECK_FALSE(access.is_good(1, kNow));
  CHECK(access.list().empty());
  const auto next = access.make({.user = "ben"}, std::string(48, 'b'), kNow);
  CHECK(next->change.record.id == 2);
}

TEST_CASE("access: what is being revoked is good no more, before that is durable") {
  AccessTable access("first", "join");
  const auto token = access.make({.user = "ann"}, kSecret, kNow);
  access.apply(token->change);
  const auto key = access.admit({.user = "node-a"}, "key", 0, kNow);
  access.apply(*key);
  CHECK(access.suspend(token->change.record.id));
  CHECK_FALSE(access.suspend(token->change.record.id));
  CHECK_FALSE(access.suspend(77));
  CHECK_FALSE(access.of_token(token->token, kNow));
  CHECK_FALSE(access.is_good(token->change.record.id, kNow));
  CHECK(access.of_worker_key("key"));
  CHECK(access.suspend(key->record.id));
  CHECK_FALSE(access.of_worker_key("key"));
  CHECK(access.list().size() == 2);  // as it is durable
}

TEST_CASE("access: the state folder's tokens are always good, each for its own door") {
  AccessTable access("first", "join");
  CHECK(access.of_token("first", kNow) == Principal{0, "admin", Role::admin});
  CHECK(access.of_join_token("join", kNow) == 0U);
  CHECK_FALSE(access.of_token("join", kNow));
  CHECK_FALSE(access.of_join_token("first", kNow));
  const auto join = access.make({.kind = AccessKind::join, .user = "rack-7"}, kSecret, kNow);
  access.apply(join->change);
  CHECK(access.of_join_token(join->token, kNow) == 1U);
  CHECK_FALSE(access.of_token(join->token, kNow));
  const auto passing =
      access.make({.kind = AccessKind::join, .user = "rack-8", .expires_unix_ms = kNow + 5},
                  std::string(48, 'j'), kNow);
  access.apply(passing->change);
  CHECK(access.of_join_token(passing->token, kNow + 4) == 2U);
  CHECK_FALSE(access.of_join_token(passing->token, kNow + 5));
}

TEST_CASE("access: a worker's key that was let in stays known after a restart") {
  AccessTable access("first", "join");
  const auto admitted = access.admit({.user = "node-a"}, "key", 4, kNow);
  REQUIRE(admitted.ok());
  access.apply(*admitted);
  CHECK(access.of_worker("node-a")->id == admitted->record.id);
  const std::vector<AccessRecord> records = access.list();
  AccessTable successor("first", "join");
  successor.restore(records, 7);
  CHECK(successor.make({.user = "a"}, kSecret, kNow)->change.record.id == 8);
  const auto known = successor.of_worker_key("key");
  REQUIRE(known);
  CHECK(known->user == "node-a");
  CHECK(known->admitted_by == 4);
  CHECK_FALSE(successor.of_worker_key("other"));
  successor.apply({*known, true});
  CHECK_FALSE(successor.of_worker("node-a"));
}

TEST_CASE("access: names and times that make no sense are refused") {
  AccessTable access("first", "join");
  for (const std::string& name : {std::string(), std::string("a b"), std::string(65, 'x')})
    CHECK(access.make({.user = name}, kSecret, kNow).error().code == ErrorCode::invalid_argument);
  CHECK(access.make({.user = "a", .expires_unix_ms = kNow}, kSecret, kNow).error().code ==
        ErrorCode::invalid_argument);
  CHECK(role_named("admin") == Role::admin);
  CHECK_FALSE(role_named("anyone"));
}

}  // namespace
}  // namespace tutti::coordinator
