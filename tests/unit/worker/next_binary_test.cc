// What the binary that is to take over says of itself, and what is made of it.
#include <catch2/catch.hpp>

#include "worker/launcher/next_binary.h"

using namespace tutti;
using namespace tutti::worker;

namespace {

const Takeover kOurs{.state = "/state", .handover = 1};

}  // namespace

TEST_CASE("next binary: one that says what this one says takes over") {
  CHECK(accepts(check_line(kOurs), kOurs));
  CHECK(accepts("a library greets\n" + check_line(kOurs) + "\n", kOurs));
  CHECK(accepts(R"({"version":"9.0","state":"/state","handovers":[0,1,2],"news":true})", kOurs));
}

TEST_CASE("next binary: another folder, another handover and no answer are told apart") {
  CHECK(accepts(check_line({.state = "/other", .handover = 1}), kOurs).error().code ==
        ErrorCode::invalid_argument);
  const auto newer = accepts(R"({"version":"9.0","state":"/state","handovers":[2]})", kOurs);
  CHECK(newer.error().code == ErrorCode::unsupported);
  CHECK(newer.error().message.find("9.0") != std::string::npos);
  for (const char* text : {"", "hello", "[]", "{}", R"({"state": 3})",
                           R"({"version":"1","state":"/state","handovers":3})"}) {
    CHECK(accepts(text, kOurs).error().code == ErrorCode::corrupt);
  }
}

TEST_CASE("next binary: what it said before it failed is passed on") {
  const auto failed = ask_next_binary({"/bin/sh", "-c", "echo no such library; exit 4"}, kOurs);
  REQUIRE_FALSE(failed);
  CHECK(failed.error().message.find("code 4: no such library") != std::string::npos);
  CHECK(ask_next_binary({"/no/such/worker"}, kOurs).error().code == ErrorCode::not_found);
}
