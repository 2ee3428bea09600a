#include "kernels/collective/link_stream.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>

namespace tutti::kernels {
namespace {

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

Error closed_error() { return {ErrorCode::unavailable, "it closed its connection"}; }

Error socket_error(const char* what) {
  return {ErrorCode::unavailable, errno_error(what, errno).message};
}

}  // namespace

Result<std::size_t> LinkStream::send(std::span<const iovec> parts) {
  if (rings_ != nullptr) {
    if (rings_->other_closed()) return closed_error();
    auto written = rings_->write(parts);
    if (written && *written > 0) ring_if_waiting();
    return written;
  }
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());  // sendmsg() does not write to them
  message.msg_iovlen = parts.size();
  const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) return static_cast<std::size_t>(sent);
  if (would_block(errno)) return std::size_t{0};
  return socket_error("sending failed");
}

Result<std::size_t> LinkStream::receive(std::span<std::byte> target) {
  if (rings_ != nullptr) {
    auto got = rings_->read(target);
    if (got && *got > 0) ring_if_waiting();
    if (got && *got == 0 && hung_up_) return closed_error();
    return got;
  }
  const ssize_t got = ::recv(socket_.get(), target.data(), target.size(), MSG_DONTWAIT);
  if (got > 0) return static_cast<std::size_t>(got);
  if (got == 0) return closed_error();
  if (would_block(errno)) return std::size_t{0};
  return socket_error("receiving failed");
}

bool LinkStream::peek(std::span<std::byte> target) {
  if (rings_ != nullptr) return rings_->peek(target);
  const ssize_t seen = ::recv(socket_.get(), target.data(), target.size(), MSG_DONTWAIT | MSG_PEEK);
  return seen == static_cast<ssize_t>(target.size());
}

void LinkStream::ring_if_waiting() {
  if (!rings_->wants_ringing()) return;
  const std::byte one{};
  // A full socket is readable already, and the end of a closed one is seen by poll.
  (void)::send(socket_.get(), &one, sizeof(one), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void LinkStream::take_rings_of_bell() {
  std::array<std::byte, 64> taken;
  (void)::recv(socket_.get(), taken.data(), taken.size(), MSG_DONTWAIT);
}

void LinkStream::close(std::span<std::byte> last) noexcept {
  const iovec part{last.data(), last.size()};
  if (!last.empty()) (void)send(std::span(&part, 1));
  if (rings_ != nullptr) rings_->close();
  socket_.reset();
}

}  // namespace tutti::kernels
