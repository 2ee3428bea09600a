#include "worker/agent/spool.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>

#include "protocol/base/log.h"

namespace tutti::worker {

namespace {

// Holes are made in pieces of this size: one call for a chunk or four, not for each line.
constexpr std::uint64_t kHoleBytes = std::uint64_t{1} << 20;
// Room that must be free again before a gap line is written, so that gaps are few.
constexpr std::uint64_t kRoomBytes = std::uint64_t{8} << 20;

// Longer than any step record.
constexpr std::uint64_t kLineBytesMax = std::uint64_t{128} << 10;

std::string gap_text(std::uint64_t bytes) {
  return "\n[tutti: " + std::to_string(bytes) + " bytes of output were dropped here]\n";
}

bool take_field(std::string_view& text, std::string_view name, std::uint64_t& out) {
  if (!text.starts_with(name)) return false;
  text.remove_prefix(name.size());
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (text.starts_with(".")) text.remove_prefix(1);
  return true;
}

std::string folder_name(const SpoolOwner& owner) {
  return "job-" + to_string(owner.job) + ".generation-" + to_string(owner.generation) +
         ".process-" + to_string(owner.process) + ".rank-" + std::to_string(owner.rank);
}

std::optional<SpoolOwner> owner_of(std::string_view name) {
  SpoolOwner out;
  std::uint64_t rank = 0;
  if (!take_field(name, "job-", out.job.value)) return std::nullopt;
  if (!take_field(name, "generation-", out.generation.value)) return std::nullopt;
  if (!take_field(name, "process-", out.process.value)) return std::nullopt;
  if (!take_field(name, "rank-", rank) || !name.empty()) return std::nullopt;
  out.rank = static_cast<std::uint32_t>(rank);
  return out;
}

}  // namespace

Result<> SpoolFile::open(const std::filesystem::path& path, std::uint64_t bytes_max) {
  bytes_max_ = bytes_max;
  path_ = path.string();
  file_.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file_ && errno == ENOENT) return {};
  if (!file_) return errno_error("cannot open " + path.string(), errno);
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0) {
    return errno_error("cannot read " + path.string(), errno);
  }
  stored_ = static_cast<std::uint64_t>(status.st_size);
  // Nobody knows how far an earlier worker came with it.
  dirty_ = stored_ > 0;
  named_ = false;
  return {};
}

void SpoolFile::make_file() {
  if (path_.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), ignored);
  file_.reset(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  named_ = false;
}

