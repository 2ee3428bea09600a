#include "kernels/collective/mesh.h"

#include <immintrin.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace tutti::kernels {
namespace {

constexpr short kHangUp = POLLRDHUP | POLLHUP | POLLERR | POLLNVAL;

// While bytes move through memory, the sockets and abort() are looked at this often.
constexpr Duration kBetweenLooks = std::chrono::microseconds(200);

// A peer that is this late may be waiting for this rank's core.
constexpr Duration kBeforeYields = std::chrono::microseconds(3);

std::string peer_name(std::uint32_t peer) { return "rank " + std::to_string(peer); }

}  // namespace

Mesh::Mesh(std::uint32_t rank, std::vector<LinkStream> links, const Patience& patience)
    : rank_(rank),
      operation_deadline_(patience.operation_deadline),
      spin_(patience.spin),
      links_(links.size()) {
  std::size_t in_memory = 0;
  for (std::size_t peer = 0; peer < links.size(); ++peer) {
    in_memory += links[peer].in_memory() ? 1 : 0;
    links_[peer].stream = std::move(links[peer]);
  }
  // A rank that looks while a peer waits for its core keeps that peer from its work.
  const long cores = ::sysconf(_SC_NPROCESSORS_ONLN);
  if (cores > 0 && in_memory + 1 > static_cast<std::size_t>(cores)) spin_ = Duration::zero();
  polled_.reserve(links_.size() + 1);
  polled_peers_.reserve(links_.size());
}

Mesh::~Mesh() {
  for (Link& link : links_) {
    if (link.stream) say_farewell(link);
  }
}

// Only where the stream stands between two transfers; elsewhere the close itself has to tell.
void Mesh::say_farewell(Link& link) noexcept {
  if (link.send.moved != 0) return link.stream.close({});
  const bool good = !broken_ && !aborted();
  const std::int32_t suspect = lost_peer();
  LinkHeader farewell{good ? kLinkGoodbye : kLinkBroken,
                      suspect >= 0 ? static_cast<std::uint64_t>(suspect) : kNoSuspect};
  link.stream.close(std::as_writable_bytes(std::span(&farewell, 1)));
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
  return std::all_of(links_.begin(), links_.end(), [](const Link& link) { return link.idle(); });
}

Result<> Mesh::start_sockets() {
  // Most sends fit into the kernel's buffer at once.
  for (std::uint32_t peer = 0; peer < size(); ++peer) {
    Link& link = links_[peer];
    if (link.send.idle() || link.stream.in_memory()) continue;
    auto moved = send_some(peer);
    if (!moved) return std::move(moved).error();
  }
  return {};
}

Result<> Mesh::move_in_memory(bool& moved_any) {
  for (std::uint32_t peer = 0; peer < size(); ++peer) {
    Link& link = links_[peer];
    if (!link.stream.in_memory()) continue;
    if (!link.send.idle()) {
      auto moved = send_some(peer);
      if (!moved) return std::move(moved).error();
      moved_any = moved_any || *moved;
    }
    if (!link.receive.idle()) {
      auto moved = receive_some(peer);
      if (!moved) return std::move(moved).error();
      moved_any = moved_any || *moved;
    }
  }
  return {};
}

// Looking again and again helps only where memory is all that is waited for.
bool Mesh::may_spin() const {
  return spin_.count() > 0 && std::all_of(links_.begin(), links_.end(), [](const Link& link) {
           return link.idle() || link.stream.in_memory();
         });
}

Result<> Mesh::move_until_done() {
  auto started = start_sockets();
  if (!started) return started;
  const int limit_ms =
      operation_deadline_.count() > 0 ? static_cast<int>(to_ms(operation_deadline_)) + 1 : -1;
  const bool spins = may_spin();
  Instant last_move = monotonic_now();
  Instant last_look = last_move;
  while (true) {
    bool moved_any = false;
    auto moved = move_in_memory(moved_any);
    if (!moved || idle()) return moved;
    const Instant now = monotonic_now();
    if (moved_any) last_move = now;
    const bool soon = moved_any || (spins && now - last_move < spin_);
    if (soon && now - last_look < kBetweenLooks && !aborted()) {
      if (now - last_move < kBeforeYields) {
        _mm_pause();
      } else {
        ::sched_yield();
      }
      continue;
    }
    moved_any = false;
    auto waited = soon ? wait_and_move(moved_any, 0) : wait_for_peers(moved_any, limit_ms);
    if (!waited) return waited;
    last_look = monotonic_now();
    if (moved_any) last_move = last_look;
    if (operation_deadline_.count() > 0 && last_look - last_move > operation_deadline_) {
      return Error{ErrorCode::deadline_exceeded,
                   "no byte moved in group " + std::to_string(operations()) + " for " +
                       std::to_string(to_ms(operation_deadline_)) + " ms"};
    }
  }
}

// Sleeps, unless something in memory moved while this rank said that it would.
Result<> Mesh::wait_for_peers(bool& moved_any, int limit_ms) {
  bool ready = false;
  for (Link& link : links_) {
    if (link.idle() || !link.stream.in_memory()) continue;
    link.stream.begin_waiting();
    ready = ready || (!link.receive.idle() && link.stream.readable()) ||
            (!link.send.idle() && link.stream.writable());
  }
  auto waited = wait_and_move(moved_any, ready ? 0 : limit_ms);
  for (Link& link : links_) {
    if (link.stream.in_memory()) link.stream.end_waiting();
  }
  return waited;
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
    if (!link.stream || link.departed || link.ahead) continue;
    const int of_data = (link.send.idle() ? 0 : POLLOUT) | (link.receive.idle() ? 0 : POLLIN);
    const int events = POLLRDHUP | (link.stream.in_memory() ? POLLIN : of_data);
    polled_.push_back({link.stream.socket().get(), static_cast<short>(events), 0});
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
  if ((events & kHangUp) != 0) link.stream.on_hang_up();
  if (link.stream.in_memory()) {
    if ((events & POLLIN) != 0) link.stream.take_rings_of_bell();
    if ((events & kHangUp) == 0) return {};  // its bytes are not in the socket
  }
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

// Sends until the link takes no more. True if anything moved.
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
    auto sent = link.stream.send(std::span(parts, count));
    if (!sent) return broken_link(peer, sent.error());
    if (*sent == 0) return any;
    any = true;
    lane.moved += *sent;
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
    auto got = link.stream.receive({target, wanted});
    if (!got) return broken_link(peer, got.error());
    if (*got == 0) return any;
    any = true;
    lane.moved += *got;
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
  const bool whole = link.stream.peek(std::as_writable_bytes(std::span(&next, 1)));
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

Error Mesh::broken_link(std::uint32_t peer, const Error& error) {
  if (error.code != ErrorCode::corrupt) return peer_is_gone(peer, error.message);
  return Error{error.code, "the link to " + peer_name(peer) + " is broken: " + error.message};
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
