#include <catch2/catch.hpp>
#include <cmath>

#include <algorithm>

#include "coordinator/scheduler/fair_share.h"
#include "coordinator/scheduler/quotas.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator {
namespace {

using namespace scheduler;
using test::Driver;
using namespace std::chrono_literals;

JobId submit_as(Driver& driver, const std::string& owner, std::uint32_t ranks) {
  const RequestId request = driver.next_request();
  driver.on(SubmitJob{.request = request,
                      .key = {},
                      .owner = owner,
                      .yaml = "spec",
                      .spec = test::run_spec(ranks)});
  driver.pass(0s);
  return std::get<JobAccepted>(*driver.answer(request)).job;
}

TEST_CASE("fair share: use halves in a day, and in whole numbers") {
  UsageRecord usage;
  add_use(usage, 1'000'000, kUseHalfLifeMs);
  CHECK(use_at(usage, kUseHalfLifeMs) == 1'000'000);
  CHECK(use_at(usage, 2 * kUseHalfLifeMs) == 500'000);
  CHECK(use_at(usage, 12 * kUseHalfLifeMs) < 1'000);
  CHECK(use_at(usage, 200 * kUseHalfLifeMs) == 0);
  const std::uint64_t half_way = use_at(usage, kUseHalfLifeMs * 3 / 2);
  CHECK(half_way > 706'000);
  CHECK(half_way < 708'000);
}

TEST_CASE("fair share: what is held for long decays while it is held") {
  const std::int64_t begin = 1'790'000'000'123;
  const std::int64_t minute = 60'000;
  CHECK(use_of_held(3, begin, begin + minute) <= 3 * minute);
  CHECK(use_of_held(3, begin, begin + minute) >= 3 * minute * 98 / 100);
  CHECK(use_of_held(3, begin, begin) == 0);
  CHECK(use_of_held(3, begin + 1, begin) == 0);
  // The integral of 2^(-t) over so many half-lives; steps that decay at their end are within 1 %.
  for (const int days : {1, 2, 7, 30, 4'000}) {
    const double left = static_cast<double>(kUseHalfLifeMs) / std::log(2.0) *
                        (1 - std::exp2(-static_cast<double>(days)));
    const auto held = use_of_held(5, begin, begin + days * kUseHalfLifeMs);
    CHECK(static_cast<double>(held) == Approx(5 * left).epsilon(0.01));
  }
  // It is what the parts of it come to.
  UsageRecord parts;
  for (int i = 0; i < 100; ++i) {
    const std::int64_t from = begin + i * 17 * minute;
    add_use(parts, use_of_held(1, from, from + 17 * minute), from + 17 * minute);
  }
  const std::int64_t end = begin + 100 * 17 * minute;
  CHECK(static_cast<double>(use_of_held(1, begin, end)) ==
        Approx(static_cast<double>(use_at(parts, end))).epsilon(1e-4));
}

TEST_CASE("fair share: who had its share falls half behind, by its weight, and a newcomer not") {
  std::map<std::string, UsageRecord> usage;
  add_use(usage["a"], 1'000'000, 1);
  add_use(usage["b"], 1'000'000, 1);
  auto delays = fair_delays_ms(usage, {}, 1);
  CHECK(delays["a"] == kFairDelayMaxMs / 2);
  CHECK(delays.count("new") == 0);
  delays = fair_delays_ms(usage, {{"a", 3.0}}, 1);
  CHECK(delays["a"] < delays["b"]);
  CHECK(delays["b"] < kFairDelayMaxMs);
}

TEST_CASE("quotas: read strictly; what a user's row leaves out comes from the default") {
  const auto quotas =
      parse_quotas({{"default", "slots=64 queued=1000"}, {"ada", "slots=8 share=2.5"}});
  REQUIRE(quotas);
  CHECK(quotas->of("ada").slots == 8);
  CHECK(quotas->of("ada").queued == 1000);
  CHECK(quotas->of("eve").slots == 64);
  CHECK_FALSE(quotas->of("eve").running);
  CHECK(quotas->shares() == std::map<std::string, double>{{"ada", 2.5}});
  const auto message = [](const char* text) {
    return parse_quotas({{"ada", text}}).error().message;
  };
  CHECK(message("slot=8") ==
        "quotas.ada: unknown word \"slot\"; valid: slots, running, queued, share");
  CHECK(message("slots=-1") == "quotas.ada: slots must be a whole number, not \"-1\"");
  CHECK(message("share=0") == "quotas.ada: share must be a number above 0, not \"0\"");
}

TEST_CASE(
    "quotas: a job beyond its user's slots waits and blocks nobody; what may never fit is "
    "refused") {
  ClusterSettings settings = Driver::default_settings();
  settings.quotas.by_default.slots = 2;
  settings.quotas.by_default.queued = 3;
  Driver driver(settings);
  driver.join("a", 4);
  const JobId first = driver.submit(test::run_spec(2));
  const JobId second = driver.submit(test::run_spec(1));
  CHECK(driver.job_state(first) == JobState::placed);
  CHECK(driver.job_state(second) == JobState::queued);
  CHECK(driver.job(second).waiting == "user may hold 2 slots and holds 2; this job needs 1");
  CHECK(driver.state().explain(second)->reason == ExplainReason::quota_slots);
  CHECK(driver.submit_refused(test::run_spec(3)).message ==
        "user may hold 2 slots, and this job needs 3");
  spec::JobSpec many = test::run_spec(1);
  many.array.count = 3;
  CHECK(driver.submit_refused(many).message ==
        "user may have 3 jobs queued, and has 1 (an array counts its tasks)");
  Quotas wider;
  driver.on(SetQuotas{.request = driver.next_request(), .quotas = wider});
  CHECK(driver.job_state(second) == JobState::placed);
}

TEST_CASE("quota: ranks that a job is about to get count for its user") {
  ClusterSettings settings = Driver::default_settings();
  settings.quotas.users["user"].slots = 3;
  Driver driver(settings);
  driver.join("a", 4);
  driver.on(SubmitJob{.request = driver.next_request(),
                      .key = {},
                      .owner = "other",
                      .yaml = "spec",
                      .spec = test::run_spec(3)});
  driver.pass(0s);
  const auto others = driver.run_up();
  spec::JobSpec elastic = test::train_spec(1);
  elastic.resources.ranks_max = 2;
  driver.submit(elastic);
  driver.run_up();
  for (const auto& start : others) driver.exited(start, 0);
  std::vector<wire::StartRank> newcomers;
  for (int second = 0; second < 100 && newcomers.empty(); ++second) {
    driver.pass(1s);
    driver.beat("a");
    newcomers = driver.take<wire::StartRank>();
  }
  REQUIRE(newcomers.size() == 1);
  // One of three is left for its user, although the job has one rank still.
  const JobId next = driver.submit(test::run_spec(2));
  CHECK(driver.state().explain(next)->reason == ExplainReason::quota_slots);
}

TEST_CASE("fair share: slots that are still held count") {
  Driver driver;
  driver.join("a", 3);
  submit_as(driver, "ada", 2);
  driver.run_up();
  const JobId again = submit_as(driver, "ada", 2);
  const JobId eve = submit_as(driver, "eve", 2);
  driver.live(120s);
  driver.join("b", 2);
  CHECK(driver.job_state(eve) == JobState::placed);
  CHECK(driver.job_state(again) == JobState::queued);
}

TEST_CASE("fair share: of two users' jobs that wait alike, the one of who had less goes first") {
  Driver driver;
  driver.join("a", 1);
  submit_as(driver, "greedy", 1);
  auto starts = driver.run_up();
  const JobId again = submit_as(driver, "greedy", 1);
  const JobId other = submit_as(driver, "modest", 1);
  driver.beat("a");
  for (int i = 0; i < 400; ++i) {
    driver.pass(1s);
    driver.beat("a");
  }
  driver.exited(starts[0], 0);
  CHECK(driver.job_state(other) != JobState::queued);
  CHECK(driver.job_state(again) == JobState::queued);
  const auto delayed = driver.state().explain(again);
  CHECK(delayed->turn.fair_delay_ms > 0);
  CHECK(std::any_of(delayed->lines.begin(), delayed->lines.end(), [](const std::string& line) {
    return line.starts_with("its user has had much of the cluster");
  }));
}

}  // namespace
}  // namespace tutti::coordinator
