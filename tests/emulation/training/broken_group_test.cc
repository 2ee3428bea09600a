// A group that breaks while a rank's device computes and gradients are on their way: the rank's
// step ends at once, with what broke the group, and not when its device has computed.
//
// The device is held before the step: its stream has a gate in front of all that the step enqueues,
// which opens only after the step has ended.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include <catch2/catch.hpp>

#include <cstdlib>
#include <functional>
#include <future>
#include <latch>
#include <optional>
#include <thread>

#include "kernels/collective/nccl_group.h"
#include "tests/emulation/training/training_members.h"
#include "tests/support/becomes.h"
#include "tests/support/cuda_emulation/asked_in_vain.h"
#include "tests/support/patience.h"

namespace tutti::training {
namespace {

using kernels::Communicator;
using test::Hashes;
using test::Member;
using test::Members;
using test::TinyJob;

// Behind the last bucket of a step: what is told of it, and the votes.
constexpr std::uint64_t kGroupsBehindBuckets = 2;

// A shard of one sample for each of two ranks: all that they compute is a backward pass whose
// gradients leave as they are made.
const test::TinyOptions kOneSampleEach{.batch = 2, .shards = 2, .micro = 1, .steps = 4};

EnterPlan plan_of(const TinyJob& tiny, std::uint64_t generation, std::uint64_t base) {
  return {.generation = generation, .base_step = base, .root = tiny.checkpoints()};
}

// Its device does nothing of what it is given from now on until the gate opens.
void hold(Member& member, std::latch& gate) {
  emulation::enqueue(member.device->stream(), [&gate]() -> std::string {
    gate.wait();
    return {};
  });
}

// Whether the rank's thread asks its device again and again if it has computed.
bool comes_to_wait(const Member& member) {
  emulation::asked_in_vain = nullptr;
  return test::becomes([&] { return emulation::asked_in_vain == member.device->stream(); });
}

// How the step of a rank ended.
struct Ended {
  std::optional<Error> error;
  Held held;
  bool job_failed = false;
  std::int32_t lost_peer = -1;
  std::optional<Error> later;  // what the group says from then on
};

Ended end_of_step(Member& member, Communicator& group) {
  const auto made = member.trainer->step(group, 0);
  Ended ended{.error = {},
              .held = member.trainer->held(),
              .job_failed = member.trainer->job_failed(),
              .lost_peer = group.lost_peer(),
              .later = {}};
  if (!made) ended.error = made.error();
  if (const auto stands = group.look(); !stands) ended.later = stands.error();
  return ended;
}

// Makes the rank's first step in `group`; how many groups of transfers that took.
std::uint64_t first_step(Member& member, Communicator& group, const EnterPlan& plan) {
  TUTTI_ASSERT(member.trainer->enter(group, plan));
  const std::uint64_t entered = group.operations();
  TUTTI_ASSERT(member.trainer->step(group, 0));
  return group.operations() - entered;
}

// Makes step 2 of rank 0, whose device is held, in a thread of its own; `breaks` is called once all
// buckets have begun. Nothing: the step does not end before the device computes.
std::optional<Ended> break_held_step(Member& member, std::unique_ptr<Communicator> group,
                                     std::uint64_t groups_of_step,
                                     const std::function<void(Communicator&)>& breaks) {
  std::latch gate(1);
  hold(member, gate);
  const std::uint64_t begun = group->operations() + groups_of_step - kGroupsBehindBuckets;
  std::promise<Ended> promise;
  auto ended = promise.get_future();
  std::latch broken(1);
  std::thread rank([&] {
    promise.set_value(end_of_step(member, *group));
    broken.wait();
    group.reset();  // its peers hear of it, and it waits for the gate
  });
  const bool waits =
      test::becomes([&] { return group->operations() == begun; }) && comes_to_wait(member);
  if (waits) breaks(*group);
  broken.count_down();
  const bool in_time =
      ended.wait_for(test::patient(std::chrono::seconds(20))) == std::future_status::ready;
  gate.count_down();
  rank.join();
  CHECK(waits);
  return in_time ? std::optional(ended.get()) : std::nullopt;
}

// Two ranks as threads, of which the second computes step 2 unhindered. Checks that both stand at
// step 1 then, and come to the bits of an undisturbed run in the next generation.
Ended break_between_threads(const std::function<void(Communicator&)>& breaks) {
  const TinyJob tiny(kOneSampleEach);
  const auto job = tiny.open();
  Hashes expected;
  test::run_generation(test::make_members(*job, 1), plan_of(tiny, 1, 0), job->last_step(),
                       expected);
  const Members members = test::make_members(*job, 2);
  test::Groups groups = test::linked_groups(members);
  std::vector<std::uint64_t> groups_of_step(2);
  test::on_ranks(2, [&](std::uint32_t rank) {
    groups_of_step[rank] = first_step(*members[rank], *groups[rank], plan_of(tiny, 1, 0));
  });
  Ended other;
  std::thread second([&] {
    other = end_of_step(*members[1], *groups[1]);
    groups[1].reset();
  });
  const auto ended = break_held_step(*members[0], std::move(groups[0]), groups_of_step[0], breaks);
  second.join();
  REQUIRE(ended);
  for (const Ended& one : {*ended, other}) {
    REQUIRE(one.error);
    CHECK(one.later == one.error);
    CHECK(one.held == Held{.whole = true, .step = 1, .pending = 0});
    CHECK_FALSE(one.job_failed);
  }
  CHECK(other.error == Error{ErrorCode::unavailable, "rank 0 is gone: its group broke"});
  CHECK(other.lost_peer == 0);
  Hashes hashes;
  test::run_generation(members, plan_of(tiny, 2, 1), job->last_step(), hashes);
  expected.erase(1);
  CHECK(hashes == expected);
  return *ended;
}

}  // namespace

TEST_CASE("emulation: an abort ends the step of a rank whose device computes, first reason first") {
  const Ended ended = break_between_threads([](Communicator& group) {
    group.abort("the generation is over");
    group.abort("a later reason");
  });
  CHECK(ended.error == Error{ErrorCode::aborted, "the generation is over"});
  CHECK(ended.lost_peer == -1);
}

TEST_CASE("emulation: what NCCL finds ends the step of a rank whose device computes") {
  const Ended ended = break_between_threads([](Communicator& group) {
    emulation::find_nccl_error(0);
    static_cast<void>(test::becomes([&] { return group.aborted(); }));
    emulation::find_nccl_error(-1);
    group.abort("a later reason");
  });
  CHECK(ended.error ==
        Error{ErrorCode::unavailable, "the NCCL group: emulation: an NCCL call failed"});
  CHECK(ended.lost_peer == -1);
}

TEST_CASE("emulation: a killed peer ends the step of a rank whose device computes") {
  const TinyJob tiny(kOneSampleEach);
  const auto job = tiny.open();
  Hashes expected;
  test::run_generation(test::make_members(*job, 1), plan_of(tiny, 1, 0), job->last_step(),
                       expected);
  auto first = *kernels::Listener::open({});
  auto second = *kernels::Listener::open({});
  kernels::FormOptions form{
      .addresses = {first->address(), second->address()}, .generation = 1, .secret = "s"};
  const auto id = kernels::make_nccl_id();
  REQUIRE(id);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    form.rank = 1;
    Member own(*job);
    auto group = own.device->link(*second->connect(form), *id);
    TUTTI_ASSERT(group);
    static_cast<void>(first_step(own, **group, plan_of(tiny, 1, 0)));
    std::latch never(1);
    hold(own, never);
    static_cast<void>(own.trainer->step(**group, 0));
    ::_exit(0);
  }
  second.reset();  // the child's copy is the only one now
  Members members = test::make_members(*job, 1);
  auto group = members[0]->device->link(*first->connect(form), *id);
  REQUIRE(group);
  const std::uint64_t groups = first_step(*members[0], **group, plan_of(tiny, 1, 0));
  const auto ended = break_held_step(*members[0], *std::move(group), groups,
                                     [&](Communicator&) { ::kill(child, SIGKILL); });
  ::kill(child, SIGKILL);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  REQUIRE(ended);
  REQUIRE(ended->error);
  CHECK(ended->error->code == ErrorCode::unavailable);
  CHECK(ended->error->message.find("rank 1 is gone: ") == 0);
  CHECK(ended->later == ended->error);
  CHECK(ended->lost_peer == 1);
  CHECK(ended->held == Held{.whole = true, .step = 1, .pending = 0});
  CHECK_FALSE(ended->job_failed);
  members.push_back(std::make_unique<Member>(*job));
  EnterPlan next = plan_of(tiny, 2, 1);
  next.copies = {{0, 1}};
  Hashes hashes;
  test::run_generation(members, next, job->last_step(), hashes);
  expected.erase(1);
  CHECK(hashes == expected);
}

}  // namespace tutti::training
