#include "protocol/base/result.h"

#include <catch2/catch.hpp>

#include <cerrno>
#include <memory>
#include <string>

#include "protocol/base/ids.h"
#include "protocol/base/secret.h"

namespace tutti {
namespace {

TEST_CASE("result: carries a value or an error, never both") {
  const Result<int> value = 3;
  REQUIRE(value);
  CHECK(*value == 3);

  const Result<int> error = Error{ErrorCode::not_found, "no job 7"};
  REQUIRE_FALSE(error);
  CHECK(error.error() == Error{ErrorCode::not_found, "no job 7"});
}

TEST_CASE("result: moves a value that cannot be copied") {
  Result<std::unique_ptr<int>> made = std::make_unique<int>(5);
  const std::unique_ptr<int> taken = *std::move(made);
  CHECK(*taken == 5);
}

TEST_CASE("error: context goes before the message, the code stays") {
  CHECK(Error{ErrorCode::corrupt, "too short"}.with_context("frame") ==
        Error{ErrorCode::corrupt, "frame: too short"});
  CHECK(errno_error("cannot open x", ENOSPC).code == ErrorCode::exhausted);
  CHECK(errno_error("cannot open x", ENOENT).message == "cannot open x: No such file or directory");
}

TEST_CASE("ids: zero is none, and ids order as their numbers") {
  CHECK_FALSE(JobId{});
  CHECK(JobId{1} < JobId{2});
  CHECK(to_string(Generation{12}) == "12");
}

TEST_CASE("secret: random text has its length, differs each time, and compares exactly") {
  const std::string secret = random_hex(16);
  CHECK(secret.size() == 32);
  CHECK(secret != random_hex(16));
  CHECK(equal_secrets(secret, secret));
  CHECK_FALSE(equal_secrets(secret, secret.substr(1)));
  CHECK_FALSE(equal_secrets("aaaa", "aaab"));
}

}  // namespace
}  // namespace tutti
