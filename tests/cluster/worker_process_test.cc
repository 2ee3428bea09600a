// The worker as a process, against a coordinator in the test's hand.
#include <catch2/catch.hpp>

#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/patience.h"
#include "tests/support/sanitizers.h"
#include "tests/support/scripted_coordinator.h"
#include "tests/support/temporary_folder.h"
#include "worker/launcher/launcher.h"
#include "worker/launcher/process_plan.h"

using namespace tutti;
using namespace std::chrono_literals;
using test::ScriptedCoordinator;
using wire::Stream;

namespace {

std::string binary(const char* name) {
  const char* folder = std::getenv("TUTTI_BIN");
  return std::string(folder == nullptr ? "build/bin" : folder) + "/" + name;
}

bool ends_within(int pidfd, int ms) {
  pollfd poll{.fd = pidfd, .events = POLLIN, .revents = 0};
  return ::poll(&poll, 1, ms * test::patience()) == 1;
}

// A worker process on a folder; killed, with all that bears its mark, when the test ends.
class Worker {
 public:
  explicit Worker(const std::filesystem::path& folder) : Worker(folder, binary("worker_main")) {}
  Worker(const std::filesystem::path& folder, const std::string& program)
      : state_(folder / "worker"), process_(launch_on(folder, program)) {}
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() { kill(SIGKILL); }

