#include "protocol/transport/liveness.h"

#include <fcntl.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/write.hpp>

#include <cerrno>
#include <map>
#include <set>

#include "protocol/actor/strand.h"
#include "protocol/base/log.h"

namespace tutti::transport {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

constexpr std::size_t kTokenBytesMax = 256;
constexpr Duration kTokenWithin = std::chrono::seconds(5);

// A silent machine is seen by the kernel, too: first probe after 2 s, lost after three more
// seconds.
void keep_alive(tcp::socket& socket) {
  using Idle = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_KEEPIDLE>;
  using Interval = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_KEEPINTVL>;
  using Count = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_KEEPCNT>;
  boost::system::error_code ignored;
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  socket.set_option(Idle(2), ignored);
  socket.set_option(Interval(1), ignored);
  socket.set_option(Count(3), ignored);
}

struct Connection {
  explicit Connection(tcp::socket of) : socket(std::move(of)), text(kTokenBytesMax) {}

  tcp::socket socket;
  asio::streambuf text;
  std::string token;         // once shown and known
  std::uint64_t number = 0;  // in the order of their coming
  actor::TimerId timer = 0;
  char rest = 0;
};

}  // namespace

struct LivenessListener::State : std::enable_shared_from_this<LivenessListener::State> {
  State(actor::ActorHost& on, Handlers with)
      : host(on), strand(actor::strand_of(on)), acceptor(strand), handlers(std::move(with)) {}

  void accept_next() {
    acceptor.async_accept(
        [self = shared_from_this()](const boost::system::error_code& error, tcp::socket socket) {
          if (!self->open) return;
          if (error) {
            // Out of descriptors, as a rule: wait for some to be closed.
            self->host.arm(std::chrono::milliseconds(100), [self] {
              if (self->open) self->accept_next();
            });
            return;
          }
          self->greet(std::make_shared<Connection>(std::move(socket)));
          self->accept_next();
        });
  }

  void greet(const std::shared_ptr<Connection>& connection) {
    if (strangers.size() >= kStrangersMax) end(std::shared_ptr(strangers.begin()->second));
    connections.insert(connection);
    connection->number = ++accepted;
    strangers.emplace(connection->number, connection);
    keep_alive(connection->socket);
    connection->timer =
        host.arm(kTokenWithin, [self = shared_from_this(), connection] { self->end(connection); });
    asio::async_read_until(connection->socket, connection->text, '\n',
                           [self = shared_from_this(), connection](
                               const boost::system::error_code& error, std::size_t size) {
                             if (!self->open) return;
                             if (error) return self->end(connection);
                             std::string token(size, '\0');
                             connection->text.sgetn(token.data(),
                                                    static_cast<std::streamsize>(size));
                             token.pop_back();
                             self->admit(connection, std::move(token));
                           });
  }

  void admit(const std::shared_ptr<Connection>& connection, std::string token) {
    if (!connections.contains(connection)) return;
    host.cancel(connection->timer);
    const auto known = tokens.find(token);
    if (known == tokens.end() || known->second != nullptr) {
      TUTTI_LOG_WARNING("transport", "a liveness connection showed an unknown token");
      return end(connection);
    }
    strangers.erase(connection->number);
    known->second = connection;
    connection->token = std::move(token);
    wait_for_end(connection);
    if (handlers.on_opened) handlers.on_opened(connection->token);
  }

  void wait_for_end(const std::shared_ptr<Connection>& connection) {
    connection->socket.async_read_some(asio::buffer(&connection->rest, 1),
                                       [self = shared_from_this(), connection](
                                           const boost::system::error_code& error, std::size_t) {
                                         if (!self->open || !self->connections.contains(connection))
                                           return;
                                         if (!error) return self->wait_for_end(connection);
                                         self->end(connection);
                                       });
  }

  void end(const std::shared_ptr<Connection>& connection) {
    if (connections.erase(connection) == 0) return;
    strangers.erase(connection->number);
    host.cancel(connection->timer);
    boost::system::error_code ignored;
    connection->socket.close(ignored);
    if (connection->token.empty()) return;
    tokens.erase(connection->token);
    handlers.on_ended(connection->token);
  }

  void close() {
    open = false;
    boost::system::error_code ignored;
    acceptor.close(ignored);
    for (const auto& connection : connections) {
      host.cancel(connection->timer);
      connection->socket.close(ignored);
    }
    connections.clear();
    strangers.clear();
    tokens.clear();
  }

