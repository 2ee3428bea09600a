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
#include "protocol/base/assert.h"
#include "protocol/base/clock.h"
#include "protocol/base/log.h"

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

constexpr std::size_t kFirstBytes = std::size_t{4} << 10;

using Request = http::request<http::string_body>;
using Parser = http::request_parser<http::string_body>;

// What stands in the path for a pattern's ID or NAME.
struct Segments {
  JobId id;
  std::string name;
};

// The segments if `path` fits `pattern`, which may have one segment "ID" (a number) or "NAME".
std::optional<Segments> match(std::string_view pattern, std::string_view path) {
  for (const std::string_view variable : {"/ID", "/NAME"}) {
    const std::size_t at = pattern.find(variable);
    if (at == std::string_view::npos) continue;
    if (!path.starts_with(pattern.substr(0, at + 1))) return std::nullopt;
    const std::string_view rest = path.substr(at + 1);
    const std::string_view segment = rest.substr(0, rest.find('/'));
    if (rest.substr(segment.size()) != pattern.substr(at + variable.size()) || segment.empty())
      return std::nullopt;
    if (variable == "/NAME") return Segments{{}, std::string(segment)};
    std::uint64_t number = 0;
    for (const char c : segment) {
      if (c < '0' || c > '9' || segment.size() > 18) return std::nullopt;
      number = number * 10 + static_cast<std::uint64_t>(c - '0');
    }
    return number == 0 ? std::nullopt : std::optional(Segments{JobId{number}, {}});
  }
  return pattern == path ? std::optional(Segments{}) : std::nullopt;
}

class Connection;

}  // namespace

struct HttpServer::State {
  State(actor::Runtime& runtime, const coordinator::AccessTable& tokens)
      : context(runtime.context()), acceptor(asio::make_strand(context)), access(tokens) {}

  void count(const Route* route, unsigned status) {
    const std::lock_guard lock(counts_guard);
    ++counts[route == nullptr ? 0 : static_cast<std::size_t>(route - routes.data()) + 1][status];
  }

  asio::io_context& context;
  tcp::acceptor acceptor;
  const coordinator::AccessTable& access;
  Duration header_within{0};
  std::function<void(coordinator::Caller)> on_denied;
  std::uint16_t port = 0;
  std::vector<Route> routes;
  std::atomic<bool> open{true};
  std::atomic<std::uint64_t> requests{0};
  std::atomic<std::uint64_t> unauthorized{0};
  std::atomic<std::uint64_t> forbidden{0};
  std::atomic<std::uint64_t> refused{0};
  std::mutex counts_guard;
  std::vector<std::map<unsigned, std::uint64_t>> counts{1};  // [0]: no route; then by route
  std::mutex guard;
  std::list<std::weak_ptr<Connection>> connections;
};

namespace {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<HttpServer::State> server, tcp::socket socket)
      : server_(std::move(server)), stream_(std::move(socket)) {
    error_code unknown;
    const tcp::endpoint client = stream_.socket().remote_endpoint(unknown);
    if (!unknown) from_ = client.address().to_string() + ':' + std::to_string(client.port());
  }

  asio::awaitable<void> serve();

  void end() {
    asio::post(stream_.get_executor(), [self = shared_from_this()] { self->stream_.close(); });
  }

  // The token of the request that is being answered.
  std::optional<std::uint64_t> token() const {
    const std::int64_t number = token_;
    return number < 0 ? std::nullopt : std::optional(static_cast<std::uint64_t>(number));
  }
  // Since when nothing is asked on it; nothing while something is.
  std::optional<Instant> idle_since() const {
    const std::int64_t since = idle_ns_;
    return since < 0 ? std::nullopt : std::optional(Instant{Duration(since)});
  }

 private:
  struct Target {
    const Route* route = nullptr;
    unsigned refused = 0;  // 401, 403; 0: go on
    bool has_token = false;
    Call call;
  };

  Target find(const http::request_header<>& head) const;
  asio::awaitable<bool> read_header(Parser& parser);
  asio::awaitable<bool> read_body(Parser& parser);
  asio::awaitable<Answer> answer(Target& target);
  asio::awaitable<void> refuse(Answer refusal, const http::request_header<>& head);
  asio::awaitable<bool> write(Answer answer, const Request& request);
  asio::awaitable<bool> write_stream(const Answer& answer, unsigned version);
  std::optional<coordinator::Principal> principal(const http::request_header<>& head) const;
  Answer refusal_of(const Target& target) const;
  void tell_denied(const Target& target, const Answer& answer) const;
  bool client_gone();
  void set_idle() {
    if (idle_ns_ < 0) idle_ns_ = monotonic_now().since_start.count();
  }

  std::shared_ptr<HttpServer::State> server_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  std::string from_;
  std::atomic<std::int64_t> token_{-1};
  std::atomic<std::int64_t> idle_ns_{monotonic_now().since_start.count()};
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

