#include <catch2/catch.hpp>

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "protocol/base/secret.h"
#include "tests/support/patience.h"
#include "worker/launcher/launcher.h"

using namespace tutti;
using namespace tutti::worker;
using namespace std::chrono_literals;

namespace {

LaunchPlan shell(const std::string& script,
                 std::vector<std::string> environment = {"PATH=/bin:/usr/bin"}) {
  return {.command = {"sh", "-c", script},
          .environment = std::move(environment),
          .folder = {},
          .linked = false};
}

bool wait_readable(int descriptor) {
  pollfd poll{.fd = descriptor, .events = POLLIN, .revents = 0};
  return ::poll(&poll, 1, 10'000 * test::patience()) == 1;
}

// Everything until all writers are gone.
std::string read_output(const Launched& process) {
  std::string out;
  char buffer[4096];
  while (wait_readable(process.output.get())) {
    const ssize_t count = ::read(process.output.get(), buffer, sizeof buffer);
    if (count <= 0) break;
    out.append(buffer, static_cast<std::size_t>(count));
  }
  return out;
}

ExitStatus wait_exit(const Launched& process) {
  REQUIRE(wait_readable(process.pidfd.get()));
  const auto status = reap(process);
  REQUIRE(status);
  return *status;
}

}  // namespace

TEST_CASE("launcher: output of both streams is captured, and the exit code seen") {
  auto process = launch(shell("echo out; echo err >&2; exit 7"));
  REQUIRE(process);
  CHECK(read_output(*process) == "out\nerr\n");
  const ExitStatus status = wait_exit(*process);
  CHECK(status.code == 7);
  CHECK(status.signal == 0);
}

TEST_CASE("launcher: a program that is not there, or a folder, is an error and not an exit") {
  CHECK(launch({.command = {"no-such-program"}, .environment = {"PATH=/bin"}, .folder = {}})
            .error()
            .code == ErrorCode::not_found);
  CHECK(launch({.command = {"/no/such/program"}, .environment = {}, .folder = {}}).error().code ==
        ErrorCode::not_found);
  CHECK(launch({.command = {}, .environment = {}, .folder = {}}).error().code ==
        ErrorCode::invalid_argument);
  LaunchPlan plan = shell("true");
  plan.folder = "/no/such/folder";
  CHECK(launch(plan).error().code == ErrorCode::invalid_argument);
}

TEST_CASE("launcher: the child has default signals, its own session and no descriptor of ours") {
  const FileDescriptor leaked(::dup(STDERR_FILENO));  // without close-on-exec
  auto process =
      launch(shell("grep -E 'SigBlk|SigIgn' /proc/self/status; ls /proc/$$/fd; "
                   "cut -d' ' -f6 /proc/$$/stat; echo $$"));
  REQUIRE(process);
  const std::string output = read_output(*process);
  CHECK(output.find("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n0\n1\n2\n") == 0);
  const std::string pid = std::to_string(process->pid);
  CHECK(output.find(pid + "\n" + pid + "\n") != std::string::npos);
  wait_exit(*process);
}

TEST_CASE("launcher: a process runs on the CPUs it was given, where the system lets it") {
  const auto allowed_to = [](std::vector<int> cpus) {
    LaunchPlan plan = shell("grep Cpus_allowed_list /proc/self/status");
    plan.cpus = std::move(cpus);
    auto process = launch(plan);
    REQUIRE(process);
    std::string line = read_output(*process);
    wait_exit(*process);
    return line.substr(line.find('\t') + 1);
  };
  cpu_set_t ours;
  CPU_ZERO(&ours);
  REQUIRE(::sched_getaffinity(0, sizeof ours, &ours) == 0);
  int last = CPU_SETSIZE - 1;
  while (!CPU_ISSET(static_cast<std::size_t>(last), &ours)) --last;
  CHECK(allowed_to({last}) == std::to_string(last) + "\n");
  // Of no such CPU: it starts all the same.
  CHECK(allowed_to({4000}) == allowed_to({}));
}

TEST_CASE("launcher: the socket pair ends when the child does") {
  LaunchPlan plan = shell("echo hello >&$TUTTI_RANK_FD");
  plan.linked = true;
  auto process = launch(plan);
  REQUIRE(process);
  wait_exit(*process);
  char buffer[64];
  CHECK(::read(process->socket.get(), buffer, sizeof buffer) == 6);
  CHECK(::read(process->socket.get(), buffer, sizeof buffer) == 0);
}

TEST_CASE(
    "launcher: a signal to the group ends grandchildren too, and marks find those that left it") {
  const std::string mark = "TUTTI_TEST_MARK=" + random_hex(8);
  const std::vector<std::string> environment{"PATH=/bin:/usr/bin", mark};
  auto process =
      launch(shell("sleep 1000 & setsid sh -c 'echo ready; exec sleep 1000' & wait", environment));
  REQUIRE(process);
  char line[6];
  REQUIRE(wait_readable(process->output.get()));
  CHECK(::read(process->output.get(), line, sizeof line) == 6);
  signal_group(process->pid, SIGKILL);
  CHECK(wait_exit(*process).signal == SIGKILL);
  CHECK(end_marked({mark, "OTHER=1"}, 1s) == 0);
  CHECK(end_marked({mark}, test::patient(5s)) >= 1);
  CHECK(read_output(*process).empty());  // the last writer is gone
}

TEST_CASE("launcher: a process has a command line, also while it executes another program") {
  const std::string again = "[ $1 -ge 500 ] || exec sh -c \"$AGAIN\" again $(($1 + 1))";
  LaunchPlan plan = shell("exec sh -c \"$AGAIN\" again 0");
  plan.environment.push_back("AGAIN=" + again);
  const auto process = launch(plan);
  REQUIRE(process);
  pollfd ended{.fd = process->pidfd.get(), .events = POLLIN, .revents = 0};
  for (bool lives = true; lives;) {
    const std::string command = command_of(process->pid);
    lives = ::poll(&ended, 1, 0) == 0;
    if (lives) REQUIRE(command.starts_with("sh"));
  }
  wait_exit(*process);
  CHECK(command_of(process->pid).empty());
}
