#include <zmq.h>

#include <cerrno>

#include "protocol/base/log.h"
#include "protocol/transport/zmq_socket.h"
#include "protocol/wire/frame.h"

namespace tutti::transport {

namespace {

// Answers libzmq's question whether a client key may connect (ZAP, RFC 27), within the process.
class KeyCheck {
 public:
  KeyCheck(actor::ActorHost& host, const ZmqContext& context,
           std::function<bool(const std::string&)> admits, EndpointCounters& counters)
      : socket_(std::make_shared<WatchedSocket>(host, context, ZMQ_REP)),
        admits_(std::move(admits)),
        counters_(counters) {
    const int bound = zmq_bind(socket_->get(), "inproc://zeromq.zap.01");
    TUTTI_ASSERT(bound == 0);  // one server endpoint per context
    socket_->start([this] { return answer_one(); });
  }
  KeyCheck(const KeyCheck&) = delete;
  KeyCheck& operator=(const KeyCheck&) = delete;
  ~KeyCheck() { socket_->close(); }

 private:
  // Request: version, request id, domain, address, identity, mechanism, credentials.
  bool answer_one() {
    const auto parts = socket_->receive();
    if (!parts) return false;
    const std::string request = parts->size() > 1 ? (*parts)[1] : std::string();
    bool admitted = false;
    char key[41] = {};
    if (parts->size() == 7 && (*parts)[5] == "CURVE" && (*parts)[6].size() == 32) {
      zmq_z85_encode(key, reinterpret_cast<const unsigned char*>((*parts)[6].data()), 32);
      admitted = !admits_ || admits_(key);
    }
    if (!admitted) ++counters_.keys_denied;
    socket_->send({"1.0", request, admitted ? "200" : "400", admitted ? "OK" : "denied",
                   admitted ? std::string_view(key) : std::string_view(), ""});
    return true;
  }

  std::shared_ptr<WatchedSocket> socket_;
  std::function<bool(const std::string&)> admits_;
  EndpointCounters& counters_;
};

class ZmqServer final : public ServerEndpoint {
 public:
  ZmqServer(actor::ActorHost& host, ServerHandlers handlers)
      : router_(std::make_shared<WatchedSocket>(host, context_, ZMQ_ROUTER)),
        handlers_(std::make_shared<const ServerHandlers>(std::move(handlers))) {}
  ZmqServer(const ZmqServer&) = delete;
  ZmqServer& operator=(const ZmqServer&) = delete;
  ~ZmqServer() override {
    if (monitor_) monitor_->close();
    router_->close();
  }

  Result<> open(actor::ActorHost& host, const ServerOptions& options) {
    set_common_options(*router_, options.queue_frames_max);
    router_->set(ZMQ_ROUTER_MANDATORY, 1);
    router_->set(ZMQ_ROUTER_HANDOVER, 1);
    if (options.security == Security::curve) {
      router_->set(ZMQ_CURVE_SERVER, 1);
      if (!router_->try_set(ZMQ_CURVE_SECRETKEY, options.keys.secret_key)) {
        return Error{ErrorCode::invalid_argument, "the server's secret key is no CURVE key"};
      }
      key_check_ = std::make_unique<KeyCheck>(host, context_, options.admits, counters_);
    } else {
      TUTTI_LOG_WARNING("transport", "OPEN MODE: {} takes connections without encryption or keys",
                        options.address);
    }
    monitor_ = start_monitor(host, context_, *router_, counters_, [](MonitorEvent) {});
    if (zmq_bind(router_->get(), options.address.c_str()) != 0) {
      return address_error("cannot listen on", options.address, errno);
    }
    Result<std::string> bound = bound_address(options.address);
    if (!bound) return bound.error();
    address_ = *std::move(bound);
    router_->start([this] { return take_one(); });
    return {};
  }

  Result<> send(std::string_view peer, std::string_view frame) override {
    switch (const int failure = router_->send({peer, frame})) {
      case 0: ++counters_.frames_out; return {};
      case EAGAIN:
        ++counters_.refused_out;
        return Error{ErrorCode::exhausted, "the queue to the peer is full"};
      default:
        ++counters_.refused_out;
        return Error{ErrorCode::unavailable,
                     std::string("the peer is not connected: ") + zmq_strerror(failure)};
    }
  }

  const std::string& address() const override { return address_; }
  const std::string& sender_key() const override { return sender_key_; }

  // A socket's key is the one that was set when an address was bound.
  Result<std::string> add_address(const std::string& address, const KeyPair& keys) override {
    if (!router_->try_set(ZMQ_CURVE_SECRETKEY, keys.secret_key))
      return Error{ErrorCode::invalid_argument, "the server's secret key is no CURVE key"};
    if (zmq_bind(router_->get(), address.c_str()) != 0)
      return address_error("cannot listen on", address, errno);
    return bound_address(address);
  }

  void remove_address(const std::string& address) override {
    if (zmq_unbind(router_->get(), address.c_str()) != 0)
      TUTTI_LOG_WARNING("transport", "cannot give up {}: {}", address, zmq_strerror(errno));
  }

  const EndpointCounters& counters() const override { return counters_; }

 private:
  Result<std::string> bound_address(const std::string& wanted) {
    char bound[256];
    std::size_t size = sizeof bound;
    if (zmq_getsockopt(router_->get(), ZMQ_LAST_ENDPOINT, bound, &size) != 0)
      return address_error("cannot listen on", wanted, errno);
    return std::string(bound);
  }

  bool take_one() {
    auto parts = router_->receive(&sender_key_);
    if (!parts) return false;
    if (parts->size() != 2 || (*parts)[1].size() > wire::kFrameBytesMax) {
      ++counters_.malformed_in;
      return true;
    }
    ++counters_.frames_in;
    const auto handlers = handlers_;
    handlers->on_frame((*parts)[0], std::move((*parts)[1]));
    return true;
  }

  ZmqContext context_;  // ends last
  EndpointCounters counters_;
  std::unique_ptr<KeyCheck> key_check_;
  std::shared_ptr<WatchedSocket> router_;
  std::shared_ptr<WatchedSocket> monitor_;
  std::shared_ptr<const ServerHandlers> handlers_;  // shared: a handler may end this endpoint
  std::string address_;
  std::string sender_key_;
};

}  // namespace

Result<std::unique_ptr<ServerEndpoint>> open_server(actor::ActorHost& host,
                                                    const ServerOptions& options,
                                                    ServerHandlers handlers) {
  auto server = std::make_unique<ZmqServer>(host, std::move(handlers));
  if (Result<> opened = server->open(host, options); !opened) return opened.error();
  return std::unique_ptr<ServerEndpoint>(std::move(server));
}

}  // namespace tutti::transport
