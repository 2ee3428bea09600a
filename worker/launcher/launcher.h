// Starts one process so that it cannot outlive this one, and sees its end at once.
//
// The child: a session of its own (so that its whole group can be signalled, and Ctrl-C in a
// terminal does not reach it past its worker), SIGKILL when the thread that started it ends,
// default signals and an empty mask, standard input from /dev/null, both outputs into one pipe, no
// descriptor of ours but its end of the socket pair, its limits (limits.h), a raised oom_score_adj
// (it goes before its worker does).
//
// The caller stands still until the program has been executed: who fears a file system that does
// not answer looks at program and folder from another thread first (path_scout.h).
//
// Threads: launch() from the main thread only: the parent-death signal follows the *thread* that
// forked. Errors: a program that cannot be executed is an error of launch(), not an exit.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/file.h"
#include "protocol/base/result.h"
#include "worker/launcher/limits.h"

namespace tutti::worker {

struct LaunchPlan {
  std::vector<std::string>
      command;  // command[0] is looked up in PATH of `environment` if it has no '/'
  std::vector<std::string> environment;  // "A=b", complete: nothing is inherited
  std::filesystem::path folder;          // working directory; empty: this process's
  bool linked = false;                   // has a socket pair, its end is named by TUTTI_RANK_FD
  std::string program = {};              // command[0] as it was found; empty: to be looked up
  Group group = {};                      // that it enters
  std::uint64_t data_bytes_max = 0;      // RLIMIT_DATA; 0: none
  std::vector<int> cpus = {};  // that it may run on, where the system lets it; empty: as we
};

struct Launched {
  pid_t pid = -1;
  FileDescriptor pidfd;   // readable once the process has ended
  FileDescriptor output;  // non-blocking read end of both outputs
  FileDescriptor socket;  // our end, if `linked`
};

// command[0], or where PATH of the plan's environment has it. Errors: not_found, invalid_argument.
Result<std::string> find_program(const LaunchPlan& plan);

// Errors: not_found (no such program), permission_denied, invalid_argument (its folder), exhausted,
// internal.
Result<Launched> launch(const LaunchPlan& plan);

struct ExitStatus {
  int code = 0;
  int signal = 0;
  std::uint64_t memory_peak_bytes = 0;  // the largest resident size of it or of one it waited for
  std::uint64_t cpu_ms = 0;             // of it and those it waited for
};

// Reaps a process that has ended; nothing if it still runs.
std::optional<ExitStatus> reap(const Launched& process);

// Sends the signal to the process's session group, and to the process. A process that is gone is no
// error.
void signal_group(pid_t pid, int signal);

// Children of the main thread, dead ones included; nothing where the kernel does not say.
std::optional<std::vector<pid_t>> children();

// From now on what outlives its parent becomes our child, wherever it hides: nothing escapes us.
// Whether this kernel does that.
bool adopt_orphans();
// Whether that child, which nobody here started, was dead and has been reaped.
bool reap_orphan(pid_t pid);

// Whom the kernel ends first when memory is short: ranks, then their worker, then the coordinator.
// By steps above what each was started with, which takes no privilege and holds wherever we run.
// For a worker, once, before it launches anything.
void raise_oom_score();

// A process's command line, its arguments ended by '\0'; empty where it is dead or gone. While a
// process executes another program the kernel shows it without one: looked at again for a moment.
std::string command_of(pid_t pid);

// Processes of this user whose environment holds all `marks` ("NAME=value"), except this one.
std::vector<pid_t> find_marked(const std::vector<std::string>& marks);

// Kills every process of this user whose environment holds all `marks` ("NAME=value"), again until
// none is left or the deadline is over, except this process. Returns how many signals it took. A
// program that clears its environment is not found.
std::size_t end_marked(const std::vector<std::string>& marks, Duration deadline);

}  // namespace tutti::worker
