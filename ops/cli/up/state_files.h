// What `tutti up` leaves in its state folder, besides the coordinator's own files: a lock, the
// configurations of its parts, and who runs.
//
//   up.lock            held as long as `tutti up` runs
//   up.json            {"pid", "coordinator", "worker", "faults"}; pids, 0 while a part is down
//   coordinator.yaml   as `tutti coordinator --config` reads it; worker.yaml likewise
//   coordinator.log, worker.log
//
// And what the worker says in its own folder, of which `tutti worker restart` reads how that went:
//
//   worker.json        {"pid", "restarts", "refused", "version", "refusal"}
#pragma once

#include <sys/types.h>

#include <boost/json/value.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "protocol/base/clock.h"
#include "protocol/base/file.h"
#include "protocol/base/result.h"

namespace tutti::cli {

struct UpState {
  pid_t up = 0;
  pid_t coordinator = 0;
  pid_t worker = 0;
  bool faults = false;

  bool operator==(const UpState&) const = default;
};

Result<> write_up_state(const std::filesystem::path& folder, const UpState& state);

// Errors: not_found (no `tutti up` runs there), corrupt.
Result<UpState> read_up_state(const std::filesystem::path& folder);
// A number that can be no process's is 0. Errors: corrupt (no JSON).
Result<UpState> parse_up_state(std::string_view text);
std::string to_json(const UpState& state);

struct WorkerState {
  pid_t pid = 0;  // 0: it says none
  std::int64_t restarts = 0;
  std::int64_t refused = 0;
  boost::json::value said;  // all of it
};

// As parse_up_state.
Result<WorkerState> parse_worker_state(std::string_view text);

// Makes the folder (0700) if it is missing and takes its lock. Errors: already_exists (another
// holds it, named by its pid), permission_denied or unavailable (cannot be written), each with what
// to do.
Result<FileDescriptor> lock_state_folder(const std::filesystem::path& folder);

// Waits until the coordinator and worker of a `tutti up` that was killed have ended, which they do
// by themselves, or until the time is over; who starts then says what is wrong.
void wait_for_predecessors(const std::filesystem::path& folder, Duration within);

}  // namespace tutti::cli
