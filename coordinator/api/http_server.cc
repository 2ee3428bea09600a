#include "coordinator/api/http_server.h"

#include <sys/socket.h>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/chunk_encode.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/serializer.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <boost/url/parse.hpp>

#include <atomic>
#include <cerrno>
#include <list>
#include <mutex>
#include <optional>

#include "coordinator/api/route.h"
#include "protocol/actor/spawn.h"
#include "protocol/base/log.h"
#include "protocol/base/secret.h"

namespace tutti::api {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr auto kIdleMax = std::chrono::seconds(60);
constexpr auto kRequestWithin = std::chrono::seconds(30);
constexpr auto kWriteWithin = std::chrono::seconds(30);
constexpr auto kSwallowWithin = std::chrono::seconds(2);
constexpr std::size_t kSwallowBytesMax = std::size_t{16} << 20;

using Request = http::request<http::string_body>;

// The path's job number if `path` fits `pattern`, which may have one segment "ID"; zero if it has
// none.
std::optional<JobId> match(std::string_view pattern, std::string_view path) {
  const std::size_t id = pattern.find("/ID");
  if (id == std::string_view::npos) return pattern == path ? std::optional(JobId{}) : std::nullopt;
  if (!path.starts_with(pattern.substr(0, id + 1))) return std::nullopt;
  const std::string_view rest = path.substr(id + 1);
  const std::size_t digits = std::min(rest.find('/'), rest.size());
  if (rest.substr(digits) != pattern.substr(id + 3) || digits == 0 || digits > 18)
    return std::nullopt;
  std::uint64_t number = 0;
  for (const char c : rest.substr(0, digits)) {
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return number == 0 ? std::nullopt : std::optional(JobId{number});
}

class Connection;

}  // namespace

struct HttpServer::State {
  State(actor::Runtime& runtime, std::string token_of_admin)
      : context(runtime.context()),
        acceptor(asio::make_strand(context)),
        token(std::move(token_of_admin)) {}

  asio::io_context& context;
  tcp::acceptor acceptor;
  const std::string token;
  std::uint16_t port = 0;
  std::vector<Route> routes;
  std::atomic<bool> open{true};
  std::atomic<std::uint64_t> requests{0};
  std::atomic<std::uint64_t> unauthorized{0};
  std::atomic<std::uint64_t> refused{0};
  std::mutex guard;
  std::list<std::weak_ptr<Connection>> connections;
};

namespace {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<HttpServer::State> server, tcp::socket socket)
      : server_(std::move(server)), stream_(std::move(socket)) {}

  asio::awaitable<void> serve();

  void end() {
    asio::post(stream_.get_executor(), [self = shared_from_this()] { self->stream_.close(); });
  }

 private:
  struct Target {
    const Route* route = nullptr;
    bool authorized = false;
    Call call;
  };

  Target find(const http::request_header<>& head) const;
  asio::awaitable<Answer> answer(Target& target);
  asio::awaitable<void> refuse(Answer refusal, const http::request_header<>& head);
  asio::awaitable<bool> write(Answer answer, const Request& request);
  asio::awaitable<bool> write_stream(const Answer& answer, unsigned version);
  bool shows_token(const http::request_header<>& head) const;
  bool client_gone();

  std::shared_ptr<HttpServer::State> server_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
};

// Chunks of HTTP/1.1.
class ChunkStream final : public BodyStream {
 public:
  explicit ChunkStream(beast::tcp_stream& stream) : stream_(stream) {}

  asio::awaitable<bool> write(std::string part) override {
    if (failed_ || part.empty()) co_return !failed_;
    error_code failure;
    stream_.expires_after(kWriteWithin);
    co_await asio::async_write(stream_, http::make_chunk(asio::buffer(part)),
                               asio::redirect_error(asio::use_awaitable, failure));
    failed_ = static_cast<bool>(failure);
    co_return !failed_;
  }

  asio::awaitable<bool> finish() {
    if (failed_) co_return false;
    error_code failure;
    stream_.expires_after(kWriteWithin);
    co_await asio::async_write(stream_, http::make_chunk_last(),
                               asio::redirect_error(asio::use_awaitable, failure));
    co_return !failure;
  }

 private:
  beast::tcp_stream& stream_;
  bool failed_ = false;
};

bool Connection::shows_token(const http::request_header<>& head) const {
  const std::string_view header = head[http::field::authorization];
  constexpr std::string_view kScheme = "Bearer ";
  return header.size() > kScheme.size() &&
         beast::iequals(header.substr(0, kScheme.size()), kScheme) &&
         equal_secrets(header.substr(kScheme.size()), server_->token);
}

