// A blocking HTTP client for the coordinator's API: JSON requests, and answers that stream
// (server-sent events, completions).
//
//   auto client = HttpClient::connect_to({.url = "http://127.0.0.1:40123", .token = token});
//   auto answer = client->request({.method = "GET", .target = "/api/v1/jobs"});
//   auto done = client->stream({.target = "/api/v1/events", .accept = "text/event-stream"},
//   [](std::string_view part) {
//     return keep_going;
//   });
//
// One connection, kept alive between requests and made again when it has ended. Plain http only.
//
// Threads: one at a time. Limits: kAnswerBytesMax for an answer that does not stream.
// Errors: unavailable (cannot connect, connection lost), deadline_exceeded, exhausted (too long),
// corrupt (not HTTP), aborted (the callback ended a stream). An HTTP status of 400 and more is an
// answer, not an error; see error_of.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "protocol/base/clock.h"
#include "protocol/base/result.h"

namespace tutti::api {

inline constexpr std::size_t kAnswerBytesMax = std::size_t{64} << 20;

struct HttpAddress {
  std::string url;    // http://HOST:PORT
  std::string token;  // sent as bearer token; empty: none
};

struct HttpRequest {
  std::string method = "GET";
  std::string target = "/";  // path and query, already encoded
  std::string body = {};     // JSON, if not empty
  std::string accept = "application/json";
  // request: for the whole answer; stream: until its header, and then from one part to the next.
  Duration deadline = std::chrono::seconds(40);
};

struct HttpAnswer {
  unsigned status = 0;
  std::string content_type;
  std::string body;  // of a stream: only if the status is 400 or more
};

class HttpClient {
 public:
  // Only looks at the URL. Errors: invalid_argument.
  static Result<std::unique_ptr<HttpClient>> connect_to(const HttpAddress& server);
  ~HttpClient();

  Result<HttpAnswer> request(const HttpRequest& request);

  // Hands the body over as it comes, until it ends or `on_part` returns false.
  Result<HttpAnswer> stream(const HttpRequest& request,
                            const std::function<bool(std::string_view part)>& on_part);

  struct State;
  explicit HttpClient(std::unique_ptr<State> state);

 private:
  std::unique_ptr<State> state_;
};

// The Error of an answer with status 400 or more, as the API writes it ({"error": {"code",
// "message"}}).
Error error_of(const HttpAnswer& answer);

// Percent-encodes a query value.
std::string encode_query(std::string_view value);

}  // namespace tutti::api
