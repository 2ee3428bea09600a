#include "coordinator/store/step_index.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>

namespace tutti::coordinator {

namespace {

constexpr std::uint64_t kMagic = 0x3158444e49505453ULL;  // "STPINDX1"
constexpr std::size_t kHeaderBytes = 64;
constexpr std::size_t kCellsPerRead = 2048;

// FNV-1a over words.
std::uint64_t hash_of(std::initializer_list<std::uint64_t> words) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const std::uint64_t word : words) hash = (hash ^ word) * 0x100000001b3ULL;
  return hash;
}

// Fewer bytes at the end of the file.
std::size_t read_at(int file, std::uint64_t at, void* out, std::size_t size) {
  std::size_t got = 0;
  while (got < size) {
    const ssize_t count =
        ::pread(file, static_cast<char*>(out) + got, size - got, static_cast<off_t>(at + got));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    got += static_cast<std::size_t>(count);
  }
  return got;
}

}  // namespace

std::uint64_t StepIndex::check_of(const Header& header) {
  return hash_of({header.magic, header.covered, header.count, header.newest});
}

std::uint64_t StepIndex::check_of(std::uint64_t step, const Cell& cell) {
  return hash_of({step, cell.offset, cell.size});
}

std::uint64_t StepIndex::place_of(std::uint64_t step) { return kHeaderBytes + step * sizeof(Cell); }

// What a crash left behind the last header counts for nothing.
bool StepIndex::counts(const Cell& cell) const {
  return cell.size != 0 && cell.offset < header_.covered;
}

bool StepIndex::is_sound(std::uint64_t step, const Cell& cell) const {
  return cell.check == check_of(step, cell) && cell.size <= header_.covered - cell.offset &&
         cell.size <= std::numeric_limits<std::uint32_t>::max();
}

Result<FileDescriptor> StepIndex::open_file(int flags) const {
  FileDescriptor file(::open(path_.c_str(), flags | O_CLOEXEC, 0600));
  if (!file) return errno_error("cannot open " + path_.string(), errno);
  return file;
}

StepIndex StepIndex::open(const std::filesystem::path& folder, std::uint64_t bytes) {
  StepIndex out(folder / "steps.index");
  const Result<FileDescriptor> file = out.open_file(O_RDONLY);
  Header header;
  if (!file || read_at(file->get(), 0, &header, sizeof header) != sizeof header) return out;
  const bool sound = header.magic == kMagic && header.check == check_of(header) &&
                     header.newest <= kStepMax && header.count <= kStepMax;
  if (sound && header.covered <= bytes) out.header_ = header;
  return out;
}

Result<> StepIndex::write(int file, std::uint64_t at, const void* bytes, std::size_t size) const {
  std::size_t done = 0;
  while (done < size) {
    const ssize_t count = ::pwrite(file, static_cast<const char*>(bytes) + done, size - done,
                                   static_cast<off_t>(at + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_error("cannot write to " + path_.string(), errno);
    done += static_cast<std::size_t>(count);
  }
  return {};
}

Result<> StepIndex::add(const Rows& rows, std::uint64_t covered) {
  // Of other records, or damaged: nothing of it may come to count again.
  const int anew = header_.magic == 0 ? O_TRUNC : 0;
  const Result<FileDescriptor> file = open_file(O_RDWR | O_CREAT | anew);
  if (!file) return file.error();
  std::vector<Cell> run;  // of steps that follow each other
  for (auto row = rows.begin(); row != rows.end(); ++row) {
    Cell cell{.offset = row->second.offset, .size = row->second.size};
    cell.check = check_of(row->first, cell);
    run.push_back(cell);
    const auto after = std::next(row);
    if (after != rows.end() && after->first == row->first + 1) continue;
    const std::uint64_t first = row->first + 1 - run.size();
    Result<> written = write(file->get(), place_of(first), run.data(), run.size() * sizeof(Cell));
    if (!written) return written;
    run.clear();
  }
  if (::fdatasync(file->get()) != 0) return errno_error("cannot sync " + path_.string(), errno);
  Header next{.magic = kMagic,
              .covered = covered,
              .count = header_.count + rows.size(),
              .newest = std::max(header_.newest, rows.empty() ? 0 : rows.rbegin()->first)};
  next.check = check_of(next);
  if (Result<> written = write(file->get(), 0, &next, sizeof next); !written) return written;
  header_ = next;
  return {};
}

Error StepIndex::damaged(std::uint64_t step) const {
  return {ErrorCode::corrupt, fmt::format("{} is damaged at step {}; remove it: it is made anew",
                                          path_.string(), step)};
}

Result<std::optional<StepIndex::Row>> StepIndex::find(std::uint64_t step) const {
  if (step > header_.newest || header_.count == 0) return std::optional<Row>();
  const Result<FileDescriptor> file = open_file(O_RDONLY);
  if (!file) return file.error();
  Cell cell;
  static_cast<void>(read_at(file->get(), place_of(step), &cell, sizeof cell));
  if (!counts(cell)) return std::optional<Row>();
  if (!is_sound(step, cell)) return damaged(step);
  return std::optional<Row>(Row{cell.offset, static_cast<std::uint32_t>(cell.size)});
}

Result<StepIndex::Rows> StepIndex::next(std::uint64_t after, std::size_t count_max) const {
  Rows out;
  if (header_.count == 0 || after >= header_.newest) return out;
  const Result<FileDescriptor> file = open_file(O_RDONLY);
  if (!file) return file.error();
  std::vector<Cell> cells;
  for (std::uint64_t step = after + 1; step <= header_.newest && out.size() < count_max;) {
    // Holes of any size are passed at once.
    const off_t data = ::lseek(file->get(), static_cast<off_t>(place_of(step)), SEEK_DATA);
    if (data < 0) break;
    const auto at = static_cast<std::uint64_t>(data);
    if (at > place_of(step)) step = std::max(step, (at - kHeaderBytes) / sizeof(Cell));
    if (step > header_.newest) break;
    cells.resize(std::min<std::uint64_t>({kCellsPerRead, header_.newest - step + 1,
                                          std::max<std::size_t>(count_max - out.size(), 1)}));
    const std::size_t bytes =
        read_at(file->get(), place_of(step), cells.data(), cells.size() * sizeof(Cell));
    for (std::size_t i = 0; i < bytes / sizeof(Cell) && out.size() < count_max; ++i) {
      const Cell& cell = cells[i];
      if (!counts(cell)) continue;
      if (!is_sound(step + i, cell)) return damaged(step + i);
      out.emplace(step + i, Row{cell.offset, static_cast<std::uint32_t>(cell.size)});
    }
    if (bytes < sizeof(Cell)) break;
    step += bytes / sizeof(Cell);
  }
  return out;
}

}  // namespace tutti::coordinator
