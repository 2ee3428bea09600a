// The gateway: OpenAI-compatible requests on one side, serving ranks on the other.
//
//   HTTP connection --Generate--> Gateway --its own link per serve job--> rank
//                   <--Generated, one or many, the last with `finish`----
//
// Every accepted request gets one answer or one explicit error (I18): when a rank's link ends, or
// its job stops serving, each request that is open there is answered with an error. Inference has
// its own strand and links, so that it never queues behind scheduling.
//
// Threads: all functions from any thread. Ownership: outlives the HTTP server that has its routes.
// Limits: those of GatewaySettings (gateway_state.h); README.md tells what clients see.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "protocol/actor/runtime.h"
#include "protocol/base/ids.h"

namespace tutti::api {
struct Route;
}

namespace tutti::gateway {

struct Serving {
  JobId job;
  std::string model;     // what clients ask for
  std::string endpoint;  // tcp://HOST:PORT of the rank
  std::string key;       // its CURVE public key
};

class Gateway {
 public:
  explicit Gateway(actor::Runtime& runtime);
  ~Gateway();
  Gateway(const Gateway&) = delete;
  Gateway& operator=(const Gateway&) = delete;

  // The job takes requests there; replaces what was known of it.
  void open(const Serving& serving);
  void close(JobId job);

  std::vector<api::Route> routes();
  std::string metrics() const;  // Prometheus text

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace tutti::gateway
