// Everything a rank's state machine can be told and everything it can do.
//
//   worker -- orders -->  [rank_state]  -- Begin... -->  computing thread
//          <-- reports --               <-- events ----
//
// The computing thread does one task at a time, in the order given; Interrupt reaches the one it is
// in.
//
// Ownership: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "protocol/wire/rank_messages.h"

namespace tutti::rank {

// Events of the computing thread ------------------------------------------------------------------

// The job was opened: answers BeginSetUp.
struct SetUpDone {
  bool operator==(const SetUpDone&) const = default;
};

// A listener for the generation stands: answers BeginListening.
struct Listening {
  Generation generation;
  std::string address;
  wire::HeldState held;

  bool operator==(const Listening&) const = default;
};

// Connected to all, at the base step: the first answer to BeginGroup.
struct Entered {
  Generation generation;
  std::uint64_t step = 0;
  std::uint64_t copied_bytes = 0;
  std::string serve_endpoint;
  std::string serve_key;
  std::string model;

  bool operator==(const Entered&) const = default;
};

struct StepCommitted {
  Generation generation;
  std::uint64_t step = 0;
  bool first = false;  // of the generation
  std::string line;    // the step record

  bool operator==(const StepCommitted&) const = default;
};

struct PartWritten {
  Generation generation;
  std::uint64_t step = 0;
  std::vector<wire::CheckpointFile> files;
  std::string error;

  bool operator==(const PartWritten&) const = default;
};

// The last answers to BeginGroup: the group is left, because it broke or on Interrupt; or nothing
// is left to do. Finished with a failure may answer BeginSetUp and BeginListening, too.
struct GroupLeft {
  Generation generation;
  std::int32_t suspect = -1;
  std::string reason;
  wire::HeldState held;
  wire::FailureClass failure = wire::FailureClass::none;  // as in GenerationBroken

  bool operator==(const GroupLeft&) const = default;
};
struct Finished {
  std::uint64_t step = 0;
  wire::FailureClass failure = wire::FailureClass::none;
  std::string message;

  bool operator==(const Finished&) const = default;
};

struct CommitDone {
  Generation generation;
  std::uint64_t step = 0;
  std::string folder;
  std::string error;

  bool operator==(const CommitDone&) const = default;
};

using Event = std::variant<SetUpDone, Listening, Entered, StepCommitted, PartWritten, GroupLeft,
                           Finished, CommitDone>;

// Effects -----------------------------------------------------------------------------------------

struct SendReport {
  wire::FromRank report;

  bool operator==(const SendReport&) const = default;
};
struct BeginSetUp {
  wire::StartRank order;

  bool operator==(const BeginSetUp&) const = default;
};
struct BeginListening {
  Generation generation;
  std::uint32_t rank = 0;  // that it has there
  std::uint32_t size = 0;  // of the gang

  bool operator==(const BeginListening&) const = default;
};
struct BeginGroup {
  wire::FormGroup order;
  std::uint32_t rank = 0;

  bool operator==(const BeginGroup&) const = default;
};
struct BeginCommit {
  wire::CommitCheckpoint order;

  bool operator==(const BeginCommit&) const = default;
};
struct Interrupt {
  std::string reason;

  bool operator==(const Interrupt&) const = default;
};
struct RaiseFlags {
  bool save = false;
  bool stop = false;

  bool operator==(const RaiseFlags&) const = default;
};
// Finish what is open and leave the group; exit at once if nothing can be finished.
struct WindDown {
  bool operator==(const WindDown&) const = default;
};
struct ExitProcess {
  int code = 0;

  bool operator==(const ExitProcess&) const = default;
};

using Effect = std::variant<SendReport, BeginSetUp, BeginListening, BeginGroup, BeginCommit,
                            Interrupt, RaiseFlags, WindDown, ExitProcess>;

}  // namespace tutti::rank
