#include "kernels/collective/mesh.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>

namespace tutti::kernels {
namespace {

constexpr short kHangUp = POLLRDHUP | POLLHUP | POLLERR | POLLNVAL;

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

std::string peer_name(std::uint32_t peer) { return "rank " + std::to_string(peer); }

}  // namespace

Mesh::Mesh(std::uint32_t rank, std::vector<FileDescriptor> links, Duration operation_deadline)
    : rank_(rank), operation_deadline_(operation_deadline), links_(links.size()) {
  for (std::size_t peer = 0; peer < links.size(); ++peer) {
    links_[peer].socket = std::move(links[peer]);
  }
  polled_.reserve(links_.size() + 1);
  polled_peers_.reserve(links_.size());
}

Mesh::~Mesh() {
  for (Link& link : links_) {
    if (link.socket) say_farewell(link);
  }
}

// Only where the stream stands between two transfers; elsewhere the close itself has to tell.
void Mesh::say_farewell(Link& link) noexcept {
  if (link.send.moved != 0) return;
  const bool good = !broken_ && !aborted();
  const std::int32_t suspect = lost_peer();
  const LinkHeader farewell{good ? kLinkGoodbye : kLinkBroken,
                            suspect >= 0 ? static_cast<std::uint64_t>(suspect) : kNoSuspect};
  (void)::send(link.socket.get(), &farewell, sizeof(farewell), MSG_NOSIGNAL | MSG_DONTWAIT);
}

Result<> Mesh::exchange(std::span<const Transfer> transfers) {
  if (broken_) return *broken_;
  if (aborted()) return abort_error();
  auto done = enqueue(transfers);
  if (done) done = move_until_done();
  if (!done) broken_ = done.error();
  return done;
}

Result<> Mesh::enqueue(std::span<const Transfer> transfers) {
  operations_.fetch_add(1);
  for (std::uint32_t peer = 0; peer < size(); ++peer) {
    Link& link = links_[peer];
    link.send.restart();
    link.receive.restart();
    link.ahead = false;
  }
  for (const Transfer& transfer : transfers) {
    if (transfer.peer >= size() || transfer.peer == rank_) {
      return Error{ErrorCode::invalid_argument, "no transfer to " + peer_name(transfer.peer)};
    }
    Link& link = links_[transfer.peer];
    Lane& lane = transfer.direction == Transfer::Direction::send ? link.send : link.receive;
    lane.queue.push_back(transfer.bytes);
    // It said goodbye: nothing that is due to it or from it will ever move.
    if (link.departed) return peer_is_gone(transfer.peer, "it left the group");
  }
  return {};
}

bool Mesh::idle() const {
  return std::all_of(links_.begin(), links_.end(),
                     [](const Link& link) { return link.send.idle() && link.receive.idle(); });
}

Result<> Mesh::move_until_done() {
  // Most sends fit into the kernel's buffer at once.
  for (std::uint32_t peer = 0; peer < size(); ++peer) {
    if (links_[peer].send.idle()) continue;
    auto moved = send_some(peer);
    if (!moved) return std::move(moved).error();
  }
  const int limit_ms =
      operation_deadline_.count() > 0 ? static_cast<int>(to_ms(operation_deadline_)) + 1 : -1;
  Instant last_move = monotonic_now();
  while (!idle()) {
    bool moved_any = false;
    auto waited = wait_and_move(moved_any, limit_ms);
    if (!waited) return waited;
    const Instant now = monotonic_now();
    if (moved_any) last_move = now;
    if (operation_deadline_.count() > 0 && now - last_move > operation_deadline_) {
      return Error{ErrorCode::deadline_exceeded,
                   "no byte moved in group " + std::to_string(operations()) + " for " +
                       std::to_string(to_ms(operation_deadline_)) + " ms"};
    }
  }
  return {};
}

Result<> Mesh::look() {
  if (broken_) return *broken_;
  if (aborted()) return abort_error();
  bool moved_any = false;
  auto looked = wait_and_move(moved_any, 0);
  if (!looked) broken_ = looked.error();
  return looked;
}

Result<> Mesh::wait_and_move(bool& moved_any, int limit_ms) {
  polled_.clear();
  polled_peers_.clear();
  polled_.push_back({wakeup_.descriptor(), POLLIN, 0});
  for (std::uint32_t peer = 0; peer < size(); ++peer) {
    const Link& link = links_[peer];
    if (!link.socket || link.departed || link.ahead) continue;
    const int events =
        POLLRDHUP | (link.send.idle() ? 0 : POLLOUT) | (link.receive.idle() ? 0 : POLLIN);
    polled_.push_back({link.socket.get(), static_cast<short>(events), 0});
    polled_peers_.push_back(peer);
  }
  const int ready = ::poll(polled_.data(), polled_.size(), limit_ms);
  if (ready < 0 && errno != EINTR) return errno_error("cannot poll the links", errno);
  if (ready <= 0) return {};
  for (std::size_t i = 0; i < polled_peers_.size(); ++i) {
    const short events = polled_[i + 1].revents;
    if (events == 0) continue;
    auto handled = on_events(polled_peers_[i], events, moved_any);
    if (!handled) return handled;
  }
  // What can be finished is finished first: a group whose bytes have all arrived was not aborted.
  if (aborted() && !idle()) return abort_error();
  return {};
}

Result<> Mesh::on_events(std::uint32_t peer, short events, bool& moved_any) {
  Link& link = links_[peer];
  if (!link.receive.idle() && (events & (POLLIN | kHangUp)) != 0) {
    auto moved = receive_some(peer);
    if (!moved) return std::move(moved).error();
    moved_any = moved_any || *moved;
  }
  if (!link.send.idle() && (events & (POLLOUT | kHangUp)) != 0) {
    auto moved = send_some(peer);
    if (!moved) return std::move(moved).error();
    moved_any = moved_any || *moved;
  }
  if ((events & kHangUp) != 0 && link.receive.idle()) return on_silent_close(peer);
  return {};
}

// Sends until the kernel takes no more. True if anything moved.
Result<bool> Mesh::send_some(std::uint32_t peer) {
  Link& link = links_[peer];
  Lane& lane = link.send;
  bool any = false;
  while (!lane.idle()) {
    const std::span<std::byte> body = lane.queue[lane.next];
    lane.header = {operations(), body.size()};
    iovec parts[2];
    std::size_t count = 0;
    if (lane.moved < sizeof(LinkHeader)) {
      parts[count++] = {reinterpret_cast<std::byte*>(&lane.header) + lane.moved,
                        sizeof(LinkHeader) - lane.moved};
    }
    const std::size_t of_body =
        lane.moved > sizeof(LinkHeader) ? lane.moved - sizeof(LinkHeader) : 0;
    if (of_body < body.size()) parts[count++] = {body.data() + of_body, body.size() - of_body};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = count;
    const ssize_t sent = ::sendmsg(link.socket.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (would_block(errno)) return any;
      return peer_is_gone(peer, errno_error("sending failed", errno).message);
    }
    any = true;
    lane.moved += static_cast<std::size_t>(sent);
    if (lane.moved == sizeof(LinkHeader) + body.size()) {
      ++lane.next;
      lane.moved = 0;
    }
  }
  return any;
}

// Receives until nothing is waiting. True if anything moved.
Result<bool> Mesh::receive_some(std::uint32_t peer) {
  Link& link = links_[peer];
  Lane& lane = link.receive;
  bool any = false;
  while (!lane.idle()) {
    const std::span<std::byte> body = lane.queue[lane.next];
    const bool in_header = lane.moved < sizeof(LinkHeader);
    std::byte* const target = in_header ? reinterpret_cast<std::byte*>(&lane.header) + lane.moved
                                        : body.data() + (lane.moved - sizeof(LinkHeader));
    const std::size_t wanted =
        (in_header ? sizeof(LinkHeader) : sizeof(LinkHeader) + body.size()) - lane.moved;
    const ssize_t got = ::recv(link.socket.get(), target, wanted, MSG_DONTWAIT);
    if (got < 0) {
      if (would_block(errno)) return any;
      return peer_is_gone(peer, errno_error("receiving failed", errno).message);
    }
    if (got == 0) return peer_is_gone(peer, "it closed its connection");
    any = true;
    lane.moved += static_cast<std::size_t>(got);
    if (in_header && lane.moved == sizeof(LinkHeader)) {
      auto checked = check_header(peer);
      if (!checked) return std::move(checked).error();
    }
    if (lane.moved >= sizeof(LinkHeader) && lane.moved == sizeof(LinkHeader) + body.size()) {
      ++lane.next;
      lane.moved = 0;
    }
  }
  return any;
}

Result<> Mesh::check_header(std::uint32_t peer) {
  const Lane& lane = links_[peer].receive;
  const LinkHeader& header = lane.header;
  if (header.group == kLinkGoodbye || header.group == kLinkBroken) return notice_of(peer, header);
  const std::uint64_t bytes = lane.queue[lane.next].size();
  if (header.group == operations() && header.bytes == bytes) return {};
  return Error{ErrorCode::corrupt, peer_name(peer) + " sent " + std::to_string(header.bytes) +
                                       " bytes of group " + std::to_string(header.group) +
                                       ", but " + std::to_string(bytes) + " bytes of group " +
                                       std::to_string(operations()) + " are due"};
}

// The peer closed while nothing was expected from it: it left in good order, or it is gone. What it
// sent ahead for a later group is still good, and its end will be seen behind that.
Result<> Mesh::on_silent_close(std::uint32_t peer) {
  Link& link = links_[peer];
  LinkHeader next;
  const ssize_t seen = ::recv(link.socket.get(), &next, sizeof(next), MSG_DONTWAIT | MSG_PEEK);
  const bool whole = seen == static_cast<ssize_t>(sizeof(next));
  if (whole && next.group == kLinkBroken) return notice_of(peer, next);
  if (!whole || !link.send.idle()) return peer_is_gone(peer, "it closed its connection");
  link.departed = next.group == kLinkGoodbye;
  link.ahead = next.group > operations();
  return {};
}

Error Mesh::notice_of(std::uint32_t peer, const LinkHeader& header) {
  if (header.group == kLinkGoodbye) return peer_is_gone(peer, "it left the group");
  if (header.bytes < size() && header.bytes != rank_) {
    return peer_is_gone(static_cast<std::uint32_t>(header.bytes), peer_name(peer) + " saw it gone");
  }
  return peer_is_gone(peer, "its group broke");
}

Error Mesh::peer_is_gone(std::uint32_t peer, std::string_view how) {
  std::int32_t none = -1;
  lost_peer_.compare_exchange_strong(none, static_cast<std::int32_t>(peer));
  return Error{ErrorCode::unavailable, peer_name(peer) + " is gone: " + std::string(how)};
}

void Mesh::abort(std::string_view reason) noexcept {
  {
    const std::lock_guard lock(reason_mutex_);
    if (aborted_.load(std::memory_order_relaxed)) return;
    reason_ = reason;
    aborted_.store(true, std::memory_order_release);
  }
  wakeup_.raise();
}

Error Mesh::abort_error() {
  const std::lock_guard lock(reason_mutex_);
  return Error{ErrorCode::aborted, reason_};
}

}  // namespace tutti::kernels