std::optional<coordinator::Principal> Connection::principal(
    const http::request_header<>& head) const {
  const std::string_view header = head[http::field::authorization];
  constexpr std::string_view kScheme = "Bearer ";
  if (header.size() <= kScheme.size() ||
      !beast::iequals(header.substr(0, kScheme.size()), kScheme)) {
    return std::nullopt;
  }
  return server_->access.of_token(header.substr(kScheme.size()), wall_now().unix_ms);
}

Connection::Target Connection::find(const http::request_header<>& head) const {
  Target target;
  Call& call = target.call;
  const auto parsed = boost::urls::parse_origin_form(head.target());
  call.method = head.method_string();
  call.accept = head[http::field::accept];
  call.last_event = head["Last-Event-ID"];
  call.from = from_;
  if (parsed) {
    call.path = parsed->path();
    for (const auto& parameter : parsed->params()) call.query[parameter.key] = parameter.value;
  }
  for (const Route& candidate : server_->routes) {
    if (!parsed || candidate.method != call.method) continue;
    if (auto segments = match(candidate.path, call.path)) {
      target.route = &candidate;
      call.job = segments->id;
      call.name = std::move(segments->name);
      break;
    }
  }
  if (target.route != nullptr && target.route->role == Role::anyone) return target;
  target.has_token = head.count(http::field::authorization) != 0;
  const auto who = principal(head);
  if (!who) {
    target.refused = 401;
    return target;
  }
  call.user = who->user;
  call.role = who->role;
  call.token = who->token;
  if (target.route != nullptr && who->role < target.route->role) target.refused = 403;
  return target;
}

Answer Connection::refusal_of(const Target& target) const {
  ++(target.refused == 401 ? server_->unauthorized : server_->forbidden);
  std::string message = "a token is needed: Authorization: Bearer TOKEN";
  if (target.refused == 401 && target.has_token) {
    message = "the token is good for nothing here: revoked, expired, or of another cluster";
  }
  if (target.refused == 403) {
    message = target.call.user + " may not do this: it needs the role " +
              std::string(coordinator::name_of(target.route->role)) + ", the token has " +
              std::string(coordinator::name_of(target.call.role));
  }
  Answer refusal = error_answer({ErrorCode::permission_denied, std::move(message)});
  refusal.status = target.refused;
  return refusal;
}

