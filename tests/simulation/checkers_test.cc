// What each checker says of facts and states that were made up for it: the assertions that no
// broken rule of mutation.cc is needed for.
#include <catch2/catch.hpp>

#include <boost/describe/members.hpp>
#include <boost/mp11/algorithm.hpp>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/life/line.h"
#include "tests/simulation/checkers/checkers.h"
#include "tests/simulation/checkers/memory_bounds.h"

namespace tutti::simulation {

namespace {

using namespace coordinator;

constexpr JobId kJob{1};

// A cluster in which nothing happens but what a test says.
struct Stage {
  Stage() { options.workers = 2; }
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  static SimCoordinator::Doors doors() {
    return {.send = [](const SendToWorker&) {},
            .answer = [](const Answer&) {},
            .liveness_ended = [](SessionId) {},
            .started = [] {},
            .decided = [](const Decision&) {},
            .crashes = [] {}};
  }
  Observed seen() const { return {world, ranks, coordinator, workers, clients, options, shadow}; }
  void show(const Snapshot& snapshot) { shadow.restore(snapshot); }
  std::string violation() const { return world.violation().value_or("nothing is broken"); }

  mutable World world{1};
  ScenarioOptions options;
  RankWorld ranks{.world = world};
  SimCoordinator coordinator{world, {}, doors()};
  std::vector<std::unique_ptr<SimWorker>> workers;
  Clients clients{world, ranks, coordinator};
  Durable shadow;
};

JobRecord job_in(JobState state) {
  JobRecord job;
  job.job = kJob;
  job.terms.name = "a";
  job.terms.kind = "run";
  job.state = state;
  job.generation = Generation{2};
  return job;
}

ProcessRecord process_on(std::uint64_t id, const std::string& worker) {
  ProcessRecord process;
  process.process = ProcessId{id};
  process.job = kJob;
  process.worker = worker;
  return process;
}

WorkerRecord worker_named(const std::string& name) {
  WorkerRecord worker;
  worker.worker = name;
  worker.slots = 2;
  return worker;
}

Snapshot holding(const JobRecord& job) {
  Snapshot out;
  out.next_job = 2;
  out.jobs = {job};
  return out;
}

template <class F>
F of_generation(std::uint64_t generation) {
  F fact;
  fact.job = kJob;
  fact.generation = Generation{generation};
  return fact;
}

// What a checker says of a fact that is about to be applied.
std::string said_before(std::unique_ptr<Checker> checker, const Snapshot& shown, const Fact& fact) {
  Stage stage;
  stage.show(shown);
  checker->before_fact(stage.seen(), fact);
  return stage.violation();
}

// And of a state after a decision.
std::string said_after(std::unique_ptr<Checker> checker, const Snapshot& shown) {
  Stage stage;
  stage.show(shown);
  Decision decision;
  decision.facts = {DependencyMet{}};  // any
  checker->decided(stage.seen(), decision);
  return stage.violation();
}

bool says(const std::string& violation, const std::string& invariant, const std::string& what) {
  INFO(violation);
  const bool both =
      violation.starts_with(invariant + " is broken") && violation.find(what) != std::string::npos;
  CHECK(both);
  return both;
}

}  // namespace

TEST_CASE("checkers: I3 sees an effect of a generation that is not the newest, or is dead") {
  JobRecord job = job_in(JobState::running);
  job.generation_alive = true;
  const std::string old = "generation 1 has an effect, the newest is 2";
  for (const Fact& fact :
       std::vector<Fact>{of_generation<GroupOrdered>(1), of_generation<GroupRunning>(1),
                         of_generation<FirstStepSeen>(1), of_generation<CheckpointPartTaken>(1)}) {
    says(said_before(make_generation_checker(), holding(job), fact), "I3", old);
  }
  const Fact own = of_generation<GroupRunning>(2);
  CHECK(said_before(make_generation_checker(), holding(job), own) == "nothing is broken");
  job.generation_alive = false;
  says(said_before(make_generation_checker(), holding(job), own), "I3",
       "generation 2 has an effect, the newest is 2");
}

TEST_CASE("checkers: I3 sees a number that is passed, and a process that nobody wants back") {
  const JobRecord job = job_in(JobState::recovering);
  says(said_before(make_generation_checker(), holding(job), of_generation<GenerationStarted>(4)),
       "I3", "generation 4 follows 2");
  Snapshot shown = holding(job);
  shown.processes = {process_on(7, "node-0")};  // not lost
  ProcessReturned returned;
  returned.process = ProcessId{7};
  says(said_before(make_generation_checker(), shown, returned), "I3",
       "process 7 came back and is not wanted");
  shown.processes[0].lost = true;
  CHECK(said_before(make_generation_checker(), shown, returned) == "nothing is broken");
}

TEST_CASE("checkers: I4 sees a gang that runs without one of its ranks") {
  JobRecord job = job_in(JobState::running);
  job.generation_alive = true;
  job.members = {ProcessId{1}, ProcessId{}};
  says(said_after(make_gang_checker(), holding(job)), "I4", "runs with 1 of 2 ranks");
}

TEST_CASE("checkers: I6 sees a slot that two processes hold") {
  Snapshot shown = holding(job_in(JobState::running));
  shown.processes = {process_on(1, "node-0"), process_on(2, "node-0")};
  says(said_after(make_slot_checker(), shown), "I6", "slot 0 of node-0 was given twice");
  shown.processes[1].slot = 1;
  CHECK(said_after(make_slot_checker(), shown) == "nothing is broken");
}

TEST_CASE("checkers: I7 sees every transition that the design does not have") {
  using enum JobState;
  constexpr std::pair<JobState, JobState> kWrong[] = {
      {done, queued},      {failed, running},    {cancelled, stopping},  {queued, running},
      {queued, done},      {placed, running},    {starting, recovering}, {running, done},
      {running, queued},   {recovering, queued}, {recovering, failed},   {stopping, running},
      {placed, recovering}};
  for (const auto& [from, to] : kWrong) {
    Stage stage;
    const auto checker = make_transition_checker();
    const Fact fact = of_generation<GroupRunning>(2);
    stage.show(holding(job_in(from)));
    checker->before_fact(stage.seen(), fact);
    stage.show(holding(job_in(to)));
    checker->after_fact(stage.seen(), fact);
    says(stage.violation(), "I7",
         "went from " + std::string(state_name(from)) + " to " + std::string(state_name(to)));
  }
}

TEST_CASE("checkers: I16 sees that too many nodes are set aside") {
  Snapshot shown;
  shown.workers = {worker_named("node-0"), worker_named("node-1")};
  NodeDraining aside;
  aside.worker = "node-0";
  aside.drain.cause = DrainCause::quarantine;
  CHECK(said_before(make_drain_checker(), shown, aside) == "nothing is broken");
  shown.workers[1].lost = true;
  says(said_before(make_drain_checker(), shown, aside), "I16",
       "node-0 is set aside, and 0 nodes are left");
}

TEST_CASE("checkers: I19 sees histories, lines and nodes without a bound") {
  JobRecord job = job_in(JobState::recovering);
  job.recoveries.resize(kRecoveriesMax + 1);
  says(said_after(make_memory_checker(), holding(job)), "I19", "remembers without a bound");
  job.recoveries.clear();
  job.checkpoints.resize(kCheckpointsMax + 1);
  says(said_after(make_memory_checker(), holding(job)), "I19", "remembers without a bound");

  Snapshot lines = holding(job_in(JobState::running));
  for (std::uint64_t id = 1; id <= 2 * kLinesOfWorkerMax + 1; ++id) {
    lines.processes.push_back(process_on(id, "node-0"));
    lines.processes.back().lined_up = true;
  }
  says(said_after(make_memory_checker(), lines), "I19", "the lines of the slots have no bound");

  Snapshot nodes;
  for (const char* name : {"node-0", "node-1", "node-2"}) {
    nodes.workers.push_back(worker_named(name));
  }
  says(said_after(make_memory_checker(), nodes), "I19", "more workers than there are");
}

TEST_CASE("checkers: I19 sees keys that nobody used") {
  Stage stage;
  Snapshot shown;
  shown.keys.resize(1);
  shown.keys[0].key = "k";
  stage.show(shown);
  make_memory_checker()->ended(stage.seen());
  says(stage.violation(), "I19", "more keys of forgotten jobs");
}

TEST_CASE("checkers: I19 has a bound for all that is remembered and not durable") {
  using Members = boost::describe::describe_members<SoftSizes, boost::describe::mod_any_access>;
  std::size_t by_pass = 0;
  boost::mp11::mp_for_each<Members>([&](auto member) {
    INFO(member.name);
    SoftSizes soft;
    CHECK_FALSE(beyond_bounds(soft, {.at_rest = true}));
    soft.*member.pointer = 1;
    const auto beyond = beyond_bounds(soft, {.at_rest = true});
    REQUIRE(beyond);
    CHECK(beyond->starts_with("1 "));
    CHECK(beyond->find(" are remembered, and 0 live") != std::string::npos);
    // What the pass keeps has no bound between two of them; of the rest each has its own.
    const bool bound = beyond_bounds(soft, {}).has_value();
    if (!bound) ++by_pass;
    CHECK_FALSE(beyond_bounds(soft, {.processes = 1, .jobs = 1, .workers = 1}));
    soft.*member.pointer = 2;
    CHECK(beyond_bounds(soft, {.processes = 1, .jobs = 1, .workers = 1}).has_value() == bound);
  });
  CHECK(by_pass == 8);
}

namespace {

// A client that was told that its job was accepted, and asks again.
struct Asking : Stage {
  Asking() {
    coordinator.start();
    PlannedJob job;
    job.spec.name = "a";
    job.spec.command = {"true"};
    job.spec.kind = spec::JobKind::run;
    Plan plan{.options = options, .rng = Rng(1)};
    plan.jobs = {job};
    clients.begin(plan);
    clients.submit_once(job);
    clients.answered({.request = RequestId{1}, .body = JobAccepted{.job = kJob}});
    REQUIRE(violation() == "nothing is broken");
  }
};

}  // namespace

TEST_CASE("checkers: I2 sees a key that is taken for another spec, or for another job") {
  Asking other;
  other.clients.submit_other("a");
  other.clients.answered({.request = RequestId{2}, .body = JobAccepted{.job = JobId{2}}});
  says(other.violation(), "I2", "was taken for another spec");
  Asking again;
  again.clients.submit_again("a");
  again.clients.answered({.request = RequestId{2}, .body = JobAccepted{.job = JobId{2}}});
  says(again.violation(), "I2", "gave jobs 1 and 2");
}

TEST_CASE("checkers: I2 sees an accepted key that is refused for good") {
  Asking asking;
  asking.clients.submit_again("a");
  asking.clients.answered(
      {.request = RequestId{2}, .body = Error{ErrorCode::invalid_argument, "no"}});
  says(asking.violation(), "I2", "was accepted and then refused: no");
}

TEST_CASE("checkers: I18 sees an answer to nobody's request") {
  Asking asking;
  asking.clients.answered({.request = RequestId{9}, .body = Done{}});
  says(asking.violation(), "I18", "an answer to nobody's request");
}

}  // namespace tutti::simulation
