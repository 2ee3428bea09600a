#include "ops/cli/disks/disk_measures.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "protocol/base/file.h"
#include "protocol/base/rng.h"

namespace tutti::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPieceBytes = std::size_t{4} << 20;
constexpr std::size_t kAlignment = 4096;  // of memory and places, for all file systems that we know
constexpr std::size_t kSyncBytes = 4096;
constexpr std::size_t kSyncsOfDisk = 21;
constexpr double kMb = 1e6;

using Piece = std::unique_ptr<std::byte, decltype(&std::free)>;
Piece make_piece() {
  return {static_cast<std::byte*>(std::aligned_alloc(kAlignment, kPieceBytes)), &std::free};
}

// No disk and no file system finds anything in it to pack or to share.
void fill(std::byte* piece, std::uint64_t number) {
  Rng rng(number + 1);
  for (std::size_t at = 0; at < kPieceBytes; at += sizeof(std::uint64_t)) {
    const std::uint64_t word = rng.next();
    std::memcpy(piece + at, &word, sizeof word);
  }
}

// The number of a piece at the begin of each of its blocks.
void stamp(std::byte* piece, std::uint64_t number) {
  for (std::size_t at = 0; at < kPieceBytes; at += kAlignment)
    std::memcpy(piece + at, &number, sizeof number);
}

class DiskBench {
 public:
  DiskBench(const DiskMeasures& measures, const DiskWords& words)
      : measures_(measures), words_(words), out_(make_piece()), in_(make_piece()) {
    fill(out_.get(), 0);
  }

  Result<> run() {
    const std::pair<std::array<const char*, 2>, Result<DiskSpeed> (DiskBench::*)()> all[] = {
        {{"free space", "bytes"}, &DiskBench::look_at_space},
        {{"write", "MB/s"}, &DiskBench::write},
        {{"sync", "ms"}, &DiskBench::sync},
        {{"slowest sync", "ms"}, &DiskBench::slowest},
        {{"read", "MB/s"}, &DiskBench::read}};
    for (const auto& [name, take] : all) {
      words_.begins(name[0], name[1]);
      const Result<DiskSpeed> speed = (this->*take)();
      words_.ended(speed);
      if (!speed) return speed.error();
    }
    return {};
  }

 private:
  Error failed(const std::string& what) const {
    return errno_error(what + " in " + measures_.folder.string(), errno);
  }

  Result<DiskSpeed> look_at_space() {
    struct statvfs status {};
    if (::statvfs(measures_.folder.c_str(), &status) != 0) return failed("cannot look");
    const std::uint64_t free = std::uint64_t{status.f_bavail} * status.f_frsize;
    pieces_max_ = std::min(measures_.bytes_max, free / 10) / kPieceBytes;
    return DiskSpeed{.value = static_cast<double>(free)};
  }

