// What one process wrote, on disk in its worker's state folder until the coordinator holds it: raw
// output (log) and step records (steps).
//
//   STATE/spools/job-7.generation-1.process-12.rank-0/{log,steps}
//
// An offset counts from the stream's beginning and is the offset in the file: what was acknowledged
// is given back to the file system by a hole. A disk that is full, or a limit that is reached,
// never stops the process: what the disk does not take waits in memory, what is too much for that
// is dropped, and a line says how much once there is room again.
//
// Thousands of programs may have ended whose output the coordinator has not stored yet. What they
// wrote rests: of each of them no more is kept than whose it is, and its files are opened when they
// are read.
//
// Limits: kLogBytesMax that are not acknowledged, kWaitingBytesMax in memory, each a stream.
// Threads: its worker's. A spool outlives its worker's end; the machine's only up to the last
// sync(), which comes before a checkpoint counts that rests on it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/base/file.h"
#include "protocol/base/ids.h"
#include "protocol/base/result.h"

namespace tutti::worker {

inline constexpr std::uint64_t kLogBytesMax = std::uint64_t{64} << 20;
// What waits in memory for room on a full disk, a stream: an hour of step records.
inline constexpr std::size_t kWaitingBytesMax = std::size_t{4} << 20;

// Of what is dropped, at least so much of the end is kept.
inline constexpr std::size_t kLastWordsBytes = std::size_t{64} << 10;

// Whether a line in the stream tells of a gap: in raw output, not between records.
enum class GapLine { written, omitted };

// One stream.
class SpoolFile {
 public:
  explicit SpoolFile(GapLine gap_line = GapLine::written) : gap_line_(gap_line) {}

  // Goes on at the file's end if it is there; else it is made, with its folder, once there is
  // something to write. Errors: those of the file; all then stays in memory.
  Result<> open(const std::filesystem::path& path, std::uint64_t bytes_max);

  // Takes all of it or nothing. Returns the new end.
  std::uint64_t append(std::string_view bytes);

  // Nothing follows: brings back the end of what was dropped. Returns the new end.
  std::uint64_t finish();

  // Up to `bytes_max` bytes from `offset`; blank lines where they cannot be read any more.
  std::string read(std::uint64_t offset, std::uint64_t bytes_max) const;

  // Forgets a last line that was cut short by a worker's death.
  void end_at_whole_line();

  // What is in the file survives a loss of power. Errors: those of the file.
  Result<> sync();

  // What lies before is not needed any more.
  void drop_before(std::uint64_t offset);

  std::uint64_t size() const { return stored_ + waiting_.size(); }
  std::uint64_t dropped() const { return dropped_; }
  // Whether all of it is in the file, so that a successor finds it there.
  bool is_stored() const { return waiting_.empty() && dropped_ == 0; }
  bool is_synced() const { return !dirty_; }

 private:
  void write_waiting();
  void make_file();
  void drop(std::string_view bytes);
  void bring_back();

  GapLine gap_line_;

  std::string path_;
  FileDescriptor file_;
  std::uint64_t bytes_max_ = kLogBytesMax;
  std::uint64_t stored_ = 0;  // the file's end; here begins
  std::string waiting_;       // what could not be written yet
  std::uint64_t needed_from_ = 0;
  std::uint64_t punched_to_ = 0;
  bool dirty_ = false;         // written since the last sync
  bool named_ = true;          // its name survives a loss of power, too
  std::uint64_t dropped_ = 0;  // since the last gap line, with what is in last_words_
  std::string last_words_;     // the end of it, up to twice kLastWordsBytes
};

struct SpoolOwner {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint32_t rank = 0;

  bool operator==(const SpoolOwner&) const = default;
};

struct Spool {
  SpoolOwner owner;
  SpoolFile log;
  SpoolFile steps{GapLine::omitted};

  bool on_disk() const { return log.size() + steps.size() > 0; }
};

// A new or an old one; a new one has no files before something is written. After an error (a full
// disk) it is in memory only.
Result<> open_spool(const std::filesystem::path& spools, const SpoolOwner& owner, Spool& out);

// Those that an earlier worker left in the folder.
std::vector<SpoolOwner> find_spools(const std::filesystem::path& spools);

// Marks what it finds there of another boot of this machine: what was not synced may be gone. What
// is made from here on is of this one.
void mark_boot(const std::filesystem::path& spools, const std::string& boot_id);
bool is_cut(const std::filesystem::path& spools, const SpoolOwner& owner);

// Those of one worker, by process.
class Spools {
 public:
  using Stream = SpoolFile Spool::*;

  explicit Spools(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // Where it is open already nothing happens. Errors: those of open_spool.
  Result<> open(const SpoolOwner& owner);
  // Not of one that rests.
  Spool* find(ProcessId process);
  const Spool* find(ProcessId process) const;

  // Nothing more will be written to it. One that a full disk keeps in memory, or whose step records
  // are not synced, stays open.
  void rest(ProcessId process);
  std::size_t resting() const { return resting_.size(); }

  // Also of one that rests, of which `bytes_max` is what it is known to have: blank lines stand for
  // what somebody has removed.
  std::string read(ProcessId process, Stream stream, std::uint64_t offset,
                   std::uint64_t bytes_max) const;
  void drop_before(ProcessId process, Stream stream, std::uint64_t offset);
  void remove(ProcessId process);

  // The step records of all processes that the job has had here. Returns the last error.
  Result<> sync_steps(JobId job);
  // Whether a successor finds everything in the files.
  bool all_stored() const;

 private:
  Result<SpoolFile> wake(const SpoolOwner& owner, Stream stream) const;

  std::filesystem::path folder_;
  std::map<ProcessId, Spool> open_;
  std::map<ProcessId, SpoolOwner> resting_;
};

}  // namespace tutti::worker
