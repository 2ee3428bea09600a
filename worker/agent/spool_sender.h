// Which piece of which spool is to be read and sent now: one in flight a stream, from the
// acknowledged offset.
//
// Pure, a part of WorkerState. A stream ends with a SpoolData{end}, also if it is empty, and is
// done when SpoolAcked{end} answers. What is not answered within kResendAfter is read and sent
// again; a new session begins again at the acknowledged offset.
//
// Limits: chunks of wire::kSpoolChunkBytesMax; kInFlightMax streams at a time, oldest process
// first. Of processes that have ended and wait for the coordinator to store what they wrote, more
// than kCrowdedFrom hold up the programs that stand in line here, and kWaitingMax all of them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "protocol/base/clock.h"
#include "worker/agent/saved_state.h"
#include "worker/agent/worker_messages.h"

namespace tutti::worker {

class SpoolSender {
 public:
  static constexpr Duration kResendAfter = std::chrono::seconds(2);
  // 64 chunks are 16 MiB on their way at most.
  static constexpr std::size_t kInFlightMax = 64;
  // A MiB of memory; a coordinator whose disk is busy stores some 30 a second.
  static constexpr std::size_t kCrowdedFrom = 4096;
  static constexpr std::size_t kWaitingMax = 65'536;

  struct Owner {
    JobId job;
    Generation generation;
    ProcessId process;
    std::uint32_t rank = 0;
    bool cut = false;  // its log may lack its end
  };

  void open(const Owner& owner);
  void grew(const SpoolGrew& input);
  void ended(ProcessId process);

  // What to read now. Each is to be answered by read().
  std::vector<ReadSpool> due(Instant now);
  // The chunk to send for what was read; nothing if the answer is not wanted any more.
  std::optional<wire::SpoolData> read(const SpoolRead& input, Instant now);
  // What can be dropped on disk, if anything.
  std::optional<TruncateSpool> acked(const wire::SpoolAcked& message);

  // Both streams of an ended process are empty: nothing of it is to be sent, and it is done.
  bool silence(ProcessId process);

  // For a successor in the same process.
  std::vector<SavedSpool> save() const;
  void restore(const SavedSpool& saved);

  // A new session: nothing is in flight.
  void restart();

  // Both streams are done, which they are only once the process has ended; forget() then removes
  // it.
  bool done(ProcessId process) const;
  void forget(ProcessId process);

  bool knows(ProcessId process) const { return spools_.contains(process); }
  bool crowded() const { return ended_ >= kCrowdedFrom; }
  bool full() const { return ended_ >= kWaitingMax; }

 private:
  struct StreamState {
    std::uint64_t size = 0;
    std::uint64_t acked = 0;
    Instant sent_at;
    bool reading = false;
    bool in_flight = false;
    bool done = false;

    bool busy() const { return reading || in_flight; }
  };
  struct Spool {
    Owner owner;
    bool ended = false;
    std::array<StreamState, 2> streams;
  };

  StreamState* find(ProcessId process, wire::Stream stream);
  void end(Spool& spool);
  void look_after_busy(Instant now);

  std::map<ProcessId, Spool> spools_;
  std::size_t ended_ = 0;  // of those
  // Streams that are being read or in flight, and some that were.
  std::set<std::pair<ProcessId, std::size_t>> busy_;
};

}  // namespace tutti::worker
