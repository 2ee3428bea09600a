#include "protocol/transport/zmq_socket.h"

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/post.hpp>

#include <zmq.h>

#include <cerrno>
#include <cstring>

#include "protocol/base/assert.h"
#include "protocol/base/secret.h"
#include "protocol/wire/frame.h"

#ifdef __SANITIZE_THREAD__
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);
#endif

namespace tutti::transport {

namespace asio = boost::asio;

namespace {

// Messages taken in one go before others on the strand have their turn.
constexpr int kMessagesPerTurn = 256;
constexpr std::size_t kPartsMax = 16;

// The copy out of a message that libzmq's thread has filled. ThreadSanitizer cannot see the
// lock-free pipe between them, and would look at each word of it.
std::string copy_of(zmq_msg_t& message) {
#ifdef __SANITIZE_THREAD__
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
#endif
  std::string copy(static_cast<const char*>(zmq_msg_data(&message)), zmq_msg_size(&message));
#ifdef __SANITIZE_THREAD__
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
#endif
  return copy;
}

}  // namespace

ZmqContext::ZmqContext() : context_(zmq_ctx_new()) {
  TUTTI_ASSERT(context_ != nullptr);
  zmq_ctx_set(context_, ZMQ_IO_THREADS, 1);
  zmq_ctx_set(context_, ZMQ_BLOCKY, 0);
}

ZmqContext::~ZmqContext() {
  while (zmq_ctx_term(context_) != 0 && errno == EINTR) {
  }
}

WatchedSocket::WatchedSocket(actor::ActorHost& host, const ZmqContext& context, int type)
    : strand_(actor::strand_of(host)),
      socket_(zmq_socket(context.get(), type)),
      descriptor_(strand_) {
  TUTTI_ASSERT(socket_ != nullptr);
  set(ZMQ_LINGER, 0);
}

WatchedSocket::~WatchedSocket() { close(); }

void WatchedSocket::set(int option, int value) {
  const int done = zmq_setsockopt(socket_, option, &value, sizeof value);
  TUTTI_ASSERT(done == 0);
}

bool WatchedSocket::try_set(int option, std::string_view value) {
  return zmq_setsockopt(socket_, option, value.data(), value.size()) == 0;
}

void WatchedSocket::set(int option, std::string_view value) {
  const bool done = try_set(option, value);
  TUTTI_ASSERT(done);
}

void WatchedSocket::start(std::function<bool()> take_one) {
  take_one_ = std::make_shared<const std::function<bool()>>(std::move(take_one));
  int descriptor = -1;
  std::size_t size = sizeof descriptor;
  const int done = zmq_getsockopt(socket_, ZMQ_FD, &descriptor, &size);
  TUTTI_ASSERT(done == 0);
  descriptor_.assign(descriptor);
  pumping_ = true;
  asio::post(strand_, [self = shared_from_this()] { self->pump(); });
}

void WatchedSocket::close() {
  if (socket_ == nullptr) return;
  take_one_ = nullptr;
  if (descriptor_.is_open()) descriptor_.release();  // libzmq closes it
  zmq_close(socket_);
  socket_ = nullptr;
}

void WatchedSocket::pump() {
  const auto take_one = take_one_;
  for (int i = 0; i < kMessagesPerTurn; ++i) {
    if (socket_ == nullptr) return;
    if (!(*take_one)()) {
      pumping_ = false;
      return wait();
    }
  }
  asio::post(strand_, [self = shared_from_this()] { self->pump(); });
}

void WatchedSocket::wait() {
  if (waiting_ || socket_ == nullptr) return;
  waiting_ = true;
  descriptor_.async_wait(asio::posix::descriptor_base::wait_read,
                         [self = shared_from_this()](const boost::system::error_code& error) {
                           self->waiting_ = false;
                           if (error || self->socket_ == nullptr) return;
                           if (self->pumping_) return;  // it waits again when it is done
                           self->pumping_ = true;
                           self->pump();
                         });
}

std::optional<std::vector<std::string>> WatchedSocket::receive(std::string* user) {
  if (socket_ == nullptr) return std::nullopt;
  std::vector<std::string> parts;
  for (;;) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    const int size = zmq_msg_recv(&message, socket_, ZMQ_DONTWAIT);
    if (size < 0) {
      zmq_msg_close(&message);
      if (errno == EINTR) continue;
      return std::nullopt;
    }
    if (parts.size() < kPartsMax) {
      parts.push_back(copy_of(message));
    }
    if (user != nullptr) {
      const char* name = zmq_msg_gets(&message, "User-Id");
      *user = name == nullptr ? "" : name;
    }
    const bool more = zmq_msg_more(&message) != 0;
    zmq_msg_close(&message);
    if (!more) return parts;
  }
}