Connection::Target Connection::find(const http::request_header<>& head) const {
  Target target;
  const auto parsed = boost::urls::parse_origin_form(head.target());
  target.call.method = head.method_string();
  target.call.accept = head[http::field::accept];
  target.call.user = "admin";
  if (parsed) {
    target.call.path = parsed->path();
    for (const auto& parameter : parsed->params())
      target.call.query[parameter.key] = parameter.value;
  }
  for (const Route& candidate : server_->routes) {
    if (!parsed || candidate.method != target.call.method) continue;
    if (const auto job = match(candidate.path, target.call.path)) {
      target.route = &candidate;
      target.call.job = *job;
      break;
    }
  }
  const bool is_public = target.route != nullptr && target.route->role == Role::anyone;
  target.authorized = is_public || shows_token(head);
  return target;
}

asio::awaitable<Answer> Connection::answer(Target& target) {
  if (target.route == nullptr) {
    co_return error_answer(
        {ErrorCode::not_found, "there is no " + target.call.method + " " + target.call.path});
  }
  co_return co_await target.route->handler(target.call);
}

asio::awaitable<bool> Connection::write_stream(const Answer& answer, unsigned version) {
  http::response<http::empty_body> head(http::int_to_status(answer.status), version);
  head.set(http::field::content_type, answer.content_type);
  head.set(http::field::cache_control, "no-cache");
  head.chunked(true);
  http::response_serializer<http::empty_body> serializer(head);
  error_code failure;
  stream_.expires_after(kWriteWithin);
  co_await http::async_write_header(stream_, serializer,
                                    asio::redirect_error(asio::use_awaitable, failure));
  if (failure) co_return false;
  ChunkStream body(stream_);
  co_await answer.stream(body);
  co_return co_await body.finish();
}

asio::awaitable<bool> Connection::write(Answer answer, const Request& request) {
  if (answer.stream) {
    const bool finished = co_await write_stream(answer, request.version());
    co_return finished&& request.keep_alive();
  }
  http::response<http::string_body> response(http::int_to_status(answer.status), request.version());
  response.set(http::field::content_type, answer.content_type);
  if (answer.status == 401) response.set(http::field::www_authenticate, "Bearer");
  response.keep_alive(request.keep_alive());
  response.body() = std::move(answer.body);
  response.prepare_payload();
  error_code failure;
  stream_.expires_after(kWriteWithin);
  co_await http::async_write(stream_, response, asio::redirect_error(asio::use_awaitable, failure));
  co_return !failure && response.keep_alive();
}