void SpoolFile::write_waiting() {
  if (!file_ && !waiting_.empty()) make_file();
  std::size_t done = 0;
  while (file_ && done < waiting_.size()) {
    const ssize_t count = ::pwrite(file_.get(), waiting_.data() + done, waiting_.size() - done,
                                   static_cast<off_t>(stored_ + done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    done += static_cast<std::size_t>(count);
  }
  stored_ += done;
  waiting_.erase(0, done);
  dirty_ = dirty_ || done > 0;
}

Result<> SpoolFile::sync() {
  if (!dirty_ || !file_) return {};
  if (::fdatasync(file_.get()) != 0) return errno_error("cannot sync " + path_, errno);
  dirty_ = false;
  if (named_) return {};
  const std::filesystem::path own = std::filesystem::path(path_).parent_path();
  for (const auto& folder : {own, own.parent_path()}) {
    if (Result<> synced = sync_folder(folder); !synced) return synced;
  }
  named_ = true;
  return {};
}

std::uint64_t SpoolFile::append(std::string_view bytes) {
  write_waiting();
  // Once something was dropped there must be room for more than a moment.
  const std::uint64_t disk_room = dropped_ > 0 ? std::min(kRoomBytes, bytes_max_ / 2) : 0;
  const std::uint64_t memory_room = dropped_ > 0 ? kWaitingBytesMax / 2 : 0;
  const std::uint64_t unacknowledged = size() - std::min(needed_from_, size());
  if (unacknowledged + bytes.size() + disk_room > bytes_max_ ||
      waiting_.size() + bytes.size() + memory_room > kWaitingBytesMax) {
    drop(bytes);
    return size();
  }
  bring_back();
  waiting_ += bytes;
  write_waiting();
  return size();
}

void SpoolFile::drop(std::string_view bytes) {
  dropped_ += bytes.size();
  last_words_ += bytes.substr(bytes.size() - std::min(bytes.size(), kLastWordsBytes));
  if (last_words_.size() > 2 * kLastWordsBytes) {
    last_words_.erase(0, last_words_.size() - kLastWordsBytes);
  }
}

void SpoolFile::bring_back() {
  if (dropped_ == 0) return;
  if (last_words_.size() < dropped_) {
    // From the first whole line on.
    last_words_.erase(0, std::min(last_words_.find('\n'), last_words_.size() - 1) + 1);
    if (gap_line_ == GapLine::written) waiting_ += gap_text(dropped_ - last_words_.size());
  }
  waiting_ += last_words_;
  last_words_.clear();
  dropped_ = 0;
}

std::uint64_t SpoolFile::finish() {
  bring_back();
  write_waiting();
  return size();
}

std::string SpoolFile::read(std::uint64_t offset, std::uint64_t bytes_max) const {
  const std::uint64_t from = std::min(offset, size());
  const std::uint64_t to = std::min(size(), from + bytes_max);
  std::string out(static_cast<std::size_t>(std::min(to, std::max(from, stored_)) - from), '\n');
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t count =
        ::pread(file_.get(), out.data() + done, out.size() - done, static_cast<off_t>(from + done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    done += static_cast<std::size_t>(count);
  }
  if (to > stored_) {
    const std::uint64_t skipped = std::max(from, stored_) - stored_;
    out.append(waiting_, static_cast<std::size_t>(skipped),
               static_cast<std::size_t>(to - stored_ - skipped));
  }
  return out;
}

void SpoolFile::end_at_whole_line() {
  const std::uint64_t tail = std::min<std::uint64_t>(stored_, kLineBytesMax);
  const std::string end = read(stored_ - tail, tail);
  const std::uint64_t cut = end.size() - (end.rfind('\n') + 1);  // npos + 1 is 0: all of it
  stored_ -= cut;
}

void SpoolFile::drop_before(std::uint64_t offset) {
  needed_from_ = std::max(needed_from_, std::min(offset, size()));
  if (needed_from_ > stored_) {
    waiting_.erase(0, static_cast<std::size_t>(needed_from_ - stored_));
    stored_ = needed_from_;
  }
  if (!file_ || needed_from_ - punched_to_ < kHoleBytes) return;
  // Where the file system knows no holes the space comes back when the spool is removed.
  [[maybe_unused]] const int punched =
      ::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  static_cast<off_t>(punched_to_), static_cast<off_t>(needed_from_ - punched_to_));
  punched_to_ = needed_from_;
}

namespace {

constexpr const char* kLogName = "log";
constexpr const char* kStepsName = "steps";
constexpr const char* kCutName = "cut";
constexpr const char* kBootName = "boot";  // of the machine, in the folder of all

}  // namespace

Result<> open_spool(const std::filesystem::path& spools, const SpoolOwner& owner, Spool& out) {
  out.owner = owner;
  const std::filesystem::path folder = spools / folder_name(owner);
  if (auto opened = out.log.open(folder / kLogName, kLogBytesMax); !opened) return opened;
  auto opened = out.steps.open(folder / kStepsName, kLogBytesMax);
  if (opened) out.steps.end_at_whole_line();
  return opened;
}

std::vector<SpoolOwner> find_spools(const std::filesystem::path& spools) {
  std::vector<SpoolOwner> out;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(spools, failed)) {
    if (auto owner = owner_of(entry.path().filename().string())) out.push_back(*owner);
  }
  std::sort(out.begin(), out.end(),
            [](const SpoolOwner& a, const SpoolOwner& b) { return a.process < b.process; });
  return out;
}

// A mark that cannot be made is tried again by the next worker: the folder is of the old boot yet.
void mark_boot(const std::filesystem::path& spools, const std::string& boot_id) {
  constexpr std::uint64_t kBootIdBytesMax = 256;
  const std::filesystem::path file = spools / kBootName;
  const Result<std::string> before = read_file(file, kBootIdBytesMax);
  if (before && *before == boot_id) return;
  std::error_code failed;
  std::filesystem::create_directories(spools, failed);
  Result<> marked;
  for (const SpoolOwner& owner : find_spools(spools)) {
    if (!before) break;  // of a version that did not say it
    if (marked) marked = write_file_atomically(spools / folder_name(owner) / kCutName, "");
  }
  if (marked) marked = write_file_atomically(file, boot_id);
  if (!marked) {
    TUTTI_LOG_WARNING("worker", "that logs may lack their ends is not said: {}",
                      marked.error().message);
  }
}

bool is_cut(const std::filesystem::path& spools, const SpoolOwner& owner) {
  std::error_code failed;
  return std::filesystem::exists(spools / folder_name(owner) / kCutName, failed);
}

Result<> Spools::open(const SpoolOwner& owner) {
  resting_.erase(owner.process);
  const auto [at, made] = open_.try_emplace(owner.process);
  return made ? open_spool(folder_, owner, at->second) : Result<>{};
}

Spool* Spools::find(ProcessId process) {
  const auto at = open_.find(process);
  return at == open_.end() ? nullptr : &at->second;
}

const Spool* Spools::find(ProcessId process) const {
  const auto at = open_.find(process);
  return at == open_.end() ? nullptr : &at->second;
}

void Spools::rest(ProcessId process) {
  const Spool* spool = find(process);
  if (spool == nullptr || !spool->log.is_stored() || !spool->steps.is_stored()) return;
  if (!spool->steps.is_synced()) return;
  if (spool->on_disk()) resting_[process] = spool->owner;
  open_.erase(process);
}

Result<SpoolFile> Spools::wake(const SpoolOwner& owner, Stream stream) const {
  SpoolFile file;
  const char* name = stream == &Spool::log ? kLogName : kStepsName;
  if (auto opened = file.open(folder_ / folder_name(owner) / name, kLogBytesMax); !opened)
    return opened.error();
  return file;
}

std::string Spools::read(ProcessId process, Stream stream, std::uint64_t offset,
                         std::uint64_t bytes_max) const {
  if (const Spool* spool = find(process)) return (spool->*stream).read(offset, bytes_max);
  const auto at = resting_.find(process);
  if (at == resting_.end()) return {};
  const auto file = wake(at->second, stream);
  if (!file) return {};  // it is asked for again
  std::string out = file->read(offset, bytes_max);
  out.resize(static_cast<std::size_t>(bytes_max), '\n');
  return out;
}

void Spools::drop_before(ProcessId process, Stream stream, std::uint64_t offset) {
  if (Spool* spool = find(process)) return (spool->*stream).drop_before(offset);
  const auto at = resting_.find(process);
  // Most of them are short: no hole is made in them, they are removed as a whole.
  if (at == resting_.end() || offset < kHoleBytes) return;
  if (auto file = wake(at->second, stream)) file->drop_before(offset);
}

void Spools::remove(ProcessId process) {
  const Spool* spool = find(process);
  const auto at = resting_.find(process);
  if (spool == nullptr && at == resting_.end()) return;
  std::error_code ignored;
  if (spool == nullptr || spool->on_disk()) {
    const SpoolOwner& owner = spool == nullptr ? at->second : spool->owner;
    std::filesystem::remove_all(folder_ / folder_name(owner), ignored);
  }
  open_.erase(process);
  if (at != resting_.end()) resting_.erase(at);
}

Result<> Spools::sync_steps(JobId job) {
  Result<> out;
  for (auto& [process, spool] : open_) {
    if (spool.owner.job != job) continue;
    if (Result<> synced = spool.steps.sync(); !synced) out = synced;
  }
  return out;
}

bool Spools::all_stored() const {
  return std::all_of(open_.begin(), open_.end(), [](const auto& each) {
    return each.second.log.is_stored() && each.second.steps.is_stored();
  });
}

}  // namespace tutti::worker
