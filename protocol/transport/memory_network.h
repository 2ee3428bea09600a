// The in-memory twin of endpoint.h: the same interfaces within one process, without sockets, with
// cuts on demand.
//
// For tests of hosts: frames arrive in order, on the receiver's strand, unless the client is cut
// off; a cut or ended client is gone from the server at once and frames to and from it are refused,
// as with a connection that has ended.
//
// Threads: any. Ownership: outlives its endpoints.
#pragma once

#include <memory>
#include <string>

#include "protocol/transport/endpoint.h"

namespace tutti::transport {

class MemoryNetwork {
 public:
  MemoryNetwork();
  MemoryNetwork(const MemoryNetwork&) = delete;
  MemoryNetwork& operator=(const MemoryNetwork&) = delete;
  ~MemoryNetwork();

  // `address` of the options names the server ("memory:coordinator"); keys are ignored. Errors:
  // already_exists.
  Result<std::unique_ptr<ServerEndpoint>> open_server(actor::ActorHost& host,
                                                      const ServerOptions& options,
                                                      ServerHandlers handlers);
  Result<std::unique_ptr<ClientEndpoint>> open_client(actor::ActorHost& host,
                                                      const ClientOptions& options,
                                                      ClientHandlers handlers);

  // Ends the client's connection and keeps it ended until heal, which connects it again
  // (on_connected is called).
  void cut(const std::string& routing_id);
  void heal(const std::string& routing_id);

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace tutti::transport