void Connection::tell_denied(const Target& target, const Answer& answer) const {
  if (answer.status != 403 || !server_->on_denied || target.call.user.empty()) return;
  server_->on_denied(
      target.call.caller("denied", target.call.method + " " + target.call.path, answer.error));
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
  for (const auto& [name, value] : answer.headers) response.set(name, value);
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

// Waits for a request's first bytes, then for its header: who is slow with the one or idle with the
// other has a deadline of his own for each.
asio::awaitable<bool> Connection::read_header(Parser& parser) {
  error_code failure;
  if (buffer_.size() == 0) {
    set_idle();
    stream_.expires_after(kIdleMax);
    const std::size_t count = co_await stream_.async_read_some(
        buffer_.prepare(kFirstBytes), asio::redirect_error(asio::use_awaitable, failure));
    buffer_.commit(count);
    idle_ns_ = -1;
    if (failure) co_return false;
  }
  parser.header_limit(static_cast<std::uint32_t>(HttpServer::kHeaderBytesMax));
  parser.body_limit(boost::none);  // the header decides first who may send how much
  stream_.expires_after(server_->header_within);
  co_await http::async_read_header(stream_, buffer_, parser,
                                   asio::redirect_error(asio::use_awaitable, failure));
  co_return !failure;
}

// The body; false: the connection has ended, perhaps with a refusal.
asio::awaitable<bool> Connection::read_body(Parser& parser) {
  error_code failure;
  if (parser.content_length().value_or(0) > HttpServer::kRequestBytesMax)
    failure = http::error::body_limit;
  parser.body_limit(HttpServer::kRequestBytesMax);
  stream_.expires_after(kRequestWithin);
  if (!failure) {
    co_await http::async_read(stream_, buffer_, parser,
                              asio::redirect_error(asio::use_awaitable, failure));
  }
  if (failure == http::error::body_limit) {
    Answer refusal = error_answer({ErrorCode::invalid_argument, "the request's body is too large"});
    refusal.status = 413;
    server_->count(nullptr, refusal.status);
    co_await refuse(std::move(refusal), parser.get());
  }
  co_return !failure;
}

asio::awaitable<void> Connection::serve() {
  const auto self = shared_from_this();
  error_code failure;
  stream_.socket().set_option(tcp::no_delay(true), failure);
  for (bool go_on = true; go_on && server_->open;) {
    Parser parser;
    if (!co_await read_header(parser)) break;
    ++server_->requests;
    Target target = find(parser.get());
    if (target.refused == 0) {
      token_ = static_cast<std::int64_t>(target.call.token);
      if (!co_await read_body(parser)) break;
      // It may have been revoked while the body was on its way, before token_ was seen.
      const bool is_public = target.route != nullptr && target.route->role == Role::anyone;
      if (!is_public && !server_->access.is_good(target.call.token, wall_now().unix_ms))
        target.refused = 401;
    }
    if (target.refused != 0) {
      server_->count(target.route, target.refused);
      Answer refusal = refusal_of(target);
      tell_denied(target, refusal);
      co_await refuse(std::move(refusal), parser.get());
      break;
    }
    Request request = parser.release();
    target.call.body = std::move(request.body());
    target.call.gone = [self] { return self->client_gone(); };
    stream_.expires_never();
    Answer given = co_await answer(target);
    server_->count(target.route, given.status);
    tell_denied(target, given);
    go_on = co_await write(std::move(given), request);
    token_ = -1;
  }
  stream_.socket().shutdown(tcp::socket::shutdown_send, failure);
}

// Ends the connection that has been idle for longest, if there is one.
bool make_room(HttpServer::State& server) {
  std::shared_ptr<Connection> longest;
  Instant since;
  for (const auto& weak : server.connections) {
    const auto connection = weak.lock();
    const auto idle = connection ? connection->idle_since() : std::nullopt;
    if (!idle || (longest && *idle >= since)) continue;
    longest = connection;
    since = *idle;
  }
  if (longest) longest->end();
  return longest != nullptr;
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
      if (server->connections.size() >= HttpServer::kConnectionsMax && !make_room(*server)) {
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
  TUTTI_ASSERT(options.access != nullptr);
  auto state = std::make_shared<State>(runtime, *options.access);
  state->header_within = options.header_within;
  state->on_denied = options.on_denied;
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
  state_->counts.resize(state_->routes.size() + 1);
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

void HttpServer::end_of(std::uint64_t token) {
  const std::lock_guard lock(state_->guard);
  for (const auto& weak : state_->connections) {
    const auto connection = weak.lock();
    if (connection && connection->token() == token) connection->end();
  }
}

std::vector<RouteCount> HttpServer::route_counts() const {
  const std::lock_guard lock(state_->counts_guard);
  std::vector<RouteCount> out;
  for (std::size_t i = 0; i < state_->counts.size(); ++i) {
    if (i == 0) {
      out.push_back({"", "", state_->counts[i]});
    } else {
      const Route& route = state_->routes[i - 1];
      out.push_back({route.method, route.path, state_->counts[i]});
    }
  }
  return out;
}

std::uint16_t HttpServer::port() const { return state_->port; }

HttpServerCounters HttpServer::counters() const {
  HttpServerCounters out;
  const std::lock_guard lock(state_->guard);
  for (const auto& connection : state_->connections)
    out.connections += connection.expired() ? 0u : 1u;
  out.requests = state_->requests;
  out.unauthorized = state_->unauthorized;
  out.forbidden = state_->forbidden;
  out.refused = state_->refused;
  return out;
}

}  // namespace tutti::api
