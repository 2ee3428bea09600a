// The shell around GatewayState: a link to each serving rank, and a mailbox for each open request.
//
// Threads: everything on host()'s strand; `metrics` from any. shut() also once the runtime has
// stopped.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "coordinator/gateway/gateway_state.h"
#include "coordinator/gateway/open_request.h"
#include "protocol/actor/actor_host.h"
#include "protocol/transport/endpoint.h"
#include "protocol/wire/counters.h"

namespace tutti::gateway {

struct GatewayMetrics {
  GatewayCounters counters;
  std::size_t open_requests = 0;
  std::size_t links = 0;
};

class GatewayHost {
 public:
  using Begun = std::shared_ptr<OpenRequest>;

  GatewayHost(actor::Runtime& runtime, const GatewaySettings& settings);
  ~GatewayHost();

  actor::ActorHost& host() { return host_; }

  void open(ServingOpened serving);
  void close(JobId job);
  std::vector<std::string> models() const { return state_.models(); }

  // Whatever becomes of it, the answer or the error is a part of the request.
  Begun begin(std::string model, wire::Generate generate);
  // The client has gone: the rank need not go on. Nothing if it has finished.
  void leave(RequestId request);
  // Every link ends, and nothing is heard any more.
  void shut();

  GatewayMetrics metrics() const;

 private:
  void run(Input input);
  void rearm();
  void on_frame(LinkId link, const std::string& frame);

  void perform(const OpenLink& effect);
  void perform(const CloseLink& effect);
  void perform(const SendToServer& effect);
  void perform(Give& effect);
  void perform(const Fail& effect);

  actor::ActorHost host_;
  GatewayState state_;
  std::deque<Input> inbox_;  // what performing an effect gave
  std::map<LinkId, std::unique_ptr<transport::ClientEndpoint>> links_;
  std::map<RequestId, Begun> open_;
  std::uint64_t last_request_ = 0;
  wire::FrameCounters frames_;
  actor::TimerId timer_ = 0;
  Instant timer_due_;

  mutable std::mutex guard_;  // of metrics_
  GatewayMetrics metrics_;
};

}  // namespace tutti::gateway
