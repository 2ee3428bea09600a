// A ZeroMQ socket that an actor's strand serves, and the context and monitor beside it.
//
// ZMQ_FD is edge-triggered and speaks of libzmq's own commands, not of messages: after each wake,
// and after each send, all that has arrived must be taken. WatchedSocket does that: `take_one` is
// called until it says that nothing is left.
//
// Heavy (Asio, zmq): include from this folder's .cc files only.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/actor/strand.h"
#include "protocol/base/result.h"
#include "protocol/transport/endpoint.h"

namespace tutti::transport {

// One context (one I/O thread) per endpoint; ends once its sockets are closed.
class ZmqContext {
 public:
  ZmqContext();
  ZmqContext(const ZmqContext&) = delete;
  ZmqContext& operator=(const ZmqContext&) = delete;
  ~ZmqContext();

  void* get() const { return context_; }

 private:
  void* context_;
};

class WatchedSocket : public std::enable_shared_from_this<WatchedSocket> {
 public:
  // type: ZMQ_ROUTER, ...
  WatchedSocket(actor::ActorHost& host, const ZmqContext& context, int type);
  ~WatchedSocket();

  void set(int option, int value);
  void set(int option, std::string_view value);  // asserts that libzmq takes it
  bool try_set(int option, std::string_view value);

  // Calls `take_one` whenever something may have arrived, until it returns false. Once, after bind
  // or connect.
  void start(std::function<bool()> take_one);
  void close();

  // All parts of the next message, if one is there; `user`: the name that its connection was
  // admitted by (ZAP).
  std::optional<std::vector<std::string>> receive(std::string* user = nullptr);

  // Sends the parts without waiting; 0 or an errno value.
  int send(std::initializer_list<std::string_view> parts);

  void* get() const { return socket_; }

 private:
  void pump();
  void wait();

  actor::Strand strand_;
  void* socket_;
  boost::asio::posix::stream_descriptor descriptor_;
  std::shared_ptr<const std::function<bool()>>
      take_one_;  // shared: it may close the socket while it runs
  bool waiting_ = false;
  bool pumping_ = false;  // inside pump, or one is posted
};

struct MonitorEvent {
  std::uint16_t event = 0;  // ZMQ_EVENT_...
  std::uint32_t value = 0;
};

// Watches `socket`'s connection events from now on and counts them; `on_event` sees each after it
// was counted.
std::shared_ptr<WatchedSocket> start_monitor(actor::ActorHost& host, const ZmqContext& context,
                                             WatchedSocket& socket, EndpointCounters& counters,
                                             std::function<void(MonitorEvent)> on_event);

// Limits and time-outs that server and client sockets share.
void set_common_options(WatchedSocket& socket, std::uint32_t queue_frames_max);

// The error of a failed bind or connect to `address`.
Error address_error(std::string_view what, const std::string& address, int error_number);

}  // namespace tutti::transport
