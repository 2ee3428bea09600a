#include "coordinator/store/log_store.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "protocol/wire/frame.h"

namespace tutti::coordinator {

namespace {

constexpr std::uint32_t kRecordMagic = 0x474f4c54;  // "TLOG"
constexpr std::uint32_t kFlagEnd = 1;
// The bytes are a number: of so many before `offset` nothing is known.
constexpr std::uint32_t kFlagGap = 2;
using GapBytes = std::uint64_t;

// As it lies in the file; little endian like every machine this runs on.
struct RecordHeader {
  std::uint32_t magic = kRecordMagic;
  std::uint32_t size = 0;
  std::uint64_t process = 0;
  std::uint64_t generation = 0;
  std::uint64_t offset = 0;  // in the process's output
  std::uint32_t rank = 0;
  std::uint32_t flags = 0;
  std::uint64_t check = 0;  // of the bytes
};
static_assert(sizeof(RecordHeader) == 48);

// FNV-1a, 64 bits: tells a record that a crash cut short, no more.
std::uint64_t check_of(std::string_view bytes) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

std::string segment_name(std::uint64_t start) { return fmt::format("log-{:020}", start); }

std::optional<std::uint64_t> start_of(const std::string& name) {
  if (!name.starts_with("log-")) return std::nullopt;
  std::uint64_t start = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + 4, end, start);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return start;
}

// The header at the beginning of `bytes`, if there is a sound one.
std::optional<RecordHeader> header_of(std::string_view bytes) {
  RecordHeader header;
  if (bytes.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kRecordMagic || header.size > wire::kSpoolChunkBytesMax) return std::nullopt;
  return header;
}

constexpr const char* kCutLine =
    "\n[tutti: the machine went down here, and what was written last may be missing]\n";

bool is_gap(const RecordHeader& header) {
  return (header.flags & kFlagGap) != 0 && header.size == sizeof(GapBytes);
}

std::string record_of(const RecordHeader& header, std::string_view bytes) {
  std::string out(reinterpret_cast<const char*>(&header), sizeof header);
  return out.append(bytes);
}

LogChunk chunk_of(const RecordHeader& header, std::string_view bytes) {
  LogChunk out{.process = ProcessId{header.process},
               .generation = Generation{header.generation},
               .rank = header.rank,
               .bytes = {},
               .gap_bytes = 0};
  if (is_gap(header)) {
    std::memcpy(&out.gap_bytes, bytes.data(), sizeof out.gap_bytes);
  } else {
    out.bytes = bytes;
  }
  return out;
}

}  // namespace

Result<LogStore> LogStore::open(const std::filesystem::path& folder) {
  std::set<std::uint64_t> starts;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failed)) {
    if (const auto start = start_of(entry.path().filename().string())) starts.insert(*start);
  }
  if (failed) return errno_error("cannot read " + folder.string(), failed.value());
  if (starts.empty()) starts.insert(0);
  const std::uint64_t newest = *starts.rbegin();
  Result<AppendFile> last = AppendFile::open(folder / segment_name(newest));
  if (!last) return last.error();
  LogStore store(folder, newest, *std::move(last));
  store.segments_ = starts;
  for (const std::uint64_t start : starts) {
    if (start == newest) {
      if (Result<> scanned = store.scan(start, store.last_, true); !scanned) return scanned.error();
      continue;
    }
    Result<AppendFile> file = AppendFile::open(folder / segment_name(start));
    if (!file) return file.error();
    if (Result<> scanned = store.scan(start, *file, false); !scanned) return scanned.error();
  }
  return store;
}

Result<> LogStore::scan(std::uint64_t start, AppendFile& file, bool newest) {
  const Result<std::string> content = file.read(0, static_cast<std::size_t>(file.size()));
  if (!content) return content.error();
  std::size_t at = 0;
  while (at < content->size()) {
    const std::string_view rest = std::string_view(*content).substr(at);
    const auto header = header_of(rest);
    const bool whole = header && rest.size() >= sizeof *header + header->size &&
                       header->check == check_of(rest.substr(sizeof *header, header->size));
    if (!whole) break;
    const ProcessId process{header->process};
    received_[process] = header->offset + (is_gap(*header) ? 0 : header->size);
    ranks_.insert(header->rank);
    if ((header->flags & kFlagEnd) != 0) {
      open_processes_.erase(process);
    } else {
      open_processes_.insert(process);
    }
    at += sizeof *header + header->size;
  }
  if (at == content->size()) return {};
  if (newest) return file.cut(at);
  return Error{ErrorCode::corrupt, fmt::format("{}: a damaged record at {}",
                                               (folder_ / segment_name(start)).string(), at)};
}

