#include "protocol/transport/pipe_link.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <optional>

namespace tutti::transport {

namespace {

Error ended() { return {ErrorCode::unavailable, "the other end of the pipe is closed"}; }

bool means_ended(int error_number) { return error_number == EPIPE || error_number == ECONNRESET; }

// Waits until `events` can be served or `until` has passed; false: it has passed. No `until`:
// without limit.
Result<bool> wait_for(int descriptor, short events, std::optional<Instant> until) {
  for (;;) {
    int wait_ms = -1;
    if (until) {
      const Duration left = *until - monotonic_now();
      if (left <= Duration::zero()) return false;
      // One more millisecond, since poll rounds down and would spin.
      wait_ms = static_cast<int>(
          std::min<std::int64_t>(to_ms(left) + 1, std::numeric_limits<int>::max()));
    }
    pollfd entry{descriptor, events, 0};
    const int count = ::poll(&entry, 1, wait_ms);
    if (count > 0) return true;
    if (count < 0 && errno != EINTR) return errno_error("cannot wait for the pipe", errno);
  }
}

}  // namespace

Result<std::pair<FileDescriptor, FileDescriptor>> make_pipe_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return errno_error("cannot make a socket pair", errno);
  }
  return std::pair(FileDescriptor(ends[0]), FileDescriptor(ends[1]));
}

PipeLink::PipeLink(FileDescriptor socket) : socket_(std::move(socket)) {}

Result<> PipeLink::send(std::string_view frame, Duration deadline) {
  const Instant until = monotonic_now() + deadline;
  const std::lock_guard lock(sending_);
  while (!frame.empty()) {
    const ssize_t count =
        ::send(socket_.get(), frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      frame.remove_prefix(static_cast<std::size_t>(count));
      continue;
    }
    if (errno == EINTR) continue;
    if (means_ended(errno)) return ended();
    if (errno != EAGAIN && errno != EWOULDBLOCK)
      return errno_error("cannot write to the pipe", errno);
    const Result<bool> writable = wait_for(socket_.get(), POLLOUT, until);
    if (!writable) return writable.error();
    if (!*writable) {
      shut_down();
      return Error{ErrorCode::deadline_exceeded, "the other end of the pipe does not read"};
    }
  }
  return {};
}

Result<> PipeLink::read_exactly(char* to, std::size_t bytes) {
  while (bytes > 0) {
    const ssize_t count = ::recv(socket_.get(), to, bytes, MSG_WAITALL);
    if (count < 0 && errno == EINTR) continue;
    if (count == 0 || (count < 0 && means_ended(errno))) return ended();
    if (count < 0) return errno_error("cannot read from the pipe", errno);
    to += count;
    bytes -= static_cast<std::size_t>(count);
  }
  return {};
}

Result<std::string> PipeLink::receive() {
  std::string frame(wire::kFrameHeaderBytes, '\0');
  if (Result<> read = read_exactly(frame.data(), frame.size()); !read) return read.error();
  const Result<wire::FrameHeader> header = wire::decode_header(frame);
  if (!header) return header.error();
  frame.resize(wire::kFrameHeaderBytes + header->length);
  if (Result<> read = read_exactly(frame.data() + wire::kFrameHeaderBytes, header->length); !read) {
    return read.error();
  }
  return frame;
}

Result<std::string> PipeLink::receive_within(Duration deadline) {
  const Result<bool> readable = wait_for(socket_.get(), POLLIN, monotonic_now() + deadline);
  if (!readable) return readable.error();
  if (!*readable) return Error{ErrorCode::deadline_exceeded, "no frame within the deadline"};
  return receive();
}

void PipeLink::shut_down() { ::shutdown(socket_.get(), SHUT_RDWR); }

}  // namespace tutti::transport
