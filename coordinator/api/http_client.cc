#include "coordinator/api/http_client.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <boost/json/parse.hpp>
#include <boost/url/parse.hpp>

#include <optional>

namespace tutti::api {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

constexpr Duration kConnectWithin = std::chrono::seconds(5);

Error error_from(const error_code& code, std::string_view what) {
  const std::string message = std::string(what) + ": " + code.message();
  if (code == beast::error::timeout)
    return {ErrorCode::deadline_exceeded, std::string(what) + ": no answer within the deadline"};
  if (code == http::error::body_limit || code == http::error::header_limit)
    return {ErrorCode::exhausted, message};
  if (code.category() == make_error_code(http::error::end_of_stream).category() &&
      code != http::error::end_of_stream && code != http::error::partial_message) {
    return {ErrorCode::corrupt, message};
  }
  return {ErrorCode::unavailable, message};
}

}  // namespace

struct HttpClient::State {
  asio::io_context context;
  std::string url;
  std::string host;
  std::string port;
  std::string token;
  std::unique_ptr<beast::tcp_stream> stream;  // null: not connected
  beast::flat_buffer buffer;

  // Runs the one operation that was started, whose handler sets `code`.
  error_code finish(error_code& code) {
    context.restart();
    context.run();
    return code;
  }
  auto result_in(error_code& code) {
    return [&code](error_code result, auto&&...) { code = result; };
  }

  Result<> connect() {
    if (stream) return {};
    error_code code;
    asio::ip::tcp::resolver resolver(context);
    const auto endpoints = resolver.resolve(host, port, code);
    if (code) return Error{ErrorCode::unavailable, "cannot find " + host + ": " + code.message()};
    stream = std::make_unique<beast::tcp_stream>(context);
    buffer.clear();
    stream->expires_after(kConnectWithin);
    stream->async_connect(endpoints, result_in(code));
    if (finish(code)) {
      stream.reset();
      return error_from(code, "cannot connect to " + url);
    }
    stream->socket().set_option(asio::ip::tcp::no_delay(true), code);
    return {};
  }

  error_code send(const HttpRequest& request) {
    http::request<http::string_body> message(http::string_to_verb(request.method), request.target,
                                             11);
    message.set(http::field::host, host + ":" + port);
    message.set(http::field::accept, request.accept);
    message.set(http::field::user_agent, "tutti");
    if (!token.empty()) message.set(http::field::authorization, "Bearer " + token);
    if (!request.body.empty()) message.set(http::field::content_type, "application/json");
    message.body() = request.body;
    message.prepare_payload();
    stream->expires_after(request.deadline);
    error_code code;
    http::async_write(*stream, message, result_in(code));
    return finish(code);
  }

  // Sends and reads the header. A kept connection that the server has closed meanwhile is made
  // anew, once.
  template <class Body>
  Result<> begin(const HttpRequest& request, std::optional<http::response_parser<Body>>& parser,
                 std::uint64_t body_max) {
    for (bool kept = stream != nullptr;; kept = false) {
      if (Result<> connected = connect(); !connected) return connected;
      parser.emplace();
      parser->body_limit(body_max);
      error_code code = send(request);
      if (!code) {
        http::async_read_header(*stream, buffer, *parser, result_in(code));
        finish(code);
      }
      if (!code) return {};
      stream.reset();
      const bool nothing_came = code != beast::error::timeout && !parser->got_some();
      if (!kept || !nothing_came) return error_from(code, request.method + " " + request.target);
    }
  }
};

HttpClient::HttpClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
HttpClient::~HttpClient() = default;

Result<std::unique_ptr<HttpClient>> HttpClient::connect_to(const HttpAddress& server) {
  const auto parsed = boost::urls::parse_uri(server.url);
  if (!parsed || parsed->scheme() != "http" || parsed->host().empty()) {
    return Error{ErrorCode::invalid_argument,
                 "not a URL of the form http://HOST:PORT: " + server.url};
  }
  auto state = std::make_unique<State>();
  state->url = server.url;
  state->host = parsed->host_address();
  state->port = parsed->has_port() ? std::string(parsed->port()) : "80";
  state->token = server.token;
  return std::make_unique<HttpClient>(std::move(state));
}

Result<HttpAnswer> HttpClient::request(const HttpRequest& request) {
  std::optional<http::response_parser<http::string_body>> parser;
  if (Result<> begun = state_->begin(request, parser, kAnswerBytesMax); !begun)
    return begun.error();
  error_code code;
  http::async_read(*state_->stream, state_->buffer, *parser, state_->result_in(code));
  if (state_->finish(code)) {
    state_->stream.reset();
    return error_from(code, request.method + " " + request.target);
  }
  if (!parser->keep_alive()) state_->stream.reset();
  auto& message = parser->get();
  return HttpAnswer{message.result_int(), std::string(message[http::field::content_type]),
                    std::move(message.body())};
}

Result<HttpAnswer> HttpClient::stream(const HttpRequest& request,
                                      const std::function<bool(std::string_view)>& on_part) {
  std::optional<http::response_parser<http::buffer_body>> parser;
  if (Result<> begun = state_->begin(request, parser, ~std::uint64_t{0}); !begun)
    return begun.error();
  HttpAnswer answer{
      parser->get().result_int(), std::string(parser->get()[http::field::content_type]), {}};
  // A connection whose stream was not read to its end is of no further use.
  const std::unique_ptr<beast::tcp_stream> connection = std::move(state_->stream);
  std::string part(16 << 10, '\0');
  while (!parser->is_done()) {
    auto& body = parser->get().body();
    body.data = part.data();
    body.size = part.size();
    error_code code;
    connection->expires_after(request.deadline);
    http::async_read_some(*connection, state_->buffer, *parser, state_->result_in(code));
    state_->finish(code);
    if (code == http::error::need_buffer) code = {};
    const std::string_view got(part.data(), part.size() - body.size);
    if (answer.status >= 400) {
      if (answer.body.size() < kAnswerBytesMax) answer.body.append(got);
    } else if (!got.empty() && !on_part(got)) {
      return Error{ErrorCode::aborted, "the stream was ended by its reader"};
    }
    if (code) return error_from(code, request.method + " " + request.target);
  }
  return answer;
}

Error error_of(const HttpAnswer& answer) {
  Error error{ErrorCode::internal, "HTTP status " + std::to_string(answer.status)};
  error_code code;
  const boost::json::value parsed = boost::json::parse(answer.body, code);
  const auto* object = code ? nullptr : parsed.if_object();
  const auto* inner = object ? object->if_contains("error") : nullptr;
  const auto* fields = inner ? inner->if_object() : nullptr;
  if (fields == nullptr) return error;
  if (const auto* message = fields->if_contains("message"); message && message->is_string()) {
    error.message = message->as_string().c_str();
  }
  const auto* name = fields->if_contains("code");
  if (name == nullptr || !name->is_string()) return error;
  for (int i = 0; i <= static_cast<int>(ErrorCode::internal); ++i) {
    if (to_string(static_cast<ErrorCode>(i)) == std::string_view(name->as_string()))
      error.code = static_cast<ErrorCode>(i);
  }
  return error;
}

std::string encode_query(std::string_view value) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string out;
  for (const char c : value) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      out.push_back(c);
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out.push_back('%');
    out.push_back(kDigits[byte >> 4]);
    out.push_back(kDigits[byte & 15]);
  }
  return out;
}

}  // namespace tutti::api