Result<SpoolTaken> LogStore::append(const wire::SpoolData& data) {
  if (data.bytes.size() > wire::kSpoolChunkBytesMax) {
    return Error{ErrorCode::invalid_argument, "a log chunk is too long"};
  }
  const auto known = received_.find(data.process);
  const std::uint64_t have = known == received_.end() ? 0 : known->second;
  const std::uint64_t data_end = data.offset + data.bytes.size();
  const bool ended = known != received_.end() && !open_processes_.contains(data.process);
  if (data_end <= have && !(data.end && !ended)) return SpoolTaken{have, ended, true};
  if (data.end && data.cut) return append_cut(data, have);
  std::string_view bytes = data.bytes;
  std::uint64_t offset = data.offset;
  if (offset < have) {
    // All of it, where only the end is news: a worker that lost the end of its spool has less than
    // was kept here.
    bytes.remove_prefix(std::min(bytes.size(), static_cast<std::size_t>(have - offset)));
    offset = have;
  }
  ranks_.insert(data.rank);
  if (last_.size() >= kSegmentBytes) {
    if (Result<> begun = begin_segment(); !begun) return begun.error();
  }
  if (offset > have) {
    if (Result<> told = append_gap(data, have); !told) return told.error();
  }
  const RecordHeader header{.magic = kRecordMagic,
                            .size = static_cast<std::uint32_t>(bytes.size()),
                            .process = data.process.value,
                            .generation = data.generation.value,
                            .offset = offset,
                            .rank = data.rank,
                            .flags = data.end ? kFlagEnd : 0,
                            .check = check_of(bytes)};
  if (Result<> appended = last_.append(record_of(header, bytes)); !appended)
    return appended.error();
  received_[data.process] = std::max(have, data_end);
  if (data.end) {
    open_processes_.erase(data.process);
  } else {
    open_processes_.insert(data.process);
  }
  return SpoolTaken{std::max(have, data_end), data.end, false};
}

// Behind all that was kept, whatever the worker has left of it.
Result<SpoolTaken> LogStore::append_cut(const wire::SpoolData& data, std::uint64_t have) {
  wire::SpoolData part = data;
  part.cut = part.end = false;
  if (data.offset + data.bytes.size() > have) {
    if (Result<SpoolTaken> taken = append(part); !taken) return taken;
  }
  part.offset = std::max(have, data.offset + data.bytes.size());
  part.bytes = kCutLine;
  part.end = true;
  return append(part);
}

Result<> LogStore::append_gap(const wire::SpoolData& data, std::uint64_t have) {
  const GapBytes missing = data.offset - have;
  const std::string_view bytes(reinterpret_cast<const char*>(&missing), sizeof missing);
  const RecordHeader header{.magic = kRecordMagic,
                            .size = sizeof missing,
                            .process = data.process.value,
                            .generation = data.generation.value,
                            .offset = data.offset,
                            .rank = data.rank,
                            .flags = kFlagGap,
                            .check = check_of(bytes)};
  if (Result<> appended = last_.append(record_of(header, bytes)); !appended) return appended;
  received_[data.process] = data.offset;
  open_processes_.insert(data.process);
  return {};
}

Result<> LogStore::begin_segment() {
  if (Result<> synced = last_.sync(); !synced) return synced;
  const std::uint64_t start = end();
  Result<AppendFile> next = AppendFile::open(folder_ / segment_name(start));
  if (!next) return next.error();
  last_ = *std::move(next);
  start_of_last_ = start;
  segments_.insert(start);
  const std::uint64_t bytes_max = kLogBytesPerRank * ranks_.size();
  while (segments_.size() > 1 && start - *segments_.begin() > bytes_max) {
    if (Result<> dropped = drop_oldest(); !dropped) return dropped;
  }
  return {};
}

Result<> LogStore::drop_oldest() {
  std::error_code failed;
  const auto path = folder_ / segment_name(*segments_.begin());
  std::filesystem::remove(path, failed);
  if (failed) return errno_error("cannot remove " + path.string(), failed.value());
  segments_.erase(segments_.begin());
  return {};
}

Result<> LogStore::sync() { return last_.sync(); }

Result<LogPage> LogStore::read(std::uint64_t after, std::optional<std::uint32_t> rank,
                               std::size_t bytes_max) const {
  LogPage page;
  page.next = after;
  if (after > end())
    return Error{ErrorCode::invalid_argument, fmt::format("there is no log position {}", after)};
  if (const std::uint64_t first = *segments_.begin(); after < first) {
    LogChunk gap;
    gap.gap_bytes = first - after;
    page.chunks.push_back(gap);
    page.next = first;
  }
  std::size_t taken = 0;
  for (auto segment = std::prev(segments_.upper_bound(page.next));
       segment != segments_.end() && taken < bytes_max; ++segment) {
    Result<AppendFile> file = AppendFile::open(folder_ / segment_name(*segment));
    if (!file) return file.error();
    while (page.next < *segment + file->size() && taken < bytes_max) {
      const Result<std::string> bytes =
          file->read(page.next - *segment, sizeof(RecordHeader) + wire::kSpoolChunkBytesMax);
      if (!bytes) return bytes.error();
      std::string_view rest = *bytes;
      // As many whole records as were read at once.
      for (auto header = header_of(rest); header && rest.size() >= sizeof *header + header->size;
           header = header_of(rest)) {
        if ((!rank || *rank == header->rank) && header->size > 0) {
          page.chunks.push_back(chunk_of(*header, rest.substr(sizeof *header, header->size)));
          taken += header->size;
        }
        const std::size_t record = sizeof *header + header->size;
        rest.remove_prefix(record);
        page.next += record;
      }
      if (rest.size() == bytes->size()) {
        return Error{ErrorCode::invalid_argument,
                     fmt::format("{} is no log position that was given out", after)};
      }
    }
  }
  return page;
}

}  // namespace tutti::coordinator