int WatchedSocket::send(std::initializer_list<std::string_view> parts) {
  if (socket_ == nullptr) return ENOTCONN;
  int failure = 0;
  std::size_t left = parts.size();
  for (const std::string_view part : parts) {
    const int flags = ZMQ_DONTWAIT | (--left > 0 ? ZMQ_SNDMORE : 0);
    int sent = -1;
    do {
      sent = zmq_send(socket_, part.data(), part.size(), flags);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
      failure = errno;
      break;
    }
  }
  // Sending may have swallowed the wake-up of what has arrived meanwhile.
  if (!pumping_ && take_one_) {
    int events = 0;
    std::size_t size = sizeof events;
    if (zmq_getsockopt(socket_, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLIN) != 0) {
      pumping_ = true;
      asio::post(strand_, [self = shared_from_this()] { self->pump(); });
    }
  }
  return failure;
}

void set_common_options(WatchedSocket& socket, std::uint32_t queue_frames_max) {
  const int frames = static_cast<int>(queue_frames_max);
  socket.set(ZMQ_SNDHWM, frames);
  socket.set(ZMQ_RCVHWM, frames);
  // libzmq ends the connection of whoever sends more; twice the limit, so that what is a little too
  // long is counted.
  const std::int64_t bytes_max = 2 * static_cast<std::int64_t>(wire::kFrameBytesMax);
  socket.set(ZMQ_MAXMSGSIZE,
             std::string_view(reinterpret_cast<const char*>(&bytes_max), sizeof bytes_max));
  socket.set(ZMQ_HANDSHAKE_IVL, 5'000);
  // A peer that is silent for this long is disconnected, and a client connects anew.
  socket.set(ZMQ_HEARTBEAT_IVL, 2'000);
  socket.set(ZMQ_HEARTBEAT_TIMEOUT, 10'000);
}

namespace {

void count_event(std::uint16_t event, EndpointCounters& counters) {
  switch (event) {
    case ZMQ_EVENT_ACCEPTED: ++counters.accepted; break;
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: ++counters.connected; break;
    case ZMQ_EVENT_DISCONNECTED: ++counters.disconnected; break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: ++counters.handshakes_failed; break;
    default: break;
  }
}

}  // namespace

std::shared_ptr<WatchedSocket> start_monitor(actor::ActorHost& host, const ZmqContext& context,
                                             WatchedSocket& socket, EndpointCounters& counters,
                                             std::function<void(MonitorEvent)> on_event) {
  const std::string address = "inproc://monitor-" + random_hex(8);
  const int events = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                     ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                     ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
  const int monitored = zmq_socket_monitor(socket.get(), address.c_str(), events);
  TUTTI_ASSERT(monitored == 0);
  auto monitor = std::make_shared<WatchedSocket>(host, context, ZMQ_PAIR);
  const int connected = zmq_connect(monitor->get(), address.c_str());
  TUTTI_ASSERT(connected == 0);
  monitor->start([watched = monitor.get(), &counters, on_event = std::move(on_event)] {
    const auto parts = watched->receive();
    if (!parts) return false;
    if (parts->empty() || parts->front().size() < 6) return true;
    MonitorEvent event;
    std::memcpy(&event.event, parts->front().data(), sizeof event.event);
    std::memcpy(&event.value, parts->front().data() + sizeof event.event, sizeof event.value);
    count_event(event.event, counters);
    on_event(event);
    return true;
  });
  return monitor;
}

Error address_error(std::string_view what, const std::string& address, int error_number) {
  const std::string message = std::string(what) + " " + address + ": " + zmq_strerror(error_number);
  switch (error_number) {
    case EADDRINUSE: return {ErrorCode::already_exists, message};
    case EACCES: return {ErrorCode::permission_denied, message};
    case EMFILE: return {ErrorCode::exhausted, message};
    default: return {ErrorCode::invalid_argument, message};
  }
}

}  // namespace tutti::transport
