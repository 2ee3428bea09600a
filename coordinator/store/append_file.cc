#include "coordinator/store/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace tutti::coordinator {

Result<AppendFile> AppendFile::open(const std::filesystem::path& path, MakeFile make) {
  AppendFile out(path.string());
  out.file_.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!out.file_ && errno != ENOENT) return errno_error("cannot open " + out.path_, errno);
  if (!out.file_) {
    if (make == MakeFile::when_appended) return out;
    if (Result<> made = out.make(); !made) return made.error();
  }
  struct stat status {};
  if (::fstat(out.file_.get(), &status) != 0) return errno_error("cannot read " + out.path_, errno);
  out.there_ = true;
  out.size_ = static_cast<std::uint64_t>(status.st_size);
  out.dirty_ = true;
  return out;
}

Result<> AppendFile::make() {
  const FileDescriptor made(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!made) return errno_error("cannot make " + path_, errno);
  if (Result<> synced = sync_folder(std::filesystem::path(path_).parent_path()); !synced) {
    ::unlink(path_.c_str());  // or the next one takes it for a file with a durable name
    return synced;
  }
  there_ = true;
  return wake();
}

void AppendFile::rest() const {
  if (!dirty_ && !failed_) file_.reset();
}

Result<> AppendFile::wake() const {
  if (file_) return {};
  FileDescriptor file(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  if (!file) return errno_error("cannot open " + path_, errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return errno_error("cannot read " + path_, errno);
  if (static_cast<std::uint64_t>(status.st_size) != size_) {
    return Error{ErrorCode::corrupt, path_ + " was changed by somebody else"};
  }
  file_ = std::move(file);
  return {};
}

Result<> AppendFile::append(std::string_view bytes) {
  if (failed_) return Error{ErrorCode::unavailable, "a sync of " + path_ + " failed"};
  if (bytes.empty()) return {};
  if (Result<> ready = there_ ? wake() : make(); !ready) return ready;
  std::uint64_t at = size_;
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const Error error = errno_error("cannot append to " + path_, errno);
      // What was written of it lies behind size_ and is written over; cut it if that is possible.
      static_cast<void>(::ftruncate(file_.get(), static_cast<off_t>(size_)) == 0);
      return error;
    }
    at += static_cast<std::uint64_t>(count);
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
  size_ = at;
  dirty_ = true;
  return {};
}

Result<> AppendFile::sync() {
  if (failed_) return Error{ErrorCode::unavailable, "a sync of " + path_ + " failed"};
  if (!dirty_) return {};
  if (::fdatasync(file_.get()) != 0) {
    const Error error = errno_error("cannot sync " + path_, errno);
    failed_ = true;
    // A disk that refuses this does not let the file be opened for writing again either.
    static_cast<void>(::ftruncate(file_.get(), static_cast<off_t>(synced_)) == 0);
    size_ = synced_;
    return error;
  }
  dirty_ = false;
  synced_ = size_;
  return {};
}

Result<> AppendFile::cut(std::uint64_t bytes) {
  if (Result<> awake = wake(); !awake) return awake;
  if (::ftruncate(file_.get(), static_cast<off_t>(bytes)) != 0)
    return errno_error("cannot cut " + path_, errno);
  size_ = bytes;
  synced_ = std::min(synced_, bytes);
  dirty_ = true;
  return {};
}

Result<std::string> AppendFile::read(std::uint64_t offset, std::size_t bytes_max) const {
  if (!there_) return std::string();
  if (Result<> awake = wake(); !awake) return awake.error();
  std::string out(bytes_max, '\0');
  std::size_t got = 0;
  while (got < bytes_max) {
    const ssize_t count =
        ::pread(file_.get(), out.data() + got, bytes_max - got, static_cast<off_t>(offset + got));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_error("cannot read " + path_, errno);
    if (count == 0) break;
    got += static_cast<std::size_t>(count);
  }
  out.resize(got);
  return out;
}

}  // namespace tutti::coordinator