  void kill(int signal) {
    if (done_) return;
    ::kill(process_.pid, signal);
    REQUIRE(ends_within(process_.pidfd.get(), 10'000));
    status_ = worker::reap(process_).value_or(worker::ExitStatus{});
    done_ = true;
  }

  void signal(int number) { ::kill(process_.pid, number); }

  worker::ExitStatus wait() {
    REQUIRE(ends_within(process_.pidfd.get(), 10'000));
    status_ = worker::reap(process_).value_or(worker::ExitStatus{});
    done_ = true;
    return status_;
  }

  worker::ExitStatus status() const { return status_; }

 private:
  static worker::Launched launch_on(const std::filesystem::path& folder,
                                    const std::string& program) {
    std::vector<std::string> environment{"PATH=/usr/bin:/bin", "TUTTI_LOG=warning"};
    test::add_sanitizer_options(environment);
    auto launched =
        worker::launch({.command = {program, (folder / "worker").string(),
                                    (folder / "join.json").string(), binary("obedient_rank")},
                        .environment = environment,
                        .folder = {},
                        .linked = false});
    REQUIRE(launched);
    return *std::move(launched);
  }

  std::filesystem::path state_;
  worker::Launched process_;
  worker::ExitStatus status_;
  bool done_ = false;
};

std::size_t end_left_behind(const std::filesystem::path& folder) {
  const std::string mark = std::string(worker::kWorkerMark) + "=" +
                           std::filesystem::weakly_canonical(folder / "worker").string();
  return worker::end_marked({mark}, test::patient(5s));
}

bool reaped_within_deadline(std::int64_t pid) {
  for (int i = 0; i < 1000 * test::patience(); ++i) {
    if (::kill(static_cast<pid_t>(pid), 0) != 0) return true;
    ::poll(nullptr, 0, 10);
  }
  return false;
}

// Whether the process is dead; who is to reap it may take his time.
bool gone_within_deadline(std::int64_t pid) {
  for (int i = 0; i < 1000 * test::patience(); ++i) {
    const auto stat = read_file("/proc/" + std::to_string(pid) + "/stat");
    if (!stat || stat->find(") Z ") != std::string::npos) return true;
    ::poll(nullptr, 0, 10);
  }
  return false;
}

wire::StartRank start_of(std::uint64_t process, const std::string& kind) {
  wire::StartRank out;
  out.job = JobId{7};
  out.generation = Generation{1};
  out.process = ProcessId{process};
  out.rank = static_cast<std::uint32_t>(process - 1);
  out.size = 1;
  out.slot = out.rank;
  out.kind = kind;
  return out;
}

wire::StartRank program(std::uint64_t process, const std::string& script,
                        const std::filesystem::path& folder) {
  wire::StartRank out = start_of(process, "run");
  out.spec = "name: x\nkind: run\ncommand: [sh, -c, '" + script + "']\n";
  out.folder = (folder / "job").string();
  return out;
}

wire::FormGroup group_of(const wire::StartRank& start, const std::string& address) {
  wire::FormGroup out;
  out.job = start.job;
  out.generation = start.generation;
  out.process = start.process;
  out.addresses = {address};
  return out;
}

// Starts the process and forms its group; its pid.
std::int64_t run(ScriptedCoordinator& coordinator, const wire::StartRank& start) {
  coordinator.order(start);
  const auto ready = coordinator.wait<wire::RankReady>();
  REQUIRE(ready);
  coordinator.order(group_of(start, ready->address));
  REQUIRE(coordinator.wait<wire::GroupFormed>());
  const auto started = coordinator.wait<wire::RankStarted>();
  REQUIRE(started);
  return started->pid;
}

}  // namespace

TEST_CASE("worker process: a program's output and exit code reach the coordinator") {
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  Worker worker(folder.path());
  REQUIRE(coordinator.wait<wire::Hello>());
  run(coordinator, program(1, "echo $RANK of $WORLD_SIZE at $MASTER_ADDR; exit 3", folder.path()));
  const auto exit = coordinator.wait<wire::RankExited>();
  REQUIRE(exit);
  CHECK(exit->code == 3);
  CHECK(exit->failure == wire::FailureClass::user);
  CHECK(coordinator.wait_stream(ProcessId{1}, Stream::log) == "0 of 1 at 127.0.0.1\n");
  CHECK(coordinator.wait_stream(ProcessId{1}, Stream::steps) == "");
  run(coordinator, program(2, "cd /no/such/folder || exit 0", folder.path()));
  CHECK(coordinator.wait<wire::RankExited>()->failure == wire::FailureClass::none);
}

TEST_CASE("worker process: an order of a kind that it does not know holds up none behind it") {
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  Worker worker(folder.path());
  REQUIRE(coordinator.wait<wire::Hello>());
  coordinator.order_unknown();
  run(coordinator, program(1, "exit 0", folder.path()));
  const auto exit = coordinator.wait<wire::RankExited>();
  REQUIRE(exit);
  CHECK(exit->failure == wire::FailureClass::none);
}

TEST_CASE("worker process: a program that is not there is the user's fault and never began") {
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  Worker worker(folder.path());
  REQUIRE(coordinator.wait<wire::Hello>());
  wire::StartRank start = program(1, "", folder.path());
  start.spec = "name: x\nkind: run\ncommand: [no-such-program]\n";
  coordinator.order(start);
  coordinator.order(group_of(start, "127.0.0.1:1"));
  const auto exit = coordinator.wait<wire::RankExited>();
  REQUIRE(exit);
  CHECK(exit->failure == wire::FailureClass::user);
  CHECK(exit->error.find("no-such-program") != std::string::npos);
}

TEST_CASE(
    "worker process: an empty folder that it made for a job goes with the job's last program") {
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  Worker worker(folder.path());
  REQUIRE(coordinator.wait<wire::Hello>());
  // On a disk that its coordinator does not see, each of these would stay; here it has made one.
  const auto in = [&](const wire::StartRank& start, const char* name) {
    wire::StartRank out = start;
    out.folder = (folder.path() / "jobs" / name).string();
    return out;
  };
  std::filesystem::create_directories(folder.path() / "jobs/8");
  run(coordinator, in(program(1, "echo 42 > result", folder.path()), "9"));
  REQUIRE(coordinator.wait<wire::RankExited>());
  run(coordinator, in(program(2, "exit 0", folder.path()), "8"));
  REQUIRE(coordinator.wait<wire::RankExited>());
  const auto empty = folder.path() / "jobs/7";
  REQUIRE(::mkfifo((folder.path() / "jobs/go").c_str(), 0600) == 0);
  run(coordinator, in(program(3, "read line < ../go; pwd > ../was", folder.path()), "7"));
  REQUIRE(std::filesystem::exists(empty));
  std::ofstream(folder.path() / "jobs/go") << "go\n";
  REQUIRE(coordinator.wait<wire::RankExited>());
  bool gone = false;
  for (int i = 0; i < 1000 * test::patience() && !gone; ++i) {
    gone = !std::filesystem::exists(empty);
    ::poll(nullptr, 0, 10);
  }
  CHECK(gone);
  CHECK(std::filesystem::exists(folder.path() / "jobs/8"));
  CHECK(std::filesystem::exists(folder.path() / "jobs/9/result"));
  // It lived where it was put.
  CHECK(*read_file(folder.path() / "jobs/was") ==
        std::filesystem::weakly_canonical(empty).string() + "\n");
}

TEST_CASE("worker process: a stopped program goes with its grandchildren, wherever they hide") {
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  Worker worker(folder.path());
  REQUIRE(coordinator.wait<wire::Hello>());
  const std::string script =
      "trap \"\" TERM; setsid sleep 1000 & sleep 1000 & echo up; while :; do wait; done";
  run(coordinator, program(1, script, folder.path()));
  REQUIRE(coordinator.wait_text(ProcessId{1}, Stream::log, "up\n"));
  coordinator.order(wire::StopRank{
      .job = JobId{7}, .process = ProcessId{1}, .grace_ms = 100, .reason = "cancelled"});
  const auto exit = coordinator.wait<wire::RankExited>();
  REQUIRE(exit);
  CHECK(exit->ordered);
  CHECK(exit->signal == SIGKILL);
  CHECK(end_left_behind(folder.path()) == 0);
}

TEST_CASE(
    "worker process: ranks are steered over their socket pair, and a killed one is seen at once") {
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  Worker worker(folder.path());
  REQUIRE(coordinator.wait<wire::Hello>());
  run(coordinator, start_of(1, "train"));
  run(coordinator, start_of(2, "train"));
  REQUIRE(coordinator.wait_text(ProcessId{2}, Stream::steps, "{\"step\":3}\n"));
  coordinator.order(wire::SignalRank{.job = JobId{7}, .process = ProcessId{2}, .signal = SIGKILL});
  const auto killed = coordinator.wait<wire::RankExited>();
  REQUIRE(killed);
  CHECK(killed->process == ProcessId{2});
  CHECK(killed->signal == SIGKILL);
  CHECK(killed->failure == wire::FailureClass::infrastructure);
  CHECK_FALSE(killed->ordered);
  CHECK(coordinator.wait_stream(ProcessId{2}, Stream::steps) ==
        "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
  coordinator.order(wire::Regroup{
      .job = JobId{7}, .generation = Generation{2}, .process = ProcessId{1}, .rank = 0, .size = 1});
  CHECK(coordinator.wait<wire::RankReady>()->generation == Generation{2});
  coordinator.order(
      wire::StopRank{.job = JobId{7}, .process = ProcessId{1}, .grace_ms = 5000, .reason = "done"});
  const auto stopped = coordinator.wait<wire::RankExited>();
  REQUIRE(stopped);
  CHECK(stopped->ordered);
  CHECK(stopped->code == 0);
  CHECK(coordinator.wait_stream(ProcessId{1}, Stream::log) == "rank 0 begins\n");
}

TEST_CASE(
    "worker process: a coordinator that comes back finds the process alive and learns what it "
    "missed") {
  const test::TemporaryFolder folder;
  auto coordinator = std::make_unique<ScriptedCoordinator>(folder.path());
  const std::uint16_t port = coordinator->port();
  Worker worker(folder.path());
  REQUIRE(coordinator->wait<wire::Hello>());
  run(*coordinator, start_of(1, "train"));
  const auto second = run(*coordinator, start_of(2, "train"));
  coordinator.reset();
  ::kill(static_cast<pid_t>(second), SIGKILL);
  REQUIRE(reaped_within_deadline(second));
  coordinator = std::make_unique<ScriptedCoordinator>(folder.path(), port);
  const auto hello = coordinator->wait<wire::Hello>();
  REQUIRE(hello);
  REQUIRE(hello->processes.size() == 1);
  CHECK(hello->processes[0].process == ProcessId{1});
  CHECK(hello->processes[0].phase == wire::ProcessPhase::formed);
  REQUIRE(hello->exits.size() == 1);
  CHECK(hello->exits[0].process == ProcessId{2});
  CHECK(coordinator->wait<wire::RankExited>()->process == ProcessId{2});
  CHECK(coordinator->wait_stream(ProcessId{2}, Stream::log).has_value());
}

TEST_CASE(
    "worker process: killed, it takes its ranks along; the next one ends leftovers and sends their "
    "logs") {
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  std::int64_t rank = 0;
  {
    Worker worker(folder.path());
    REQUIRE(coordinator.wait<wire::Hello>());
    rank = run(coordinator, start_of(1, "train"));
    run(coordinator, program(2, "echo before; sleep 1000 & wait", folder.path()));
    REQUIRE(coordinator.wait_text(ProcessId{2}, Stream::log, "before\n"));
    worker.kill(SIGKILL);
  }
  Worker next(folder.path());
  const auto hello = coordinator.wait<wire::Hello>();
  REQUIRE(hello);
  CHECK(hello->processes.empty());
  CHECK(gone_within_deadline(rank));
  CHECK(end_left_behind(folder.path()) == 0);
  CHECK(coordinator.wait_stream(ProcessId{2}, Stream::log) == "before\n");
}

TEST_CASE(
    "worker process: restarted in place it is the same process with the same children, pipes and "
    "spools") {
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  Worker worker(folder.path());
  const auto before = coordinator.wait<wire::Hello>();
  REQUIRE(before);
  const auto rank = run(coordinator, start_of(1, "train"));
  const auto go = folder.path() / "go";
  const std::string script =
      "echo before; while [ ! -e " + go.string() + " ]; do sleep 0.02; done; echo after; exit 3";
  const auto pid = run(coordinator, program(2, script, folder.path()));
  REQUIRE(coordinator.wait_text(ProcessId{2}, Stream::log, "before\n"));
  worker.signal(SIGHUP);
  const auto hello = coordinator.wait<wire::Hello>();
  REQUIRE(hello);
  CHECK(hello->incarnation == before->incarnation);
  CHECK(hello->greeting > before->greeting);
  REQUIRE(hello->processes.size() == 2);
  CHECK(hello->processes[0].pid == rank);
  CHECK(hello->processes[0].phase == wire::ProcessPhase::formed);
  CHECK(hello->processes[1].pid == pid);
  // The rank's socket still works, and so does the program's pipe.
  coordinator.order(wire::Regroup{
      .job = JobId{7}, .generation = Generation{2}, .process = ProcessId{1}, .rank = 0, .size = 1});
  const auto ready = coordinator.wait<wire::RankReady>();
  REQUIRE(ready);
  CHECK(ready->generation == Generation{2});
  REQUIRE(write_file_atomically(go, ""));
  const auto exit = coordinator.wait<wire::RankExited>();
  REQUIRE(exit);
  CHECK(exit->process == ProcessId{2});
  CHECK(exit->code == 3);
  CHECK(coordinator.wait_stream(ProcessId{2}, Stream::log) == "before\nafter\n");
  // A rank of the binary before goes with this one.
  worker.kill(SIGKILL);
  CHECK(gone_within_deadline(rank));
}

TEST_CASE("worker process: restarted in place again and again at once, it keeps its ranks") {
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  Worker worker(folder.path());
  const auto before = coordinator.wait<wire::Hello>();
  REQUIRE(before);
  const auto rank = run(coordinator, start_of(1, "train"));
  // Close enough that some meet a binary that has only just begun.
  for (int i = 0; i < 500; ++i) {
    worker.signal(SIGHUP);
    ::poll(nullptr, 0, 1);
  }
  ::poll(nullptr, 0, 500 * test::patience());  // the last one is in its session
  const auto hello = coordinator.wait<wire::Hello>();
  REQUIRE(hello);
  CHECK(hello->incarnation == before->incarnation);
  REQUIRE(hello->processes.size() == 1);
  CHECK(hello->processes[0].pid == rank);
  coordinator.order(wire::Regroup{
      .job = JobId{7}, .generation = Generation{2}, .process = ProcessId{1}, .rank = 0, .size = 1});
  const auto ready = coordinator.wait<wire::RankReady>();
  REQUIRE(ready);
  CHECK(ready->generation == Generation{2});
  worker.kill(SIGKILL);
  CHECK(gone_within_deadline(rank));
}

TEST_CASE("worker process: told to end while it is restarted in place, it ends as it should") {
  const int gap_ms = GENERATE(0, 10, 20, 30, 40, 60);
  CAPTURE(gap_ms);
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  Worker worker(folder.path());
  REQUIRE(coordinator.wait<wire::Hello>());
  worker.signal(SIGHUP);
  ::poll(nullptr, 0, gap_ms);
  worker.signal(SIGTERM);
  const worker::ExitStatus status = worker.wait();
  CHECK(status.code == 0);
  CHECK(status.signal == 0);
}

TEST_CASE("worker process: a binary that would not take over is not executed, and nobody suffers") {
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  const auto program_file = folder.path() / "a-worker";
  std::filesystem::copy_file(binary("worker_main"), program_file);
  Worker worker(folder.path(), program_file.string());
  REQUIRE(coordinator.wait<wire::Hello>());
  const auto rank = run(coordinator, start_of(1, "train"));
  const auto replace = [&](const std::string& script) {
    REQUIRE(write_file_atomically(program_file, "#!/bin/sh\n" + script + "\n", 0700));
  };
  std::string said;
  SECTION("it fails") {
    replace("echo a library is missing; exit 127");
    said = "ended with code 127: a library is missing";
  }
  SECTION("it is of a version that takes no such handover") {
    const auto state = std::filesystem::canonical(folder.path() / "worker").string();
    replace("echo '{\"version\": \"9.0\", \"state\": \"" + state + "\", \"handovers\": [9]}'");
    said = "version 9.0 takes no handover of version 1";
  }
  SECTION("it would run on another folder") {
    replace("echo '{\"version\": \"9.0\", \"state\": \"/nowhere\", \"handovers\": [1]}'");
    said = "its state folder would be /nowhere";
  }
  SECTION("it says nothing that is known") {
    replace("echo hello");
    said = "it does not say what it takes over";
  }
  worker.signal(SIGHUP);
  const auto heartbeat = coordinator.wait<wire::Heartbeat>();
  REQUIRE(heartbeat);
  INFO(heartbeat->restart_refused);
  CHECK(heartbeat->restart_refused.find(said) != std::string::npos);
  // In its session, with its rank.
  coordinator.order(wire::Regroup{
      .job = JobId{7}, .generation = Generation{2}, .process = ProcessId{1}, .rank = 0, .size = 1});
  const auto ready = coordinator.wait<wire::RankReady>();
  REQUIRE(ready);
  CHECK(ready->generation == Generation{2});
  worker.kill(SIGKILL);
  CHECK(gone_within_deadline(rank));
}

TEST_CASE(
    "worker process: what it starts has torchrun's variables, its limits, and usage figures") {
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  Worker worker(folder.path());
  const auto hello = coordinator.wait<wire::Hello>();
  REQUIRE(hello);
  CHECK_FALSE(hello->limits.empty());
  wire::StartRank start = program(
      1, "echo $RANK $WORLD_SIZE $LOCAL_RANK $GROUP_RANK $TUTTI_GENERATION $MASTER_ADDR; exit 7",
      folder.path());
  start.at_once = true;
  start.memory_bytes = std::uint64_t{256} << 20;
  coordinator.order(start);
  const auto began = coordinator.wait<wire::RankStarted>();
  REQUIRE(began);
  CHECK(began->limits.find("memory 0.25 GiB") != std::string::npos);
  CHECK(began->limits.starts_with(hello->limits));
  const auto exit = coordinator.wait<wire::RankExited>();
  REQUIRE(exit);
  CHECK(exit->code == 7);
  CHECK(exit->began);
  CHECK_FALSE(exit->silent);
  CHECK(exit->memory_peak_bytes > 0);
  CHECK(exit->log_tail == "0 1 0 0 1 127.0.0.1\n");
  CHECK(coordinator.wait_stream(ProcessId{1}, Stream::log) == "0 1 0 0 1 127.0.0.1\n");
}

TEST_CASE("worker process: told to end, it ends its processes quietly and itself with 0") {
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  Worker worker(folder.path());
  REQUIRE(coordinator.wait<wire::Hello>());
  run(coordinator, start_of(1, "train"));
  run(coordinator, program(2, "sleep 1000 & wait", folder.path()));
  worker.signal(SIGTERM);
  REQUIRE(coordinator.wait<wire::WorkerLeaving>());
  worker.kill(SIGTERM);  // asked again, it does not wait for the coordinator to empty it
  CHECK(worker.status().code == 0);
  CHECK(worker.status().signal == 0);
  CHECK(end_left_behind(folder.path()) == 0);
  CHECK(coordinator.wait<wire::RankExited>()->failure == wire::FailureClass::infrastructure);
}

TEST_CASE(
    "worker process: a second one on the same folder, and one that is not admitted, end with their "
    "codes") {
  const test::TemporaryFolder folder;
  ScriptedCoordinator coordinator(folder.path());
  {
    Worker worker(folder.path());
    REQUIRE(coordinator.wait<wire::Hello>());
    Worker second(folder.path());
    CHECK(second.wait().code == 2);
  }
  coordinator.refuse("permission_denied");
  Worker refused(folder.path());
  CHECK(refused.wait().code == 5);
}
