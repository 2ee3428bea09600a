// The full mesh of a generation: each rank dials the ranks below it and is dialled by those above,
// all at once in one poll loop, so that no order of arrival can block it.
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <deque>

#include "kernels/collective/communicator.h"
#include "kernels/collective/greeting_io.h"
#include "kernels/collective/handshake.h"
#include "kernels/collective/link_header.h"
#include "kernels/collective/link_stream.h"
#include "kernels/collective/mesh.h"
#include "kernels/collective/socket_address.h"
#include "kernels/collective/wakeup.h"

namespace tutti::kernels {
namespace {

// Strangers that connect and say nothing hold a place each; the oldest makes room for the next.
constexpr std::size_t kGuestsMax = 2 * kMeshRanksMax;

constexpr short kHangUp = POLLRDHUP | POLLHUP | POLLERR | POLLNVAL;

// All rings of one rank together.
constexpr std::uint64_t kRingBytesOfRank = std::uint64_t{128} << 20;

// The largest power of two that the group's size, both sides and the limits allow; 0: none.
std::uint64_t ring_bytes_between(const FormOptions& options, const Greeting& dialer) {
  const std::uint64_t wanted = std::min({options.ring_bytes, dialer.ring_bytes, kRingBytesMax,
                                         kRingBytesOfRank / (2 * options.addresses.size())});
  return wanted < kRingBytesMin ? 0 : std::bit_floor(wanted);
}

class Forming {
 public:
  Forming(const FileDescriptor& door, const FormOptions& options,
          std::atomic<std::uint64_t>& refused, std::atomic<std::int32_t>& lost_peer)
      : door_(door),
        options_(options),
        refused_(refused),
        lost_peer_(lost_peer),
        links_(options.addresses.size()),
        watched_(options.addresses.size(), true),
        unanswered_(options.addresses.size(), false),
        dialled_(options.rank),
        missing_(options.addresses.size() - 1) {}

  Result<> dial_below() {
    for (std::uint32_t peer = 0; peer < options_.rank; ++peer) {
      auto socket = dial(options_.addresses[peer]);
      if (!socket) return gone(peer, socket.error());
      dialled_[peer].incoming.socket = *std::move(socket);
    }
    return {};
  }

  // One round of the poll loop.
  Result<> step(const Wakeup& cancel, Duration left) {
    gather_polled(cancel);
    const int ready = ::poll(polled_.data(), polled_.size(), static_cast<int>(to_ms(left)) + 1);
    if (ready < 0 && errno != EINTR) return errno_error("cannot poll while connecting", errno);
    if (ready <= 0) return {};
    for (std::size_t i = 0; i < places_.size(); ++i) {
      const short events = polled_[i + kFixedPolled].revents;
      if (events == 0) continue;
      auto handled = on_events(places_[i], events);
      if (!handled) return handled;
    }
    if (polled_[kDoorPolled].revents != 0) admit();
    return {};
  }

  bool complete() const { return missing_ == 0; }
  std::vector<LinkStream> take_links() { return std::move(links_); }

 private:
  static constexpr std::size_t kDoorPolled = 1;
  static constexpr std::size_t kFixedPolled = 2;

  struct Dialled {
    Incoming incoming;
    Greeting said;
    bool greeted = false;
  };
  struct Place {
    enum class Kind { linked, dialled, guest } kind;
    std::uint32_t index;
  };

  void gather_polled(const Wakeup& cancel) {
    polled_.clear();
    places_.clear();
    polled_.push_back({cancel.descriptor(), POLLIN, 0});
    polled_.push_back({door_.get(), POLLIN, 0});
    const auto add = [this](Place place, const FileDescriptor& socket, short events) {
      polled_.push_back({socket.get(), events, 0});
      places_.push_back(place);
    };
    for (std::uint32_t peer = 0; peer < links_.size(); ++peer) {
      if (!links_[peer] || !watched_[peer]) continue;
      const int events = POLLRDHUP | (unanswered_[peer] ? POLLIN : 0);
      add({Place::Kind::linked, peer}, links_[peer].socket(), static_cast<short>(events));
    }
    for (std::uint32_t peer = 0; peer < dialled_.size(); ++peer) {
      const Dialled& dialled = dialled_[peer];
      if (!dialled.incoming.socket) continue;
      add({Place::Kind::dialled, peer}, dialled.incoming.socket,
          dialled.greeted ? POLLIN : POLLOUT);
    }
    for (std::uint32_t guest = 0; guest < guests_.size(); ++guest) {
      if (guests_[guest].socket) add({Place::Kind::guest, guest}, guests_[guest].socket, POLLIN);
    }
  }