// Looks at the socket without taking anything from it.
bool Connection::client_gone() {
  if (!stream_.socket().is_open()) return true;
  char next = 0;
  const ssize_t seen = ::recv(stream_.socket().native_handle(), &next, 1, MSG_PEEK | MSG_DONTWAIT);
  return seen == 0 || (seen < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

// Answers before the body has been read, which is why the connection ends with it. What the client
// is still sending is swallowed for a while: closing at once would reset the connection before it
// has read the answer.
asio::awaitable<void> Connection::refuse(Answer refusal, const http::request_header<>& head) {
  Request last(head);
  last.keep_alive(false);
  co_await write(std::move(refusal), last);
  error_code failure;
  stream_.socket().shutdown(tcp::socket::shutdown_send, failure);
  stream_.expires_after(kSwallowWithin);
  std::size_t swallowed = buffer_.size();
  std::string rest(64 << 10, '\0');
  while (!failure && swallowed < kSwallowBytesMax) {
    swallowed += co_await stream_.async_read_some(
        asio::buffer(rest), asio::redirect_error(asio::use_awaitable, failure));
  }
}

asio::awaitable<void> Connection::serve() {
  const auto self = shared_from_this();
  error_code failure;
  stream_.socket().set_option(tcp::no_delay(true), failure);
  for (bool go_on = true; go_on && server_->open;) {
    http::request_parser<http::string_body> parser;
    parser.header_limit(static_cast<std::uint32_t>(HttpServer::kHeaderBytesMax));
    parser.body_limit(boost::none);  // the header decides first who may send how much
    stream_.expires_after(kIdleMax);
    co_await http::async_read_header(stream_, buffer_, parser,
                                     asio::redirect_error(asio::use_awaitable, failure));
    if (failure) break;
    ++server_->requests;
    Target target = find(parser.get());
    if (!target.authorized) {
      ++server_->unauthorized;
      Answer refusal = error_answer({ErrorCode::permission_denied, "a bearer token is needed"});
      refusal.status = 401;
      co_await refuse(std::move(refusal), parser.get());
      break;
    }
    if (parser.content_length().value_or(0) > HttpServer::kRequestBytesMax)
      failure = http::error::body_limit;
    parser.body_limit(HttpServer::kRequestBytesMax);
    stream_.expires_after(kRequestWithin);
    if (!failure) {
      co_await http::async_read(stream_, buffer_, parser,
                                asio::redirect_error(asio::use_awaitable, failure));
    }
    if (failure == http::error::body_limit) {
      Answer refusal =
          error_answer({ErrorCode::invalid_argument, "the request's body is too large"});
      refusal.status = 413;
      co_await refuse(std::move(refusal), parser.get());
    }
    if (failure) break;
    Request request = parser.release();
    target.call.body = std::move(request.body());
    target.call.gone = [self] { return self->client_gone(); };
    stream_.expires_never();
    Answer given = co_await answer(target);
    go_on = co_await write(std::move(given), request);
  }
  stream_.socket().shutdown(tcp::socket::shutdown_send, failure);
}

asio::awaitable<void> accept_connections(std::shared_ptr<HttpServer::State> server) {
  while (server->open) {
    error_code failure;
    tcp::socket socket(asio::make_strand(server->context));
    co_await server->acceptor.async_accept(socket,
                                           asio::redirect_error(asio::use_awaitable, failure));
    if (!server->open) co_return;
    if (failure) {
      // Out of descriptors, as a rule: wait for some to be closed.
      asio::steady_timer pause(server->context, std::chrono::milliseconds(100));
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, failure));
      continue;
    }
    auto executor = socket.get_executor();
    auto connection = std::make_shared<Connection>(server, std::move(socket));
    {
      const std::lock_guard lock(server->guard);
      server->connections.remove_if([](const auto& other) { return other.expired(); });
      if (server->connections.size() >= HttpServer::kConnectionsMax) {
        ++server->refused;
        continue;
      }
      server->connections.push_back(connection);
    }
    actor::spawn(executor, [](std::shared_ptr<Connection> served) -> asio::awaitable<void> {
      co_await served->serve();
    }(connection));
  }
}

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::open(actor::Runtime& runtime,
                                                     const HttpServerOptions& options) {
  auto state = std::make_shared<State>(runtime, options.token);
  error_code failure;
  const auto address = asio::ip::make_address(options.host, failure);
  if (failure) return Error{ErrorCode::invalid_argument, "not a numeric address: " + options.host};
  const tcp::endpoint endpoint(address, options.port);
  tcp::acceptor& acceptor = state->acceptor;
  acceptor.open(endpoint.protocol(), failure);
  if (!failure) acceptor.set_option(tcp::acceptor::reuse_address(true), failure);
  if (!failure) acceptor.bind(endpoint, failure);
  if (!failure) acceptor.listen(asio::socket_base::max_listen_connections, failure);
  if (!failure) state->port = acceptor.local_endpoint(failure).port();
  if (failure) {
    const std::string where = options.host + ":" + std::to_string(options.port);
    ErrorCode code = ErrorCode::unavailable;
    if (failure.value() == EADDRINUSE) code = ErrorCode::already_exists;
    if (failure.value() == EACCES) code = ErrorCode::permission_denied;
    return Error{code, "cannot listen on " + where + ": " + failure.message()};
  }
  return std::make_unique<HttpServer>(std::move(state));
}

HttpServer::HttpServer(std::shared_ptr<State> state) : state_(std::move(state)) {}
HttpServer::~HttpServer() { stop(); }

void HttpServer::start(std::vector<Route> routes) {
  state_->routes = std::move(routes);
  actor::spawn(state_->acceptor.get_executor(), accept_connections(state_));
}

void HttpServer::stop() {
  if (!state_->open.exchange(false)) return;
  asio::post(state_->acceptor.get_executor(), [state = state_] {
    error_code ignored;
    state->acceptor.close(ignored);
  });
  const std::lock_guard lock(state_->guard);
  for (const auto& weak : state_->connections) {
    if (const auto connection = weak.lock()) connection->end();
  }
}

std::uint16_t HttpServer::port() const { return state_->port; }

HttpServerCounters HttpServer::counters() const {
  HttpServerCounters out;
  const std::lock_guard lock(state_->guard);
  for (const auto& connection : state_->connections)
    out.connections += connection.expired() ? 0u : 1u;
  out.requests = state_->requests;
  out.unauthorized = state_->unauthorized;
  out.refused = state_->refused;
  return out;
}

}  // namespace tutti::api
