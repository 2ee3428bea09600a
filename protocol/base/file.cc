#include "protocol/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "protocol/base/secret.h"

namespace tutti {

void FileDescriptor::reset(int descriptor) {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = descriptor;
}

Result<std::string> read_file(const std::filesystem::path& path, std::uint64_t bytes_max) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno_error("cannot open " + path.string(), errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return errno_error("cannot read " + path.string(), errno);
  if (S_ISDIR(status.st_mode)) return errno_error("cannot read " + path.string(), EISDIR);
  std::string content;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_error("cannot read " + path.string(), errno);
    if (count == 0) return content;
    if (content.size() + static_cast<std::size_t>(count) > bytes_max) {
      return Error{ErrorCode::exhausted,
                   path.string() + " is larger than " + std::to_string(bytes_max) + " bytes"};
    }
    content.append(buffer, static_cast<std::size_t>(count));
  }
}

namespace {

Result<> write_all(int descriptor, std::string_view content) {
  while (!content.empty()) {
    const ssize_t count = ::write(descriptor, content.data(), content.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_error("write", errno);
    content.remove_prefix(static_cast<std::size_t>(count));
  }
  return {};
}

}  // namespace

Result<> write_file_atomically(const std::filesystem::path& path, std::string_view content,
                               unsigned mode) {
  const std::filesystem::path beside = path.string() + ".new-" + random_hex(4);
  FileDescriptor file(::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!file) return errno_error("cannot write " + path.string(), errno);
  Result<> written = write_all(file.get(), content);
  if (written && ::fsync(file.get()) != 0) written = errno_error("sync", errno);
  file.reset();
  if (written && ::rename(beside.c_str(), path.c_str()) != 0)
    written = errno_error("rename", errno);
  if (!written) {
    ::unlink(beside.c_str());
    return Error(written.error()).with_context("cannot write " + path.string());
  }
  return sync_folder(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
}

Result<> sync_folder(const std::filesystem::path& folder) {
  const FileDescriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return errno_error("cannot open " + folder.string(), errno);
  if (::fsync(directory.get()) != 0) return errno_error("cannot sync " + folder.string(), errno);
  return {};
}

}  // namespace tutti
