// The HTTP server of the API and the gateway: connections, limits, tokens, routes.
//
// Everything but `anyone` routes needs `Authorization: Bearer TOKEN`; without a known token the
// answer is 401 and nothing else, whatever the path. Connections are kept alive. Answers to `HEAD`
// and unknown methods are 404 like unknown paths.
//
// Threads: start and stop before the runtime runs, or on any thread. Ownership: routes' handlers
// must outlive it. Limits: kConnectionsMax, kRequestBytesMax, kHeaderBytesMax; a request must
// arrive within 30 s, a connection may idle for 60.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "protocol/actor/runtime.h"
#include "protocol/base/result.h"

namespace tutti::api {

struct Route;

struct HttpServerOptions {
  std::string host = "127.0.0.1";  // numeric
  std::uint16_t port = 0;          // 0: the system chooses
  std::string token;               // of the admin
};

struct HttpServerCounters {
  std::uint64_t connections = 0;  // open now
  std::uint64_t requests = 0;
  std::uint64_t unauthorized = 0;
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

  std::uint16_t port() const;
  HttpServerCounters counters() const;

  struct State;
  explicit HttpServer(std::shared_ptr<State> state);

 private:
  std::shared_ptr<State> state_;
};

}  // namespace tutti::api
