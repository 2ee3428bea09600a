#include "worker/launcher/answer.h"

#include <catch2/catch.hpp>

namespace tutti::worker {

namespace {

LaunchPlan shell(const std::string& script) {
  return {.command = {"/bin/sh", "-c", script},
          .environment = {"PATH=/usr/bin:/bin"},
          .folder = {},
          .linked = false};
}

}  // namespace

TEST_CASE("answer: a program's words and its end") {
  const auto answer = answer_of(shell("echo out; echo err >&2; exit 3"), std::chrono::seconds(20));
  REQUIRE(answer);
  CHECK(answer->text == "out\nerr\n");
  CHECK(answer->status.code == 3);
  CHECK(answer->status.signal == 0);
}

TEST_CASE("answer: who is late, silent or talks too much is ended, and the error says so") {
  const auto late = answer_of(shell("sleep 1000"), std::chrono::milliseconds(50));
  REQUIRE_FALSE(late);
  CHECK(late.error().code == ErrorCode::deadline_exceeded);
  // Its outputs end long before it does.
  const auto mute = answer_of(shell("exec >&- 2>&-; sleep 1000"), std::chrono::milliseconds(200));
  REQUIRE_FALSE(mute);
  CHECK(mute.error().code == ErrorCode::deadline_exceeded);
  const auto loud = answer_of(shell("while :; do echo yes; done"), std::chrono::seconds(60));
  REQUIRE_FALSE(loud);
  CHECK(loud.error().code == ErrorCode::exhausted);
  CHECK(
      answer_of({.command = {"/nowhere/program"}, .environment = {}, .folder = {}, .linked = false},
                std::chrono::seconds(1))
          .error()
          .code == ErrorCode::not_found);
}

}  // namespace tutti::worker
