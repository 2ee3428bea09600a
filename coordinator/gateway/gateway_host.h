// The gateway's actor: which jobs serve which model, a link to each, and the requests that are open
// there.
//
// Threads: everything on host()'s strand; `counters` from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/gateway/gateway.h"
#include "coordinator/gateway/open_request.h"
#include "protocol/actor/actor_host.h"
#include "protocol/base/result.h"
#include "protocol/transport/endpoint.h"
#include "protocol/wire/counters.h"

namespace tutti::gateway {

struct GatewayCounters {
  std::atomic<std::uint64_t> requests{0};
  std::atomic<std::uint64_t> finished{0};
  std::atomic<std::uint64_t> failed{0};
  std::atomic<std::uint64_t> prompt_tokens{0};
  std::atomic<std::uint64_t> completion_tokens{0};
};

class GatewayHost {
 public:
  explicit GatewayHost(actor::Runtime& runtime);

  actor::ActorHost& host() { return host_; }

  void open(const Serving& serving);
  void close(JobId job);
  std::vector<std::string> models() const;  // each once, in order

  // Sends the request to the job that serves the model and has the fewest open ones. Errors:
  // not_found (no such model), exhausted.
  using Begun = std::shared_ptr<OpenRequest>;
  Result<Begun> begin(const std::string& model, wire::Generate generate);
  // The client has gone: the rank need not go on. Nothing if it has finished.
  void abandon(const Begun& request);

  const GatewayCounters& counters() const { return counters_; }

 private:
  struct Backend {
    Serving serving;
    std::unique_ptr<transport::ClientEndpoint> link;
    bool connected = false;
    std::map<std::uint64_t, Begun> open;  // by request
  };

  void on_frame(JobId job, const std::string& frame);
  void on_connected(JobId job);
  void fail_all(Backend& backend, const Error& error);
  void send(Backend& backend, const Begun& request);
  void count_end(const wire::Generated& last);

  actor::ActorHost host_;
  std::map<JobId, Backend> backends_;
  std::uint64_t last_request_ = 0;
  std::size_t open_requests_ = 0;
  wire::FrameCounters frames_;
  GatewayCounters counters_;
};

}  // namespace tutti::gateway
