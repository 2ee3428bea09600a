// Everything a worker's state machine can be told and everything it can do.
//
// The host (worker_host.h) and the simulator feed inputs and perform effects. Rules that both keep:
//   - Before ProcessExited of a process, everything that it said and wrote has been fed (RankSpoke)
//   and
//     appended to its spool (SpoolGrew).
//   - One ReadSpool a stream is open at a time; it is answered by SpoolRead, with fewer bytes if
//   there
//     are fewer. AppendSpool is answered by SpoolGrew.
//   - StartProcess is answered by ProcessStarted or StartFailed, ReserveAddress by AddressReserved
//   or
//     StartFailed, Reconnect by Connected once there is a connection. What is sent to a process or
//     signalled right after its StartProcess reaches it.
//
// Ownership: plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/ids.h"
#include "protocol/wire/rank_messages.h"
#include "protocol/wire/worker_messages.h"

namespace tutti::worker {

// Inputs ------------------------------------------------------------------------------------------

// A frame of the coordinator, with what its header says.
struct FrameReceived {
  SessionId session;
  Sequence sequence;
  wire::ToWorker message;
};

// A numbered frame of the coordinator that this version does not understand (untaken.h).
struct UnknownOrder {
  SessionId session;
  Sequence sequence;
  std::string what;  // one line for people
};

// A connection to the coordinator can be used: a Hello may be sent. (It may still be on its way.)
struct Connected {};

// The liveness connection of `session` ended, or the endpoint failed.
struct LinkLost {
  SessionId session;
};

// The liveness connection of `session` could not be made: its port is blocked, perhaps. The session
// goes on, by its heartbeats.
struct LivenessRefused {
  SessionId session;
  std::string reason;
};

struct RankSpoke {
  ProcessId process;
  wire::FromRank message;
};

// The rank closed its end of the socket pair, or does not read what it is sent.
struct RankLinkLost {
  ProcessId process;
  std::string reason;
};

struct AddressReserved {
  ProcessId process;
  std::string address;  // HOST:PORT
};

struct ProcessStarted {
  ProcessId process;
  std::int64_t pid = 0;
  std::string limits = {};  // what holds it; empty: nothing
};

struct StartFailed {
  ProcessId process;
  wire::FailureClass failure = wire::FailureClass::infrastructure;
  std::string error;
};

// Gone and reaped; one of `code` and `signal` is set.
struct ProcessExited {
  ProcessId process;
  std::int32_t code = 0;
  std::int32_t signal = 0;
  std::int64_t seen_unix_ms = 0;
  bool out_of_memory = false;           // the kernel ended it, or something it started
  std::uint64_t memory_peak_bytes = 0;  // 0: not known
  std::uint64_t cpu_ms = 0;
  std::string log_tail = {};  // of one that did not end with 0: the last of what it wrote
};

// The stream now ends at `size` (an offset since the stream's beginning).
struct SpoolGrew {
  ProcessId process;
  wire::Stream stream = wire::Stream::log;
  std::uint64_t size = 0;
};

struct SpoolRead {
  ProcessId process;
  wire::Stream stream = wire::Stream::log;
  std::uint64_t offset = 0;
  std::string bytes;
};

// A spool that an earlier worker on this state folder left behind; its process is gone.
struct SpoolFound {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint32_t rank = 0;
  std::uint64_t log_size = 0;
  std::uint64_t steps_size = 0;
  bool cut = false;  // the machine went down since, and its end may be missing
};

// The driver was asked of the devices again.
struct DevicesRead {
  std::vector<wire::DeviceReading> readings;
};

// It was told to go on as another binary, and that one would not take over.
struct RestartRefused {
  std::string reason;
};

struct Tick {};

// The worker is to end (SIGTERM): the coordinator is told, which lets ranks save and stop; what
// still runs at the notice's end is stopped, then Quit. A second one: at once.
struct StopRequested {};

using Input = std::variant<FrameReceived, UnknownOrder, Connected, LinkLost, LivenessRefused,
                           RankSpoke, RankLinkLost, AddressReserved, ProcessStarted, StartFailed,
                           ProcessExited, SpoolGrew, SpoolRead, SpoolFound, DevicesRead,
                           RestartRefused, Tick, StopRequested>;

// Effects -----------------------------------------------------------------------------------------

struct SendToCoordinator {
  SessionId session;  // for the frame's header, 0 with Hello
  Sequence sequence;  // 0: not a report
  wire::FromWorker message;
};

struct SendToRank {
  ProcessId process;
  wire::ToRank message;
};

// For kind `run`: find a HOST:PORT that is free now.
struct ReserveAddress {
  ProcessId process;
};

// tutti-rank, or (with `group`) the program of a `run` job. A group without addresses is one of
// one: the host picks its address.
struct StartProcess {
  wire::StartRank start;
  std::optional<wire::FormGroup> group;
  std::uint32_t local_rank = 0;  // among this worker's ranks of the generation
  std::uint32_t local_size = 1;
  std::vector<std::string> local_devices = {};  // those of a program's local ranks, by local rank
};

enum class SignalScope { process, group };

struct SignalProcess {
  ProcessId process;
  std::int32_t signal = 0;
  SignalScope scope = SignalScope::process;  // group: with all that it started
};

// Both spools have reached the coordinator: files and table entries can go.
struct ReleaseProcess {
  ProcessId process;
};

struct AppendSpool {
  ProcessId process;
  wire::Stream stream = wire::Stream::steps;
  std::string bytes;
};

// The step records of all processes that the job has had here are to survive a loss of power before
// the next effect is performed: what follows moves the state that they led to.
struct SyncSteps {
  JobId job;
};

struct ReadSpool {
  ProcessId process;
  wire::Stream stream = wire::Stream::log;
  std::uint64_t offset = 0;
  std::uint64_t bytes_max = 0;
};

// What lies before `offset` is not needed any more.
struct TruncateSpool {
  ProcessId process;
  wire::Stream stream = wire::Stream::log;
  std::uint64_t offset = 0;
};

// A bare TCP connection to the coordinator's host: write the token and a line break, tell of its
// end.
struct ConnectLiveness {
  SessionId session;
  std::uint16_t port = 0;
  std::string token;
};

// Throw the connection away and make another, after `delay`; whatever it still held is dropped.
struct Reconnect {
  Duration delay{0};
};

// Faults: SIGKILL to this worker itself; writes to spools that take `delay` each, for `lasts`.
struct KillSelf {};

struct SlowDisk {
  Duration delay{0};
  Duration lasts{0};
};

// A line for the worker's own log.
struct Note {
  std::string text;
};

// The worker ends with this exit code; `message` is for people, empty when all is well.
struct Quit {
  int exit_code = 0;
  std::string message;
};

using Effect =
    std::variant<SendToCoordinator, SendToRank, ReserveAddress, StartProcess, SignalProcess,
                 ReleaseProcess, AppendSpool, SyncSteps, ReadSpool, TruncateSpool, ConnectLiveness,
                 Reconnect, KillSelf, SlowDisk, Note, Quit>;
using Effects = std::vector<Effect>;

}  // namespace tutti::worker
