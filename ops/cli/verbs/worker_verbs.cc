// tutti worker restart: the worker of this machine takes the newest binary, in place.
#include <fmt/core.h>
#include <signal.h>

#include <cerrno>
#include <memory>
#include <thread>
#include <utility>

#include "ops/cli/client/api.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/up/state_files.h"
#include "ops/cli/verbs.h"
#include "protocol/base/clock.h"
#include "protocol/base/file.h"
#include "worker/launcher/launcher.h"

namespace tutti::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kWorkerFileBytesMax = 4'096;
constexpr Duration kRestartsWithin = std::chrono::seconds(30);

Result<WorkerState> find_worker(const fs::path& state) {
  const fs::path path = state / "worker.json";
  const Error absent{
      ErrorCode::not_found,
      fmt::format("no worker runs in {}; name its state folder with --state", state.string())};
  const Result<std::string> text = read_file(path, kWorkerFileBytesMax);
  if (!text) return absent;
  Result<WorkerState> found = parse_worker_state(*text);
  if (!found) return std::move(found).error().with_context(path.string());
  // The number may be another program's by now.
  const bool runs =
      found->pid != 0 && worker::command_of(found->pid).find("worker") != std::string::npos;
  if (!runs) return absent;
  return found;
}

int restart(const fs::path& state, const Session& session) {
  const Result<WorkerState> before = find_worker(state);
  if (!before) return fail(before.error());
  if (::kill(before->pid, SIGHUP) != 0) {
    return fail(errno_error(fmt::format("cannot tell the worker, pid {}", before->pid), errno));
  }
  // It says so itself once the new binary runs, or would not.
  for (const Instant until = monotonic_now() + kRestartsWithin; monotonic_now() < until;) {
    const Result<WorkerState> now = find_worker(state);
    if (!now || now->pid != before->pid) {
      return fail(kInfrastructure,
                  fmt::format("the worker, pid {}, is gone, and its ranks with it{}", before->pid,
                              now ? fmt::format("; pid {} has taken its place", now->pid)
                                  : std::string("; its log says why")));
    }
    if (now->restarts > before->restarts) {
      print(session.json() ? json_line(now->said)
                           : fmt::format("the worker, pid {}, runs version {}; its ranks went on\n",
                                         now->pid, text_of(now->said, "version")));
      return kDone;
    }
    if (now->refused > before->refused) {
      return fail(kRefused, fmt::format("the worker, pid {}, goes on as it is: {}", before->pid,
                                        text_of(now->said, "refusal")));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return fail(kInfrastructure,
              fmt::format("the worker, pid {}, has not answered within {} s; it goes on as it is",
                          before->pid, to_ms(kRestartsWithin) / 1000));
}

}  // namespace

Action declare_worker_restart(Arguments& arguments) {
  auto state = std::make_shared<std::string>();
  arguments.option("--state", *state, "the worker's state folder (default: that of `tutti up`)");
  arguments.epilogue(
      "For an upgrade: the worker executes its own file anew, with the same pid; its ranks and "
      "programs\n"
      "notice nothing. The file is run with --check first: where it, or its configuration, would "
      "not\n"
      "do, or the disk is full, the worker goes on as it is, and the reason is said here (code 5), "
      "in\n"
      "its log and in `tutti events`.");
  return [state](Session& session) {
    return restart(state->empty() ? default_state_folder() / "worker" : fs::path(*state), session);
  };
}

}  // namespace tutti::cli
