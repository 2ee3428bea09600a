#include <catch2/catch.hpp>

#include <poll.h>
#include <unistd.h>

#include "protocol/base/secret.h"
#include "tests/support/patience.h"
#include "tests/support/skip.h"
#include "tests/support/temporary_folder.h"
#include "worker/launcher/job_folders.h"
#include "worker/launcher/launcher.h"
#include "worker/launcher/path_scout.h"

using namespace tutti;
using namespace tutti::worker;

namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

LaunchPlan shell(const std::string& script) {
  LaunchPlan plan;
  plan.command = {"sh", "-c", script};
  plan.environment = {"PATH=/bin:/usr/bin"};
  return plan;
}

ExitStatus wait_exit(const Launched& process) {
  pollfd poll{.fd = process.pidfd.get(), .events = POLLIN, .revents = 0};
  REQUIRE(::poll(&poll, 1, 20'000 * test::patience()) == 1);
  const auto status = reap(process);
  REQUIRE(status);
  return *status;
}

}  // namespace

TEST_CASE("limits: who needs more memory than its group may have is ended, and that is known") {
  const Limiter limiter(own_cgroups(), "/test/" + random_hex(8));
  if (limiter.hold() == Hold::rlimit) return test::skip("no control group can be made here");
  auto group = limiter.make(ProcessId{7}, {.memory_bytes = 64 * kMiB, .cores = 1});
  REQUIRE(group);
  LaunchPlan plan = shell("head -c 200M /dev/zero | tail -c 190M > /dev/null; exit $?");
  plan.group = *std::move(group);
  auto process = launch(plan);
  REQUIRE(process);
  wait_exit(*process);
  const GroupUsage usage = limiter.usage(plan.group);
  CHECK(usage.out_of_memory);
  CHECK(usage.memory_peak_bytes > 32 * kMiB);
  CHECK(usage.memory_peak_bytes <= 64 * kMiB);
  CHECK(limiter.find(ProcessId{7}).folders == plan.group.folders);
  limiter.remove(plan.group);
  CHECK(limiter.find(ProcessId{7}).empty());
  limiter.close();
  CHECK_FALSE(std::filesystem::exists(plan.group.folders.front().parent_path()));
}

TEST_CASE("limits: a group is ended with all that is in it, also by the next worker") {
  const std::string mark = "/test/" + random_hex(8);
  const Limiter limiter(own_cgroups(), mark);
  if (limiter.hold() == Hold::rlimit) return test::skip("no control group can be made here");
  auto group = limiter.make(ProcessId{1}, {.memory_bytes = 64 * kMiB, .cores = 0});
  REQUIRE(group);
  LaunchPlan plan = shell("env -i setsid sleep 1000 & echo up; wait");
  plan.group = *std::move(group);
  auto process = launch(plan);
  REQUIRE(process);
  pollfd poll{.fd = process->output.get(), .events = POLLIN, .revents = 0};
  REQUIRE(::poll(&poll, 1, 10'000 * test::patience()) == 1);
  CHECK(Limiter(own_cgroups(), mark).end_leftovers(test::patient(std::chrono::seconds(5))) >= 1);
  CHECK(wait_exit(*process).signal == 9);
  CHECK(limiter.find(ProcessId{1}).empty());
  limiter.close();
}

TEST_CASE("limits: without groups a process is held by resource limits, and people are told so") {
  const Limiter limiter({}, "/test");
  CHECK(limiter.hold() == Hold::rlimit);
  CHECK(limiter.describe({.memory_bytes = 512 * kMiB, .cores = 2}) ==
        "rlimit: memory 0.5 GiB of data a process");
  CHECK(limiter.describe({}).empty());
  const auto group = limiter.make(ProcessId{1}, {.memory_bytes = kMiB, .cores = 1});
  REQUIRE(group);
  CHECK(group->empty());
  LaunchPlan plan = shell("ulimit -d");
  plan.data_bytes_max = 300 * kMiB;
  auto process = launch(plan);
  REQUIRE(process);
  CHECK(wait_exit(*process).code == 0);
  char line[16] = {};
  CHECK(::read(process->output.get(), line, sizeof line - 1) > 0);
  CHECK(std::string(line) == "307200\n");
}

TEST_CASE("scout: a folder of our own is made, one of the user's is not, and programs are found") {
  const test::TemporaryFolder folder;
  const std::string missing = (folder.path() / "a" / "b").string();
  PathScout::Question question{.command = {"true"},
                               .environment = {"PATH=/bin:/usr/bin"},
                               .folder = missing,
                               .makes_folder = false,
                               .program = {}};
  CHECK(look_at(question).error().code == ErrorCode::invalid_argument);
  question.makes_folder = true;
  const auto program = look_at(question);
  REQUIRE(program);
  CHECK(program->program.ends_with("/true"));
  CHECK(program->made_folder == is_local_disk(folder.path()));
  CHECK(std::filesystem::is_directory(missing));
  CHECK_FALSE(look_at(question)->made_folder);
  question.command = {"no-such-program"};
  CHECK(look_at(question).error().code == ErrorCode::not_found);
}

TEST_CASE("scout: an answer is believed for a while; one that was abandoned is not given") {
  PathScout scout;
  const PathScout::Question question{.command = {"true"},
                                     .environment = {"PATH=/bin"},
                                     .folder = {},
                                     .makes_folder = false,
                                     .program = {}};
  const Instant now{std::chrono::hours(1)};
  CHECK_FALSE(scout.known(question, now));
  scout.believe(question, "/bin/true", now);
  CHECK(scout.known(question, now)->program == "/bin/true");
  CHECK_FALSE(scout.known(question, now + PathScout::kBelievedFor));
  PathScout::Question other = question;
  other.folder = "/tmp";
  CHECK_FALSE(scout.known(other, now));
}
