#include <catch2/catch.hpp>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "coordinator/api/bodies/change_bodies.h"

namespace tutti::api {
namespace {

namespace json = boost::json;

const std::string kProgram = "name: p\nkind: run\ncommand: [sleep, \"9\"]\n";

Call call_with(const std::string& body) {
  Call call;
  call.user = "ann";
  call.job = JobId{7};
  call.name = "node-1";
  call.body = body;
  return call;
}

std::string submit_error(const json::object& body) {
  const auto submit = parse_submit(call_with(json::serialize(body)));
  return submit ? "" : submit.error().message;
}

TEST_CASE("change bodies: a submit has its spec, its key and its caller as the owner") {
  const auto submit = parse_submit(call_with(json::serialize(json::object{
      {"spec", kProgram}, {"key", "k"}, {"set", json::array{"priority=3"}}, {"owner", "eve"}})));
  REQUIRE(submit);
  CHECK(submit->key == "k");
  CHECK(submit->owner == "ann");
  CHECK(submit->spec.priority == 3);
}

TEST_CASE("change bodies: what is wrong with a spec is one line of bounded length") {
  const std::string error =
      submit_error({{"spec", "name: p\nknid: run\n"}, {"file", "a\nb\x07.yaml"}});
  CHECK(error.starts_with("a b .yaml:"));
  CHECK(error.find('\n') == std::string::npos);
  CHECK(submit_error({{"spec", kProgram}, {"set", json::array{std::string(100'000, 'x')}}}).size() <
        5'000);
}

TEST_CASE("change bodies: overrides are a bounded list of texts") {
  json::array many;
  for (std::size_t i = 0; i <= kOverridesMax; ++i) many.emplace_back("priority=3");
  CHECK(submit_error({{"spec", kProgram}, {"set", many}}) == "set has more than 1000 entries");
  many.pop_back();
  CHECK(submit_error({{"spec", kProgram}, {"set", many}}).empty());
  CHECK(submit_error({{"spec", kProgram}, {"set", "priority=3"}}) ==
        "set is not an array of strings");
  CHECK(submit_error({{"spec", kProgram}, {"set", json::array{3}}}) ==
        "set is not an array of strings");
}

TEST_CASE("change bodies: a fault is of a rank or of a worker, and has an end") {
  const auto rank = parse_fault(call_with(R"({"action":"stop-rank","job":3,"rank":1})"));
  REQUIRE(rank);
  CHECK(rank->action == coordinator::FaultAction::stop_rank);
  CHECK(rank->job == JobId{3});
  const auto cut = parse_fault(call_with(R"({"action":"cut","worker":"a","lasts_ms":5})"));
  REQUIRE(cut);
  CHECK(cut->worker == "a");
  CHECK(cut->lasts_ms == 5);
  for (const char* wrong :
       {R"({"action":"cut","worker":"a","lasts_ms":3600001})",
        R"({"action":"cut","job":3,"rank":1})", R"({"action":"kill-rank","worker":"a"})",
        R"({"action":"kill-rank","job":3})", R"({"action":"kill-rank","job":3,"rank":4294967296})",
        R"([])", R"({)"}) {
    INFO(wrong);
    const auto refused = parse_fault(call_with(wrong));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::invalid_argument);
  }
}

TEST_CASE("change bodies: whom a request is about, its path says, and not its body") {
  const auto cancel = parse_cancel(call_with(R"({"job":9,"reason":"r","save":true})"));
  REQUIRE(cancel);
  CHECK(cancel->job == JobId{7});
  CHECK(cancel->save);
  const auto drain = parse_drain(call_with(R"({"node":"b","reason":"r"})"));
  REQUIRE(drain);
  CHECK(drain->node == "node-1");
  CHECK_FALSE(parse_drain(call_with(R"({"reason":""})")));
  const auto token =
      parse_token(call_with(R"({"user":"bob","expires_s":2,"made_by":"eve"})"), 1'000);
  REQUIRE(token);
  CHECK(token->made_by == "ann");
  CHECK(token->expires_unix_ms == 3'000);
  CHECK(token->role == Role::user);
  CHECK_FALSE(parse_token(call_with(R"({"role":"anyone"})"), 0));
  CHECK(*parse_rotation(call_with("")) == kOverlapSeconds);
  CHECK_FALSE(parse_rotation(call_with(R"({"overlap_s":-1})")));
}

}  // namespace
}  // namespace tutti::api
