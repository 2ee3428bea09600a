// What `tutti up` leaves in its state folder, besides the coordinator's own files: a lock, the
// configurations of its parts, and who runs.
//
//   up.lock            held as long as `tutti up` runs
//   up.json            {"pid", "coordinator", "worker", "faults"}; pids, 0 while a part is down
//   coordinator.yaml   as `tutti coordinator --config` reads it; worker.yaml likewise
//   coordinator.log, worker.log
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>

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

// Errors: not_found (no `tutti up` runs there).
Result<UpState> read_up_state(const std::filesystem::path& folder);

// Makes the folder (0700) if it is missing and takes its lock. Errors: already_exists (another
// holds it, named by its pid), permission_denied or unavailable (cannot be written), each with what
// to do.
Result<FileDescriptor> lock_state_folder(const std::filesystem::path& folder);

// Waits until the coordinator and worker of a `tutti up` that was killed have ended, which they do
// by themselves, or until the time is over; who starts then says what is wrong.
void wait_for_predecessors(const std::filesystem::path& folder, Duration within);

}  // namespace tutti::cli