  Result<> on_events(const Place& place, short events) {
    switch (place.kind) {
      case Place::Kind::linked: return on_linked(place.index, events);
      case Place::Kind::dialled: return on_dialled(place.index);
      case Place::Kind::guest: on_guest(guests_[place.index]); return {};
    }
    return {};
  }

  Result<> on_linked(std::uint32_t peer, short events) {
    if (unanswered_[peer]) return on_rings_answered(peer);
    return (events & kHangUp) == 0 ? Result<>{} : on_linked_closed(peer);
  }

  // Whether the dialer took the rings.
  Result<> on_rings_answered(std::uint32_t peer) {
    char answer = 0;
    const ssize_t got = ::recv(links_[peer].socket().get(), &answer, 1, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (got <= 0) return gone(peer, Error{ErrorCode::unavailable, "it closed its connection"});
    links_[peer].release_memory();
    if (answer != kRingsTaken) links_[peer].drop_rings();
    unanswered_[peer] = false;
    --missing_;
    return {};
  }

  // A peer may have formed its group, done its part and left before this rank is through: then
  // something waits to be read, and the mesh will judge it.
  Result<> on_linked_closed(std::uint32_t peer) {
    LinkHeader next;
    const bool whole = links_[peer].peek(std::as_writable_bytes(std::span(&next, 1)));
    if (!whole || next.group == kLinkBroken) {
      return gone(peer, Error{ErrorCode::unavailable, "it closed its connection"});
    }
    watched_[peer] = false;
    return {};
  }

  Result<> on_dialled(std::uint32_t peer) {
    Dialled& dialled = dialled_[peer];
    if (!dialled.greeted) {
      auto outcome = dial_outcome(dialled.incoming.socket, options_.addresses[peer]);
      if (!outcome) return gone(peer, outcome.error());
      dialled.said = make_greeting(options_, peer);
      if (!write_greeting(dialled.incoming.socket, dialled.said)) {
        return gone(peer, Error{ErrorCode::unavailable, "it took no greeting"});
      }
      dialled.greeted = true;
      return {};
    }
    const Reading reading = read_answer(dialled.incoming);
    if (reading == Reading::more) return {};
    if (reading == Reading::closed) {
      return gone(peer, Error{ErrorCode::unavailable, "it closed its connection"});
    }
    auto judged = judge_answer(dialled.incoming.greeting, dialled.said, options_, peer);
    if (!judged) return judged;
    LinkStream link(std::move(dialled.incoming.socket), take_rings(dialled.incoming));
    if (dialled.incoming.greeting.ring_bytes != 0) {
      const char answer = link.in_memory() ? kRingsTaken : kRingsDeclined;
      if (::send(link.socket().get(), &answer, 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1) {
        return gone(peer, Error{ErrorCode::unavailable, "it closed its connection"});
      }
    }
    links_[peer] = std::move(link);
    --missing_;
    return {};
  }

  // Memory that cannot be used is declined: the socket is as good, only slower.
  static std::unique_ptr<RingPair> take_rings(Incoming& incoming) {
    const FileDescriptor memory = std::move(incoming.memory);
    if (!memory || incoming.greeting.ring_bytes == 0) return nullptr;
    auto rings = RingPair::take(memory, incoming.greeting.ring_bytes);
    return rings ? *std::move(rings) : nullptr;
  }

  void on_guest(Incoming& guest) {
    const Reading reading = read_greeting(guest);
    if (reading == Reading::more) return;
    FileDescriptor socket = std::move(guest.socket);
    if (reading == Reading::closed || !is_greeting(guest.greeting)) {
      refused_.fetch_add(1);
      return;
    }
    const std::uint32_t peer = guest.greeting.rank;
    Verdict verdict = judge_dialer(guest.greeting, options_);
    if (verdict == Verdict::accepted && links_[peer]) verdict = Verdict::wrong_rank;
    if (verdict != Verdict::accepted) {
      (void)write_greeting(socket, make_refusal(verdict));
      refused_.fetch_add(1);
      return;
    }
    answer_dialer(peer, std::move(socket), guest.greeting);
  }

  // Over a Unix socket with the memory of two rings, if there is any to be had.
  void answer_dialer(std::uint32_t peer, FileDescriptor socket, const Greeting& dialer) {
    const std::uint64_t bytes = is_local(socket) ? ring_bytes_between(options_, dialer) : 0;
    Result<std::unique_ptr<RingPair>> rings = Error{};
    if (bytes != 0) rings = RingPair::make(bytes);
    if (!rings) {
      if (!write_greeting(socket, make_answer(options_, dialer, 0))) return;
      links_[peer] = LinkStream(std::move(socket));
      --missing_;
      return;
    }
    if (!write_answer(socket, make_answer(options_, dialer, bytes), (*rings)->memory())) return;
    links_[peer] = LinkStream(std::move(socket), *std::move(rings));
    unanswered_[peer] = true;
  }

  void admit() {
    while (FileDescriptor socket = accept_waiting(door_)) {
      while (!guests_.empty() && !guests_.front().socket) guests_.pop_front();
      if (guests_.size() == kGuestsMax) {
        refused_.fetch_add(1);
        guests_.pop_front();
      }
      guests_.emplace_back().socket = std::move(socket);
    }
  }

  Error gone(std::uint32_t peer, const Error& why) {
    std::int32_t none = -1;
    lost_peer_.compare_exchange_strong(none, static_cast<std::int32_t>(peer));
    return Error{why.code, "rank " + std::to_string(peer) + " is gone: " + why.message};
  }

  const FileDescriptor& door_;
  const FormOptions& options_;
  std::atomic<std::uint64_t>& refused_;
  std::atomic<std::int32_t>& lost_peer_;
  std::vector<LinkStream> links_;
  std::vector<bool> watched_;     // by rank: whether the end of its link is still noticed here
  std::vector<bool> unanswered_;  // by rank: whether it has yet to say if it took the rings
  std::vector<Dialled> dialled_;
  std::deque<Incoming> guests_;
  std::size_t missing_;
  std::vector<pollfd> polled_;
  std::vector<Place> places_;
};

Result<> check_options(const FormOptions& options) {
  if (options.rank >= options.addresses.size()) {
    return Error{ErrorCode::invalid_argument, "rank " + std::to_string(options.rank) +
                                                  " of a group of " +
                                                  std::to_string(options.addresses.size())};
  }
  if (options.addresses.size() > kMeshRanksMax) {
    return Error{ErrorCode::invalid_argument,
                 "a group has at most " + std::to_string(kMeshRanksMax) + " ranks"};
  }
  if (options.secret.size() > kSecretBytesMax) {
    return Error{ErrorCode::invalid_argument, "the secret of the group is too long"};
  }
  return {};
}

class SocketListener final : public Listener {
 public:
  explicit SocketListener(ListeningSocket listening) : listening_(std::move(listening)) {}

  const std::string& address() const override { return listening_.address; }
  std::int32_t lost_peer() const noexcept override { return lost_peer_.load(); }
  std::uint64_t refused() const noexcept override { return refused_.load(); }

  void cancel() noexcept override {
    cancelled_.store(true);
    cancel_.raise();
  }

  Result<std::unique_ptr<Communicator>> connect(const FormOptions& options) override {
    auto checked = check_options(options);
    if (!checked) return checked.error();
    Forming forming(listening_.socket, options, refused_, lost_peer_);
    auto dialled = forming.dial_below();
    if (!dialled) return dialled.error();
    const Instant end = monotonic_now() + options.deadline;
    while (!forming.complete()) {
      const Duration left = end - monotonic_now();
      if (cancelled_.load()) return Error{ErrorCode::aborted, "forming the group was cancelled"};
      if (left.count() <= 0) {
        return Error{
            ErrorCode::deadline_exceeded,
            "not all ranks connected within " + std::to_string(to_ms(options.deadline)) + " ms"};
      }
      auto stepped = forming.step(cancel_, left);
      if (!stepped) return stepped.error();
    }
    if (cancelled_.load()) return Error{ErrorCode::aborted, "forming the group was cancelled"};
    listening_.socket.reset();
    return std::unique_ptr<Communicator>(std::make_unique<Mesh>(
        options.rank, forming.take_links(),
        Mesh::Patience{.operation_deadline = options.operation_deadline, .spin = options.spin}));
  }

 private:
  ListeningSocket listening_;
  std::atomic<bool> cancelled_{false};
  std::atomic<std::int32_t> lost_peer_{-1};
  std::atomic<std::uint64_t> refused_{0};
  Wakeup cancel_;
};

}  // namespace

Result<std::unique_ptr<Listener>> Listener::open(const ListenOptions& options) {
  auto listening = options.host.empty() ? listen_local() : listen_tcp(options.host);
  if (!listening) return listening.error();
  return std::unique_ptr<Listener>(std::make_unique<SocketListener>(*std::move(listening)));
}

}  // namespace tutti::kernels
