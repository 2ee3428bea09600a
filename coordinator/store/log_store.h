// The log of one job as the coordinator keeps it: the output of all its processes, in the order in
// which it arrived.
//
//   <folder>/log-00000000000000000000   records: header, bytes    a cursor is a position in all
//   that was ever appended; <folder>/log-00000000000008388627   ...                       a file is
//   named by the cursor of its first record
//
// Each record is a part of one process's output with its offset there, so that a chunk sent twice
// is kept once. Bytes that their worker gave up after an earlier store had taken them (a state
// folder that was put back) are a record that says how many. Of a process whose machine went down
// the last line says that what it wrote last may be missing. A record cut short by a crash is
// dropped when the store is opened; it was not acknowledged.
//
// Threads: one at a time. Limits: kSegmentBytes a file; kLogBytesPerRank for each rank seen, then
// the oldest file is dropped and readers get a chunk that says so. Errors: those of the files;
// `exhausted` on a full disk leaves the store as it was.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "coordinator/store/append_file.h"
#include "protocol/base/ids.h"
#include "protocol/base/result.h"
#include "protocol/wire/worker_messages.h"

namespace tutti::coordinator {

struct LogChunk {
  ProcessId process;
  Generation generation;
  std::uint32_t rank = 0;
  std::string bytes;
  // Not 0: so many bytes are missing here, of the whole job (nothing else is set) or of a process.
  std::uint64_t gap_bytes = 0;

  bool operator==(const LogChunk&) const = default;
};

struct LogPage {
  std::vector<LogChunk> chunks;
  std::uint64_t next = 0;
};

struct SpoolTaken {
  std::uint64_t offset = 0;  // to acknowledge
  bool end = false;
  bool known = false;  // nothing of it is new
};

class LogStore {
 public:
  static constexpr std::uint64_t kSegmentBytes = std::uint64_t{8} << 20;
  static constexpr std::uint64_t kLogBytesPerRank = std::uint64_t{64} << 20;

  // `folder` is there.
  static Result<LogStore> open(const std::filesystem::path& folder);

  // Not durable before sync. What is known already is not kept again.
  Result<SpoolTaken> append(const wire::SpoolData& data);
  Result<> sync();

  // Whole records from the cursor `after` on, of one rank or all, about `bytes_max` at most.
  Result<LogPage> read(std::uint64_t after, std::optional<std::uint32_t> rank,
                       std::size_t bytes_max) const;

  // Whether every process that ever sent something has sent its end.
  bool all_ended() const { return open_processes_.empty(); }
  bool has_ended(ProcessId process) const {
    return received_.contains(process) && !open_processes_.contains(process);
  }
  // Holds no descriptor until it is asked for something, if all is synced.
  void rest() const { last_.rest(); }
  std::uint64_t end() const { return start_of_last_ + last_.size(); }

 private:
  LogStore(std::filesystem::path folder, std::uint64_t start_of_last, AppendFile last)
      : folder_(std::move(folder)), start_of_last_(start_of_last), last_(std::move(last)) {}

  Result<> scan(std::uint64_t start, AppendFile& file, bool newest);
  Result<> drop_oldest();
  Result<> begin_segment();
  Result<> append_gap(const wire::SpoolData& data, std::uint64_t have);
  Result<SpoolTaken> append_cut(const wire::SpoolData& data, std::uint64_t have);

  std::filesystem::path folder_;
  std::set<std::uint64_t> segments_;  // starts, all files
  std::uint64_t start_of_last_ = 0;
  AppendFile last_;
  std::map<ProcessId, std::uint64_t> received_;  // bytes of each process's output
  std::set<ProcessId> open_processes_;           // whose end has not come
  std::set<std::uint32_t> ranks_;
};

}  // namespace tutti::coordinator
