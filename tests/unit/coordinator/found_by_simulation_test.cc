// What the simulator found: each a seed first, and then a case that needs no chance.
#include <catch2/catch.hpp>

#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

TEST_CASE("cluster: a submit that is taken back is refused to all who asked for it") {
  Driver driver;
  driver.durable_through = 0;
  const RequestId first = driver.next_request();
  const RequestId second = driver.next_request();
  const auto submit = [&](RequestId request) {
    return driver.on(SubmitJob{
        .request = request, .key = "k", .owner = "user", .yaml = "spec", .spec = run_spec(1)});
  };
  submit(first);
  submit(second);
  const Decision taken_back =
      driver.on(LedgerFailed{.durable_through = 0, .message = "no space left"});
  REQUIRE(taken_back.immediate.size() == 2);
  for (const Effect& effect : taken_back.immediate) {
    CHECK(std::get<Error>(std::get<Answer>(effect).body).code == ErrorCode::unavailable);
  }
  CHECK(driver.state().jobs().empty());
}

TEST_CASE("cluster: a commit keeps the newest checkpoint that is known, however few are kept") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = train_spec(1);
  spec.checkpoint.keep = 1;
  const JobId job = driver.submit(spec);
  const auto starts = driver.run_up();
  const auto save = [&](std::uint64_t step) {
    wire::CheckpointPart part;
    part.job = job;
    part.generation = starts.at(0).generation;
    part.process = starts.at(0).process;
    part.step = step;
    part.files = {{.name = "part", .bytes = 1, .hash = "00"}};
    driver.say("a", part);
    const auto commits = driver.take<wire::CommitCheckpoint>();
    REQUIRE(commits.size() == 1);
    wire::CheckpointCommitted committed;
    committed.job = job;
    committed.generation = part.generation;
    committed.process = part.process;
    committed.step = step;
    committed.folder = "step-" + std::to_string(step);
    driver.say("a", committed);
    return commits.front();
  };
  CHECK(save(10).in_use.empty());
  CHECK(save(20).in_use == std::vector<std::uint64_t>{10});
}

}  // namespace tutti::coordinator::test
