#include "jobs/rank/rank_state.h"

#include <catch2/catch.hpp>

#include "jobs/rank/work.h"

namespace tutti::rank {
namespace {

using Phase = RankState::Phase;

constexpr JobId kJob{4};
constexpr ProcessId kProcess{9};

wire::StartRank start() {
  wire::StartRank order;
  order.job = kJob;
  order.generation = {1};
  order.process = kProcess;
  order.rank = 1;
  order.size = 2;
  return order;
}
wire::Regroup regroup(std::uint64_t generation) { return {kJob, {generation}, kProcess, 0, 2}; }
wire::FormGroup form(std::uint64_t generation) {
  wire::FormGroup order;
  order.job = kJob;
  order.generation = {generation};
  order.process = kProcess;
  return order;
}
wire::AbortGeneration abort(std::uint64_t generation) {
  return {kJob, {generation}, kProcess, "rank 0 is lost"};
}
GroupLeft left(std::uint64_t generation) {
  return {{generation}, 0, "rank 0 is gone", {true, 5, 6}};
}

// A rank that works in the group of generation 1.
RankState in_group() {
  RankState state;
  (void)state.on(wire::ToRank{start()});
  (void)state.on(Event{SetUpDone{}});
  (void)state.on(Event{Listening{{1}, "unix:@a", {}}});
  (void)state.on(wire::ToRank{form(1)});
  REQUIRE(state.phase() == Phase::in_group);
  return state;
}

template <class Report>
const Report& only_report(const std::vector<Effect>& effects) {
  REQUIRE(effects.size() == 1);
  return std::get<Report>(std::get<SendReport>(effects[0]).report);
}

TEST_CASE(
    "rank: one that works is given its grace to finish, and ends once it has left its group") {
  const auto stop = [](std::uint32_t grace_ms) {
    return wire::ToRank{wire::StopRank{kJob, kProcess, grace_ms, "its successor serves"}};
  };
  RankState state = in_group();
  CHECK(state.on(stop(5'000)) == std::vector<Effect>{WindDown{}});
  CHECK(state.on(Event{left(1)}) == std::vector<Effect>{ExitProcess{0}});
  RankState hurried = in_group();
  CHECK(hurried.on(stop(0)) == std::vector<Effect>{ExitProcess{0}});
  RankState idle;
  (void)idle.on(wire::ToRank{start()});
  CHECK(idle.on(stop(5'000)) == std::vector<Effect>{ExitProcess{0}});
}

TEST_CASE("rank: a start goes through set-up and listening to a report that it is ready") {
  RankState state;
  CHECK(state.on(wire::ToRank{form(1)}).empty());  // nothing is known yet
  CHECK(state.on(wire::ToRank{start()}) == std::vector<Effect>{BeginSetUp{start()}});
  CHECK(state.on(wire::ToRank{start()}).empty());  // once only
  CHECK(state.on(Event{SetUpDone{}}) == std::vector<Effect>{BeginListening{{1}, 1, 2}});
  const auto effects = state.on(Event{Listening{{1}, "unix:@a", {true, 3, 0}}});
  const auto& ready = only_report<wire::RankReady>(effects);
  CHECK(ready == wire::RankReady{kJob, {1}, kProcess, 1, "unix:@a", {true, 3, 0}});
  CHECK(state.on(wire::ToRank{form(1)}) == std::vector<Effect>{BeginGroup{form(1), 1}});
  CHECK(state.on(wire::ToRank{form(1)}).empty());  // it is in the group already
}

TEST_CASE("rank: a set-up that fails is finished with its failure and joins nothing any more") {
  RankState state;
  (void)state.on(wire::ToRank{start()});
  const auto effects = state.on(Event{Finished{0, wire::FailureClass::user, "no such file"}});
  const auto& finished = only_report<wire::RankFinished>(effects);
  CHECK(finished.failure == wire::FailureClass::user);
  CHECK(finished.message == "no such file");
  CHECK(state.on(wire::ToRank{regroup(2)}).empty());
  CHECK(state.on(wire::ToRank{wire::StopRank{kJob, kProcess, 0, ""}}) ==
        std::vector<Effect>{ExitProcess{0}});
}

TEST_CASE("rank: a group that breaks by itself is reported with the suspect and what is held") {
  RankState state = in_group();
  const auto effects = state.on(Event{left(1)});
  const auto& broken = only_report<wire::GenerationBroken>(effects);
  CHECK(broken.suspect == 0);
  CHECK(broken.held == wire::HeldState{true, 5, 6});
  CHECK(state.on(wire::ToRank{abort(1)}).empty());
  CHECK(state.on(wire::ToRank{regroup(2)}) == std::vector<Effect>{BeginListening{{2}, 0, 2}});
}

TEST_CASE("rank: a group that breaks by its ranks' own order is reported as Tutti's own failure") {
  RankState state = in_group();
  GroupLeft broken = left(1);
  broken.failure = failure_of_group(ErrorCode::corrupt);
  const auto effects = state.on(Event{broken});
  CHECK(only_report<wire::GenerationBroken>(effects).failure == wire::FailureClass::own);
  CHECK(failure_of_group(ErrorCode::unavailable) == wire::FailureClass::none);
  CHECK(failure_of_group(ErrorCode::deadline_exceeded) == wire::FailureClass::none);
}

TEST_CASE("rank: an ordered abort interrupts the group and is not reported as broken") {
  RankState state = in_group();
  CHECK(state.on(wire::ToRank{abort(1)}) == std::vector<Effect>{Interrupt{"rank 0 is lost"}});
  CHECK(state.on(wire::ToRank{abort(1)}).empty());
  CHECK(state.on(Event{left(1)}).empty());
  CHECK(state.on(wire::ToRank{regroup(2)}) == std::vector<Effect>{BeginListening{{2}, 0, 2}});
}

TEST_CASE("rank: a regroup in the middle of a group leaves it first") {
  RankState state = in_group();
  CHECK(std::holds_alternative<Interrupt>(state.on(wire::ToRank{regroup(2)}).at(0)));
  CHECK(state.on(wire::ToRank{regroup(3)}).empty());
  CHECK(state.on(Event{left(1)}) == std::vector<Effect>{BeginListening{{3}, 0, 2}});
  const auto effects = state.on(Event{Listening{{3}, "unix:@c", {}}});
  CHECK(only_report<wire::RankReady>(effects).rank == 0);
}

TEST_CASE("rank: orders of older generations and of other processes change nothing") {
  RankState state = in_group();
  (void)state.on(Event{left(1)});
  (void)state.on(wire::ToRank{regroup(2)});
  (void)state.on(Event{Listening{{2}, "unix:@b", {}}});
  CHECK(state.on(wire::ToRank{form(1)}).empty());
  CHECK(state.on(wire::ToRank{abort(1)}).empty());
  CHECK(state.on(wire::ToRank{regroup(2)}).empty());
  CHECK(state.on(wire::ToRank{wire::StopRank{kJob, {8}, 0, ""}}).empty());
  CHECK(state.on(wire::ToRank{wire::SetFlags{kJob, {1}, kProcess, true, true}}).empty());
  CHECK(state.phase() == Phase::ready);
}

TEST_CASE("rank: a generation that is ordered while listening replaces the one before") {
  RankState state;
  (void)state.on(wire::ToRank{start()});
  (void)state.on(wire::ToRank{regroup(2)});
  CHECK(state.on(Event{SetUpDone{}}) == std::vector<Effect>{BeginListening{{2}, 0, 2}});
  (void)state.on(wire::ToRank{regroup(3)});
  CHECK(state.on(Event{Listening{{2}, "unix:@b", {}}}) ==
        std::vector<Effect>{BeginListening{{3}, 0, 2}});
  (void)state.on(wire::ToRank{abort(3)});
  CHECK(state.on(Event{Listening{{3}, "unix:@c", {}}}).empty());
  CHECK(state.phase() == Phase::between);
}

TEST_CASE("rank: a finished rank still commits checkpoints and joins a new generation") {
  RankState state = in_group();
  const auto effects = state.on(Event{Finished{10, wire::FailureClass::none, ""}});
  CHECK(only_report<wire::RankFinished>(effects).step == 10);
  wire::CommitCheckpoint order;
  order.job = kJob;
  order.generation = {1};
  order.process = kProcess;
  order.step = 10;
  CHECK(state.on(wire::ToRank{order}) == std::vector<Effect>{BeginCommit{order}});
  const auto committed = state.on(Event{CommitDone{{1}, 10, "/x/step-10", ""}});
  CHECK(only_report<wire::CheckpointCommitted>(committed).folder == "/x/step-10");
  CHECK(state.on(wire::ToRank{regroup(2)}) == std::vector<Effect>{BeginListening{{2}, 0, 2}});
}

TEST_CASE("rank: steps are reported, and the first one of a generation is announced") {
  RankState state = in_group();
  const auto effects = state.on(Event{StepCommitted{{1}, 6, true, "{}"}});
  REQUIRE(effects.size() == 2);
  CHECK(std::get<wire::StepReported>(std::get<SendReport>(effects[0]).report).line == "{}");
  CHECK(std::get<wire::FirstStepDone>(std::get<SendReport>(effects[1]).report).step == 6);
  CHECK(state.on(Event{StepCommitted{{1}, 7, false, "{}"}}).size() == 1);
}

}  // namespace
}  // namespace tutti::rank