  Result<> open() {
    if (measures_.nameless)
      file_.reset(::open(measures_.folder.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
    if (!file_) {
      const fs::path file = measures_.folder / fmt::format(".tutti-check.{}", ::getpid());
      file_.reset(::open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
      if (!file_) return failed("cannot make a file");
      if (::unlink(file.c_str()) != 0) return failed("cannot remove a file");
    }
    direct_ = measures_.past_the_cache && set_direct(O_DIRECT);
    return {};
  }

  bool set_direct(int flag) const {
    const int flags = ::fcntl(file_.get(), F_GETFL);
    return flags >= 0 && ::fcntl(file_.get(), F_SETFL, (flags & ~O_DIRECT) | flag) == 0;
  }

  // The whole piece at its place.
  Result<> write_piece(std::uint64_t number) {
    std::size_t done = 0;
    while (done < kPieceBytes) {
      const auto at = static_cast<off_t>(number * kPieceBytes + done);
      const auto count = ::pwrite(file_.get(), out_.get() + done, kPieceBytes - done, at);
      if (count > 0) {
        done += static_cast<std::size_t>(count);
      } else if (count < 0 && errno == EINVAL && direct_) {
        direct_ = false;  // it says so only now
        if (!set_direct(0)) return failed("cannot write by the page cache");
      } else if (count == 0 || errno != EINTR) {
        return failed("cannot write");
      }
    }
    return {};
  }

  Result<DiskSpeed> write() {
    if (pieces_max_ == 0) {
      return Error{ErrorCode::exhausted,
                   fmt::format("not measured: ten times {} MiB are not free", kPieceBytes >> 20)};
    }
    if (auto opened = open(); !opened) return std::move(opened).error();
    const Instant begun = monotonic_now();
    Duration stamping{};
    while (pieces_ < pieces_max_ && monotonic_now() - begun < DiskMeasures::kEach) {
      const Instant from = monotonic_now();
      stamp(out_.get(), pieces_);
      stamping += monotonic_now() - from;
      if (auto written = write_piece(pieces_); !written) return std::move(written).error();
      ++pieces_;
    }
    if (::fdatasync(file_.get()) != 0) return failed("cannot sync");
    return speed_of(
        pieces_, monotonic_now() - begun - stamping,
        direct_ ? "past the page cache, with a sync" : "by the page cache, with a sync");
  }

  static DiskSpeed speed_of(std::uint64_t pieces, Duration took, const char* how) {
    const double seconds = std::max(to_seconds(took), 1e-9);
    return {.value = static_cast<double>(pieces * kPieceBytes) / seconds / kMb, .how = how};
  }

  // As the ledger writes: through the page cache, and then durable.
  Result<DiskSpeed> sync() {
    if (direct_ && !set_direct(0)) return failed("cannot write by the page cache");
    stamp(out_.get(), 0);  // the first piece's own bytes, which are read again later
    const Instant begun = monotonic_now();
    while (syncs_ms_.size() < kSyncsOfDisk) {
      const Instant from = monotonic_now();
      const auto at = static_cast<off_t>(syncs_ms_.size() * kSyncBytes);
      if (::pwrite(file_.get(), out_.get() + at, kSyncBytes, at) != ssize_t{kSyncBytes} ||
          ::fdatasync(file_.get()) != 0) {
        return failed("cannot write and sync");
      }
      syncs_ms_.push_back(to_seconds(monotonic_now() - from) * 1000);
      if (from - begun >= DiskMeasures::kEach) break;
    }
    std::ranges::sort(syncs_ms_);
    return DiskSpeed{.value = syncs_ms_[syncs_ms_.size() / 2], .how = "4 KiB, the middle one"};
  }

  Result<DiskSpeed> slowest() {
    return DiskSpeed{.value = syncs_ms_.back(), .how = fmt::format("of {}", syncs_ms_.size())};
  }

  Result<DiskSpeed> read() {
    const bool direct = direct_ && set_direct(O_DIRECT);
    // Clean pages go; what other programs hold of them does not matter: it is our own file.
    if (!direct) ::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED);
    Duration took{};
    std::uint64_t number = 0;
    for (; number < pieces_ && took < DiskMeasures::kEach; ++number) {
      const Instant from = monotonic_now();
      std::size_t done = 0;
      while (done < kPieceBytes) {
        errno = EIO;  // of its end, which is none of this file
        const auto count = ::pread(file_.get(), in_.get() + done, kPieceBytes - done,
                                   static_cast<off_t>(number * kPieceBytes + done));
        if (count <= 0 && !(count < 0 && errno == EINTR)) return failed("cannot read");
        if (count > 0) done += static_cast<std::size_t>(count);
      }
      took += monotonic_now() - from;
      stamp(out_.get(), number);
      if (std::memcmp(in_.get(), out_.get(), kPieceBytes) != 0) {
        return Error{ErrorCode::corrupt, fmt::format("what was read in {} is not what was written",
                                                     measures_.folder.string())};
      }
    }
    return speed_of(
        number, took,
        direct ? "past the page cache" : "by the page cache, which was told to drop it");
  }

  const DiskMeasures& measures_;
  const DiskWords& words_;
  Piece out_;
  Piece in_;
  FileDescriptor file_;
  bool direct_ = false;
  std::uint64_t pieces_max_ = 0;
  std::uint64_t pieces_ = 0;  // written
  std::vector<double> syncs_ms_;
};

}  // namespace

Result<> measure_disk(const DiskMeasures& measures, const DiskWords& words) {
  return DiskBench(measures, words).run();
}

}  // namespace tutti::cli
