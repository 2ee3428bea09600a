#include "ops/cli/replay.h"

#include <catch2/catch.hpp>

#include <boost/json/parse.hpp>

#include "protocol/spec/parse.h"

namespace tutti::cli {
namespace {

namespace json = boost::json;

TEST_CASE("replay: a range is two steps or one, from 1 on") {
  CHECK(*parse_step_range("40:60") == StepRange{40, 60});
  CHECK(*parse_step_range("7") == StepRange{7, 7});
  for (const char* wrong : {"", ":", "0:3", "5:4", "a:b", "1:2:3", "-1:3", "3:"}) {
    CHECK(parse_step_range(wrong).error().code == ErrorCode::invalid_argument);
  }
}

TEST_CASE("replay: starts from the newest checkpoint before the range") {
  const json::value job = json::parse(
      R"({"folder": "/j/7",
          "checkpoints": [10, {"step": 20, "folder": "/j/7/checkpoints/step-20"}, 30]})");
  CHECK(choose_base(job, {21, 25}) == ReplayBase{20, "/j/7/checkpoints/step-20"});
  CHECK(choose_base(job, {20, 25}) == ReplayBase{10, "/j/7/checkpoints/step-10"});
  CHECK(choose_base(job, {10, 25}) == ReplayBase{0, ""});
  CHECK(choose_base(json::object{}, {10, 25}) == ReplayBase{0, ""});
}

TEST_CASE("replay: the job is the same training on one rank, without checkpoints") {
  const auto spec = spec::parse_job_spec(
      "name: a\nkind: train\nmodel: {path: /m}\ndata: {tokens: [/t.npy], sequence: 8}\n"
      "train: {steps: 100, batch: 8, seed: 9}\nparallel: {data: 4}\ncheckpoint: {every: 10}\n");
  REQUIRE(spec);
  const spec::JobSpec replay = replay_spec(*spec, {20, "/c/step-20"}, {25, 30}, 7);
  CHECK(replay.name == "verify-7-25-30");
  CHECK(replay.train.resume == "/c/step-20");
  CHECK(replay.train.stop == 30);
  CHECK(replay.train.steps == 100);
  CHECK(replay.parallel.shards == spec->parallel.shards);
  CHECK(replay.resources.ranks_max == 1);
  CHECK(replay.checkpoint.every == 0);
  CHECK_FALSE(replay.checkpoint.last);
  // What is sent parses to what is meant.
  const auto parsed = spec::parse_job_spec(spec::to_yaml(replay));
  REQUIRE(parsed);
  CHECK(*parsed == replay);
}

json::array records(std::initializer_list<const char*> hashes) {
  json::array list;
  std::uint64_t number = 0;
  for (const char* hash : hashes) {
    list.push_back(json::object{{"step", ++number}, {"weights", hash}, {"generation", 1}});
  }
  return list;
}

TEST_CASE("replay: steps are compared by hash, and the first that differs is named") {
  const json::array job = records({"a", "b", "c", "d"});
  CHECK_FALSE(first_difference(*compare_steps(job, records({"x", "b", "c"}), {2, 3})));
  CHECK(first_difference(*compare_steps(job, records({"a", "b", "y", "z"}), {1, 4})) == 3U);
  CHECK(first_difference(*compare_steps(job, records({"a", "b"}), {1, 3})) == 3U);
  CHECK(compare_steps(job, job, {3, 5}).error().message == "the job has no record of step 5");
  // A record without a hash proves nothing.
  CHECK(first_difference(*compare_steps(records({""}), records({""}), {1, 1})) == 1U);
}

}  // namespace
}  // namespace tutti::cli