  actor::ActorHost& host;
  actor::Strand strand;
  tcp::acceptor acceptor;
  Handlers handlers;
  bool open = true;
  std::uint64_t accepted = 0;
  std::set<std::shared_ptr<Connection>> connections;
  std::map<std::uint64_t, std::shared_ptr<Connection>> strangers;  // of them, the oldest first
  std::map<std::string, std::shared_ptr<Connection>>
      tokens;  // without a connection until it is shown
};

Result<std::unique_ptr<LivenessListener>> LivenessListener::open(actor::ActorHost& host,
                                                                 const std::string& address,
                                                                 std::uint16_t port,
                                                                 Handlers handlers) {
  auto state = std::make_shared<State>(host, std::move(handlers));
  boost::system::error_code error;
  const auto ip = asio::ip::make_address(address, error);
  if (error) return Error{ErrorCode::invalid_argument, "not a numeric address: " + address};
  const tcp::endpoint endpoint(ip, port);
  state->acceptor.open(endpoint.protocol(), error);
  if (!error) state->acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) state->acceptor.bind(endpoint, error);
  if (!error) state->acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    const ErrorCode code =
        error.value() == EADDRINUSE ? ErrorCode::already_exists : ErrorCode::unavailable;
    return Error{
        code, "cannot listen on " + address + ":" + std::to_string(port) + ": " + error.message()};
  }
  state->accept_next();
  return std::make_unique<LivenessListener>(std::move(state));
}

LivenessListener::LivenessListener(std::shared_ptr<State> state) : state_(std::move(state)) {}
LivenessListener::~LivenessListener() { state_->close(); }

std::uint16_t LivenessListener::port() const {
  boost::system::error_code error;
  const tcp::endpoint endpoint = state_->acceptor.local_endpoint(error);
  return error ? std::uint16_t{0} : endpoint.port();
}

void LivenessListener::expect(const std::string& token) { state_->tokens.try_emplace(token); }

void LivenessListener::forget(const std::string& token) {
  const auto known = state_->tokens.find(token);
  if (known == state_->tokens.end()) return;
  const std::shared_ptr<Connection> connection = known->second;
  state_->tokens.erase(known);
  if (connection == nullptr) return;
  connection->token.clear();
  state_->end(connection);
}

struct LivenessConnection::State : std::enable_shared_from_this<LivenessConnection::State> {
  State(actor::ActorHost& host, std::string shown, std::function<void(Error)> handler)
      : socket(actor::strand_of(host)),
        token(std::move(shown) + "\n"),
        on_ended(std::move(handler)) {}

  void connect(const tcp::endpoint& endpoint) {
    boost::system::error_code opened;
    socket.open(endpoint.protocol(), opened);
    // A rank that inherited it would keep the connection alive beyond its worker's death.
    if (!opened) ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
    socket.async_connect(
        endpoint, [self = shared_from_this()](const boost::system::error_code& error) {
          if (!self->open) return;
          if (error) return self->end(error);
          self->connected = true;
          keep_alive(self->socket);
          asio::async_write(self->socket, asio::buffer(self->token),
                            [self](const boost::system::error_code& failure, std::size_t) {
                              if (!self->open) return;
                              if (failure) return self->end(failure);
                              self->wait_for_end();
                            });
        });
  }

  void wait_for_end() {
    socket.async_read_some(
        asio::buffer(&rest, 1),
        [self = shared_from_this()](const boost::system::error_code& error, std::size_t) {
          if (!self->open) return;
          if (!error) return self->wait_for_end();
          self->end(error);
        });
  }

  void end(const boost::system::error_code& error) {
    close();
    on_ended(
        connected
            ? Error{ErrorCode::unavailable, "the liveness connection ended: " + error.message()}
            : Error{ErrorCode::not_found, "the liveness port does not answer: " + error.message()});
  }

  void close() {
    open = false;
    boost::system::error_code ignored;
    socket.close(ignored);
  }

  tcp::socket socket;
  std::string token;
  std::function<void(Error)> on_ended;
  bool open = true;
  bool connected = false;
  char rest = 0;
};

LivenessConnection::LivenessConnection(actor::ActorHost& host, const std::string& address,
                                       std::uint16_t port, const std::string& token,
                                       std::function<void(Error reason)> on_ended)
    : state_(std::make_shared<State>(host, token, std::move(on_ended))) {
  boost::system::error_code error;
  const auto ip = asio::ip::make_address(address, error);
  if (error) {
    host.arm(Duration::zero(), [state = state_, error] {
      if (state->open) state->end(error);
    });
    return;
  }
  state_->connect(tcp::endpoint(ip, port));
}

LivenessConnection::~LivenessConnection() { state_->close(); }

}  // namespace tutti::transport
