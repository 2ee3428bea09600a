// The HTTP server of the API and the gateway: connections, limits, tokens, routes.
//
// Everything but `anyone` routes needs `Authorization: Bearer TOKEN`; without a known token the
// answer is 401 and nothing else, whatever the path, and with one whose role is too small 403. A
// token is looked up for each request; what is still being answered when it is revoked is ended
// (end_of). Connections are kept alive. Answers to `HEAD` and unknown methods are 404 like unknown
// paths.
//
// Threads: start and stop before the runtime runs, or on any thread. Ownership: routes' handlers
// and the table of tokens must outlive it. Limits: kConnectionsMax, kRequestBytesMax,
// kHeaderBytesMax; a header must arrive within 10 s of its first byte's turn, a body within 30 s, a
// client must take a part of an answer within 30 s; a connection may idle for 60 s, and the one
// that has idled longest makes room where there are too many.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/access/access_table.h"
#include "protocol/actor/runtime.h"
#include "protocol/base/clock.h"
#include "protocol/base/result.h"

namespace tutti::api {

struct Route;

struct HttpServerOptions {
  std::string host = "127.0.0.1";  // numeric
  std::uint16_t port = 0;          // 0: the system chooses
  const coordinator::AccessTable* access = nullptr;
  Duration header_within = std::chrono::seconds(10);
  // Somebody with a good token asked for what he may not do: action "denied", the request as
  // target, and why. Any thread.
  std::function<void(coordinator::Caller)> on_denied = {};
};

// Of one route, or (empty path) of what no route took.
struct RouteCount {
  std::string method;
  std::string path;
  std::map<unsigned, std::uint64_t> by_status;
};

struct HttpServerCounters {
  std::uint64_t connections = 0;  // open now
  std::uint64_t requests = 0;
  std::uint64_t unauthorized = 0;
  std::uint64_t forbidden = 0;
  std::uint64_t refused = 0;  // connections above the limit
};

class HttpServer {
 public:
  static constexpr std::size_t kConnectionsMax = 1024;
  static constexpr std::size_t kRequestBytesMax = std::size_t{4} << 20;
  static constexpr std::size_t kHeaderBytesMax = std::size_t{16} << 10;

  // Listens. Errors: already_exists (port taken), invalid_argument (host), permission_denied.
  static Result<std::unique_ptr<HttpServer>> open(actor::Runtime& runtime,
                                                  const HttpServerOptions& options);
  ~HttpServer();

  // Begins to serve.
  void start(std::vector<Route> routes);
  // Takes no more connections and ends those that are open.
  void stop();
  // Ends the connections on which a request with this token is being answered. Any thread.
  void end_of(std::uint64_t token);

  std::uint16_t port() const;
  HttpServerCounters counters() const;
  std::vector<RouteCount> route_counts() const;

  struct State;
  explicit HttpServer(std::shared_ptr<State> state);

 private:
  std::shared_ptr<State> state_;
};

}  // namespace tutti::api
