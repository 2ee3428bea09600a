#include <catch2/catch.hpp>

#include <algorithm>

#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;

namespace {

bool says(const Explanation& explained, const std::string& text) {
  return std::any_of(explained.lines.begin(), explained.lines.end(),
                     [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

}  // namespace

TEST_CASE("explain: names what is missing, who holds it, when it ends, and what is ahead") {
  Driver driver;
  driver.join("a", 2);
  spec::JobSpec busy = run_spec(2);
  busy.limit.time_ms = 300'000;
  const JobId holder = driver.submit(busy);
  driver.run_up();
  const JobId head = driver.submit(run_spec(2));
  const JobId next = driver.submit(run_spec(1));
  const auto explained = driver.state().explain(next);
  REQUIRE(explained);
  CHECK(explained->reason == ExplainReason::behind);
  CHECK(explained->position == 2);
  CHECK(explained->ahead == std::vector<JobId>{head});
  CHECK(explained->ranks_free == 0);
  CHECK(explained->ranks_possible == 2);
  REQUIRE(explained->holders.size() == 1);
  CHECK(explained->holders[0].job == holder);
  CHECK(explained->holders[0].slots == 2);
  CHECK(explained->holders[0].ends_unix_ms.has_value());
  CHECK(explained->must_end == std::vector<JobId>{holder});
  CHECK(says(*explained, "job 3: waits behind job 2"));
  CHECK(says(*explained, "position 2 in the queue; before it: job 2"));
  CHECK(says(*explained, "missing: 1 slot more"));
  CHECK(says(*explained, "held by job 1 (program, user, priority 0): 2 slots, ends in 5 min"));
  CHECK(says(*explained, "a: all 2 slots are taken"));
  CHECK(driver.state().explain(next)->lines == explained->lines);
}

TEST_CASE("explain: the start of a job behind others counts what they may take") {
  Driver driver;
  driver.join("a", 2);
  const auto limited = [](std::uint32_t ranks, std::uint64_t ms) {
    spec::JobSpec spec = run_spec(ranks);
    spec.limit.time_ms = ms;
    return spec;
  };
  driver.submit(limited(2, 300'000));
  driver.run_up();
  driver.submit(limited(2, 600'000));
  const JobId third = driver.submit(limited(1, 1'000));
  const auto explained = driver.state().explain(third);
  // Five minutes on two slots, then ten: one slot may stand empty all the while.
  CHECK(says(*explained, "starts about in 30 min, if all use up their limits"));
  const JobId endless = driver.submit(run_spec(2));
  CHECK(says(*driver.state().explain(endless), "starts about in 30 min"));
  const JobId last = driver.submit(limited(2, 1'000));
  CHECK_FALSE(driver.state().explain(last)->earliest_unix_ms.has_value());
  CHECK(says(*driver.state().explain(last), "not all that run or are before it have a limit.time"));
}

TEST_CASE("explain: says by when what a job depends on has ended, if limits say so") {
  Driver driver;
  driver.join("a", 2);
  spec::JobSpec first = run_spec(1);
  first.limit.time_ms = 600'000;
  const JobId limited = driver.submit(first);
  const JobId endless = driver.submit(run_spec(1));
  driver.run_up();
  spec::JobSpec next = run_spec(1);
  next.after.any = {limited.value};
  CHECK(says(*driver.state().explain(driver.submit(next)),
             "what it waits for has ended in 10 min at the latest"));
  next.after.any = {limited.value, endless.value};
  CHECK_FALSE(driver.state().explain(driver.submit(next))->earliest_unix_ms.has_value());
}

TEST_CASE("explain: says who of its owner's has to end where its quota is used up") {
  ClusterSettings settings = Driver::default_settings();
  settings.quotas.users["user"].slots = 3;
  Driver driver(settings);
  driver.join("a", 8);
  spec::JobSpec spec = run_spec(1);
  spec.limit.time_ms = 600'000;
  const JobId first = driver.submit(spec);
  spec.limit.time_ms = 1'200'000;
  const JobId second = driver.submit(spec);
  driver.submit(run_spec(1));
  driver.run_up();
  const auto explained = driver.state().explain(driver.submit(run_spec(2)));
  CHECK(explained->reason == ExplainReason::quota_slots);
  CHECK(explained->must_end == std::vector<JobId>{first, second});
  CHECK(says(*explained, "its owner's quota has room in 20 min at the latest"));
  const auto all = driver.state().explain(driver.submit(run_spec(3)));
  CHECK(all->must_end.size() == 3);
  CHECK_FALSE(all->earliest_unix_ms.has_value());
}

TEST_CASE("explain: who waits for its owner's quota is told of what counts, wherever it is") {
  ClusterSettings settings = Driver::default_settings();
  settings.quotas.users["user"].running = 1;
  Driver driver(settings);
  driver.join("a", 1);
  spec::JobSpec spec = run_spec(1);
  spec.limit.time_ms = 600'000;
  const JobId held = driver.submit(spec);
  driver.run_up();
  // It goes on there until the deadline; nobody else comes to that node.
  driver.drain("a", 3'600'000);
  driver.join("b", 1);
  const auto explained = driver.state().explain(driver.submit(spec));
  CHECK(explained->reason == ExplainReason::quota_running);
  REQUIRE(explained->holders.size() == 1);
  CHECK(explained->holders[0].job == held);
  CHECK(explained->holders[0].slots == 1);
  CHECK(explained->must_end == std::vector<JobId>{held});
  REQUIRE(explained->earliest_unix_ms);
  CHECK(explained->earliest_unix_ms == explained->holders[0].ends_unix_ms);
}

TEST_CASE("explain: says to the millisecond when a job's time to begin comes") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec later = run_spec(1);
  later.delay_ms = 3'600'000;
  const JobId job = driver.submit(later);
  CHECK(driver.state().explain(job)->reason == ExplainReason::begin);
  CHECK(driver.state().explain(job)->earliest_unix_ms.has_value());
}

TEST_CASE("explain: a task waits for what its array waits for") {
  Driver driver;
  driver.join("a", 1);
  driver.submit(run_spec(1));
  driver.run_up();
  spec::JobSpec spec = run_spec(1);
  spec.array.count = 3;
  const JobId array = driver.submit(spec);
  const JobId task{array.value + 2};
  const auto explained = driver.state().explain(task);
  CHECK(explained->job == task);
  CHECK(explained->reason == driver.state().explain(array)->reason);
  CHECK(explained->reason == ExplainReason::room);
  CHECK(says(*explained, "waits for its turn among the 3 tasks"));
  CHECK(says(*explained, "missing: 1 slot more"));
}

TEST_CASE("explain: a job that lost a rank waits for who holds its place") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  const JobId job = driver.submit(train_spec(2));
  driver.run_up();
  driver.disconnect("b");
  driver.pass(300ms);
  const auto explained = driver.state().explain(job);
  CHECK(explained->reason == ExplainReason::room);
  CHECK(explained->ranks_min == 1);
  CHECK(says(*explained, "needs 1 rank; 0 fit now"));
  CHECK(says(*explained, "missing: 1 slot more"));
}

TEST_CASE("explain: says what waiting does to a job's place, and when that changes next") {
  Driver driver;
  const auto prioritised = [](std::int32_t priority) {
    spec::JobSpec spec = run_spec(1);
    spec.priority = priority;
    return spec;
  };
  const JobId old = driver.submit(prioritised(0));
  driver.pass(3h);
  const JobId first = driver.submit(prioritised(5));
  const JobId second = driver.submit(prioritised(5));
  const auto turn = [&](JobId job) { return driver.state().explain(job)->turn; };
  CHECK(driver.state().explain(old)->position == 3);
  CHECK(turn(old).waited_ms == 3 * 3'600'000);
  CHECK(turn(old).passes == 2);
  CHECK_FALSE(turn(old).passed_unix_ms);
  CHECK(says(*driver.state().explain(old),
             "it has waited for 3.0 h; in 21.0 h that is a day, and it passes 2 of the 2 before "
             "it, whatever their priority"));
  CHECK(turn(first).passed_by == old);
  CHECK(turn(first).passed_unix_ms == turn(old).overdue_unix_ms);
  CHECK(says(*driver.state().explain(first),
             "job 1, which is behind it, passes it in 21.0 h: it will have waited for a day"));
  CHECK(turn(second).passes == 0);
  CHECK(says(*driver.state().explain(second), "those before it stay there, as they are older"));

  driver.pass(22h);
  CHECK(driver.state().explain(old)->position == 1);
  CHECK(turn(old).overdue);
  CHECK_FALSE(turn(old).overdue_unix_ms);
  CHECK(says(*driver.state().explain(old), "more than a day: whatever their priority"));
  // Who has waited for a day stays before it.
  CHECK(driver.state().explain(second)->position == 3);
  CHECK(turn(second).passes == 0);
  CHECK_FALSE(turn(second).passed_unix_ms);
}

TEST_CASE("plan: says what would become of a job, and changes nothing") {
  Driver driver;
  driver.join("a", 2);
  const auto planned = [&](const spec::JobSpec& spec) { return driver.state().plan("user", spec); };
  CHECK(planned(run_spec(2))->reason == ExplainReason::now);
  CHECK(says(*planned(run_spec(2)), "starts at once"));
  CHECK(planned(run_spec(3))->reason == ExplainReason::never_fits);
  spec::JobSpec busy = run_spec(2);
  busy.limit.time_ms = 300'000;
  const JobId holder = driver.submit(busy);
  driver.run_up();
  CHECK(planned(run_spec(1))->reason == ExplainReason::room);
  CHECK(planned(run_spec(1))->must_end == std::vector<JobId>{holder});
  const JobId head = driver.submit(run_spec(2));
  const auto behind = planned(run_spec(1));
  CHECK(behind->reason == ExplainReason::behind);
  CHECK(behind->position == 2);
  CHECK(behind->ahead == std::vector<JobId>{head});
  spec::JobSpec urgent = run_spec(1);
  urgent.priority = 5;
  CHECK(planned(urgent)->position == 1);
  spec::JobSpec after = run_spec(1);
  after.after.ok = {head.value};
  CHECK(planned(after)->reason == ExplainReason::dependency);
  after.after.ok = {99};
  CHECK(planned(after).error().code == ErrorCode::not_found);
  // The queue is as it was.
  CHECK(driver.state().explain(head)->position == 1);
  const JobId next = driver.submit(run_spec(1));
  CHECK(driver.state().explain(next)->position == 2);
}

TEST_CASE("plan: a program that may have more ranks than are free does not start at once") {
  Driver driver;
  driver.join("a", 4);
  driver.submit(run_spec(1));
  driver.run_up();
  spec::JobSpec spec = run_spec(2);
  spec.resources.ranks_max = 4;
  const auto planned = driver.state().plan("user", spec);
  REQUIRE(planned);
  CHECK(planned->reason == ExplainReason::room);
  CHECK(says(*planned, "waits up to 10 s for room for all of its 4 ranks, then starts with 3"));
  CHECK(planned->must_end.empty());
  REQUIRE(planned->earliest_unix_ms);
  // That is what becomes of it.
  const JobId job = driver.submit(spec);
  driver.pass(0s);
  CHECK(driver.state().explain(job)->earliest_unix_ms == planned->earliest_unix_ms);
  driver.live(9s);
  CHECK(driver.job_state(job) == queued);
  CHECK(driver.take<wire::StartRank>().empty());
  CHECK(says(*driver.state().explain(job), "waits up to 1 s for room for all of its 4 ranks"));
  driver.live(2s);
  CHECK(driver.take<wire::StartRank>().size() == 3);
  // One that has room for all does, and so does one that grows.
  spec.resources.ranks_max = 3;
  Driver empty;
  empty.join("a", 3);
  CHECK(empty.state().plan("user", spec)->reason == ExplainReason::now);
  spec::JobSpec grows = train_spec(2);
  grows.resources.ranks_max = 4;
  CHECK(empty.state().plan("user", grows)->reason == ExplainReason::now);
}

TEST_CASE("explain: says of each worker why it does not do") {
  Driver driver;
  driver.join("a", 2);
  spec::JobSpec spec = run_spec(1);
  spec.resources.labels = {{"zone", "a"}};
  const JobId labelled = driver.submit(spec);
  CHECK(driver.state().explain(labelled)->reason == ExplainReason::never_fits);
  CHECK(says(*driver.state().explain(labelled), "a: lacks label zone=a"));
  spec = run_spec(1);
  spec.resources.cores = 5;
  const JobId wide = driver.submit(spec);
  CHECK(says(*driver.state().explain(wide), "a: has 4 cores, a rank needs 5"));
  driver.pass(3s);
  spec = run_spec(1);
  const JobId any = driver.submit(spec);
  CHECK(says(*driver.state().explain(any), "a: is not reachable now"));
  CHECK_FALSE(driver.state().explain(JobId{99}));
}

TEST_CASE("submit: more ranks than there are machines for is accepted, and said") {
  Driver driver;
  driver.join("a", 1);
  const RequestId request = driver.next_request();
  driver.on(
      SubmitJob{.request = request, .key = {}, .owner = "u", .yaml = "s", .spec = run_spec(3)});
  CHECK(std::get<JobAccepted>(*driver.answer(request)).notice ==
        "it needs 3 slots and the cluster has 1 that suit it: it waits for more");
}

}  // namespace tutti::coordinator::test
