// What a worker hands to the next binary in the same process: its state and its descriptors.
//
//   old: handover() -> memfd, descriptors made inheritable, TUTTI_WORKER_HANDOVER=FD, exec
//   new: take_handover() -> WorkerHost::restore -> Hello with the same incarnation
//
// The pid stays, so children stay ours and their parent-death signal keeps quiet; pipes, pidfds and
// sockets stay open; spools are files. MessagePack maps by field name, so that a newer binary reads
// what an older one wrote; one that cannot ends the ranks like any other worker that starts.
//
// Threads: the main thread's, which is the one that forked the ranks and that execs.
#pragma once

#include <boost/describe/class.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "protocol/base/file.h"
#include "protocol/base/result.h"
#include "worker/agent/rank_devices.h"
#include "worker/agent/saved_state.h"

namespace tutti::worker {

// What this binary writes and takes.
inline constexpr std::uint32_t kHandoverVersion = 1;

struct HandedProcess {
  ProcessId process;
  std::int64_t pid = 0;
  std::int32_t pidfd = -1;
  std::int32_t output = -1;
  std::int32_t socket = -1;
  std::string received;             // of a frame that is not whole
  std::vector<std::int32_t> cores;  // its threads are bound to

  bool operator==(const HandedProcess&) const = default;
};
BOOST_DESCRIBE_STRUCT(HandedProcess, (), (process, pid, pidfd, output, socket, received, cores))

// A port that is held for a program which is not started yet.
struct HandedAddress {
  ProcessId process;
  std::int32_t socket = -1;
  std::string address;

  bool operator==(const HandedAddress&) const = default;
};
BOOST_DESCRIBE_STRUCT(HandedAddress, (), (process, socket, address))

struct Handover {
  std::uint32_t version = kHandoverVersion;  // another one is not understood
  std::string incarnation;
  std::int32_t lock = -1;  // of the state folder
  std::uint32_t restarts = 0;
  SavedState state;
  std::vector<HandedProcess> processes;
  std::vector<HandedAddress> addresses;
  std::optional<RankDevices> devices;  // of a worker with GPUs, as its rank binary told of them

  bool operator==(const Handover&) const = default;
};
BOOST_DESCRIBE_STRUCT(Handover, (),
                      (version, incarnation, lock, restarts, state, processes, addresses, devices))

std::string encode_handover(const Handover& handover);
// Errors: corrupt, unsupported.
Result<Handover> decode_handover(std::string_view bytes);

// SIGTERM, SIGINT and SIGHUP wait while this process has no handlers for them: their default action
// would end it, and its ranks with it. An exec keeps them waiting, and the next binary takes them.
void hold_signals();
void release_signals();

// Executes `command` in this process with the handover; returns why it could not, with everything
// as it was.
Error exec_with(const std::vector<std::string>& command, const Handover& handover);

// What the binary before left for us, once: the variable is removed and the descriptors are
// close-on-exec again. Nothing if we were started afresh. Errors: corrupt, unsupported.
Result<std::optional<Handover>> take_handover();

}  // namespace tutti::worker
