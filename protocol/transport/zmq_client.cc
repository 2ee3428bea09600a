#include <zmq.h>

#include <cerrno>

#include "protocol/base/log.h"
#include "protocol/transport/zmq_socket.h"
#include "protocol/wire/frame.h"

namespace tutti::transport {

namespace {

class ZmqClient final : public ClientEndpoint {
 public:
  ZmqClient(actor::ActorHost& host, ClientHandlers handlers)
      : dealer_(std::make_shared<WatchedSocket>(host, context_, ZMQ_DEALER)),
        handlers_(std::make_shared<const ClientHandlers>(std::move(handlers))) {}
  ZmqClient(const ZmqClient&) = delete;
  ZmqClient& operator=(const ZmqClient&) = delete;
  ~ZmqClient() override {
    if (monitor_) monitor_->close();
    dealer_->close();
  }

  Result<> open(actor::ActorHost& host, const ClientOptions& options) {
    set_common_options(*dealer_, options.queue_frames_max);
    if (options.routing_id.empty() || !dealer_->try_set(ZMQ_ROUTING_ID, options.routing_id)) {
      return Error{ErrorCode::invalid_argument,
                   "a routing id has 1 to 255 bytes: " + options.routing_id};
    }
    // Nothing waits for a connection that is not there: what was meant for a dead server must not
    // reach its successor.
    dealer_->set(ZMQ_IMMEDIATE, 1);
    dealer_->set(ZMQ_RECONNECT_IVL, 100);
    dealer_->set(ZMQ_RECONNECT_IVL_MAX, 1'000);
    dealer_->set(ZMQ_CONNECT_TIMEOUT, 3'000);
    if (options.security == Security::curve) {
      const KeyPair keys = options.keys.secret_key.empty() ? make_keys() : options.keys;
      if (!dealer_->try_set(ZMQ_CURVE_SERVERKEY, options.server_key) ||
          !dealer_->try_set(ZMQ_CURVE_PUBLICKEY, keys.public_key) ||
          !dealer_->try_set(ZMQ_CURVE_SECRETKEY, keys.secret_key)) {
        return Error{ErrorCode::invalid_argument,
                     "a key for " + options.address + " is no CURVE key"};
      }
    } else {
      TUTTI_LOG_WARNING("transport", "OPEN MODE: connecting to {} without encryption or keys",
                        options.address);
    }
    monitor_ = start_monitor(host, context_, *dealer_, counters_,
                             [this](MonitorEvent event) { on_event(event); });
    if (zmq_connect(dealer_->get(), options.address.c_str()) != 0) {
      return address_error("cannot connect to", options.address, errno);
    }
    dealer_->start([this] { return take_one(); });
    return {};
  }

  Result<> send(std::string_view frame) override {
    // The socket hears later than the monitor that its connection has ended, and takes frames to
    // lose until then.
    if (!connected_) {
      ++counters_.refused_out;
      return Error{ErrorCode::unavailable, "not connected"};
    }
    switch (const int failure = dealer_->send({frame})) {
      case 0: ++counters_.frames_out; return {};
      case EAGAIN:
        ++counters_.refused_out;
        return Error{ErrorCode::exhausted, "the queue to the server is full"};
      default: ++counters_.refused_out; return Error{ErrorCode::unavailable, zmq_strerror(failure)};
    }
  }

  const EndpointCounters& counters() const override { return counters_; }

 private:
  void on_event(MonitorEvent event) {
    const auto handlers = handlers_;
    if (event.event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
      connected_ = true;
      if (handlers->on_connected) handlers->on_connected();
    } else if (event.event == ZMQ_EVENT_DISCONNECTED && connected_) {
      connected_ = false;
      if (handlers->on_disconnected) handlers->on_disconnected();
    }
  }

  bool take_one() {
    auto parts = dealer_->receive();
    if (!parts) return false;
    if (parts->size() != 1 || parts->front().size() > wire::kFrameBytesMax) {
      ++counters_.malformed_in;
      return true;
    }
    ++counters_.frames_in;
    const auto handlers = handlers_;
    handlers->on_frame(std::move(parts->front()));
    return true;
  }

  ZmqContext context_;  // ends last
  EndpointCounters counters_;
  std::shared_ptr<WatchedSocket> dealer_;
  std::shared_ptr<WatchedSocket> monitor_;
  std::shared_ptr<const ClientHandlers> handlers_;  // shared: a handler may end this endpoint
  bool connected_ = false;
};

}  // namespace

Result<std::unique_ptr<ClientEndpoint>> open_client(actor::ActorHost& host,
                                                    const ClientOptions& options,
                                                    ClientHandlers handlers) {
  auto client = std::make_unique<ZmqClient>(host, std::move(handlers));
  if (Result<> opened = client->open(host, options); !opened) return opened.error();
  return std::unique_ptr<ClientEndpoint>(std::move(client));
}

}  // namespace tutti::transport
