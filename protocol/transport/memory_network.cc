#include "protocol/transport/memory_network.h"

#include <map>
#include <mutex>
#include <set>

namespace tutti::transport {

namespace {

struct Server {
  actor::ActorHost* host;
  ServerHandlers handlers;
};

struct Client {
  actor::ActorHost* host;
  std::string server;
  ClientHandlers handlers;
  bool connected = false;
};

}  // namespace

struct MemoryNetwork::State {
  std::mutex guard;
  std::map<std::string, std::shared_ptr<Server>> servers;
  std::map<std::string, std::shared_ptr<Client>> clients;
  std::set<std::string> cuts;

  // With `guard` held. Connects if both ends are there and nothing is cut.
  void connect(const std::string& id, const std::shared_ptr<Client>& client) {
    if (client->connected || cuts.contains(id) || !servers.contains(client->server)) return;
    client->connected = true;
    notify(client, client->handlers.on_connected);
  }
  void disconnect(const std::shared_ptr<Client>& client) {
    if (!client->connected) return;
    client->connected = false;
    notify(client, client->handlers.on_disconnected);
  }
  static void notify(const std::shared_ptr<Client>& client, const std::function<void()>& handler) {
    if (!handler) return;
    // A handler of an endpoint that has gone meanwhile must not run: the weak pointer ends with it.
    static_cast<void>(client->host->tell([weak = std::weak_ptr<Client>(client), handler] {
      if (weak.lock()) handler();
    }));
  }
};

namespace {

class MemoryServer final : public ServerEndpoint {
 public:
  MemoryServer(std::shared_ptr<MemoryNetwork::State> network, std::string address)
      : network_(std::move(network)), address_(std::move(address)) {}
  MemoryServer(const MemoryServer&) = delete;
  MemoryServer& operator=(const MemoryServer&) = delete;
  ~MemoryServer() override {
    const std::lock_guard lock(network_->guard);
    network_->servers.erase(address_);
    for (auto& [id, client] : network_->clients) {
      if (client->server == address_) network_->disconnect(client);
    }
  }

  Result<> send(std::string_view peer, std::string_view frame) override {
    const std::lock_guard lock(network_->guard);
    const auto found = network_->clients.find(std::string(peer));
    if (found == network_->clients.end() || !found->second->connected ||
        found->second->server != address_) {
      ++counters_.refused_out;
      return Error{ErrorCode::unavailable, "the peer is not connected"};
    }
    const std::shared_ptr<Client>& client = found->second;
    Result<> told = client->host->tell(
        [weak = std::weak_ptr<Client>(client), bytes = std::string(frame)]() mutable {
          if (const auto receiver = weak.lock()) receiver->handlers.on_frame(std::move(bytes));
        });
    ++(told ? counters_.frames_out : counters_.refused_out);
    return told;
  }

  const std::string& address() const override { return address_; }
  Result<std::string> add_address(const std::string&, const KeyPair&) override {
    return Error{ErrorCode::unsupported, "links in memory have one address and no keys"};
  }
  void remove_address(const std::string&) override {}
  const std::string& sender_key() const override { return no_key_; }
  const EndpointCounters& counters() const override { return counters_; }

 private:
  std::shared_ptr<MemoryNetwork::State> network_;
  std::string address_;
  const std::string no_key_;
  EndpointCounters counters_;
};

class MemoryClient final : public ClientEndpoint {
 public:
  MemoryClient(std::shared_ptr<MemoryNetwork::State> network, std::string routing_id)
      : network_(std::move(network)), routing_id_(std::move(routing_id)) {}
  MemoryClient(const MemoryClient&) = delete;
  MemoryClient& operator=(const MemoryClient&) = delete;
  ~MemoryClient() override {
    const std::lock_guard lock(network_->guard);
    network_->clients.erase(routing_id_);
  }

  Result<> send(std::string_view frame) override {
    const std::lock_guard lock(network_->guard);
    const auto found = network_->clients.find(routing_id_);
    if (found == network_->clients.end() || !found->second->connected) {
      ++counters_.refused_out;
      return Error{ErrorCode::unavailable, "not connected"};
    }
    const std::shared_ptr<Server> server = network_->servers.at(found->second->server);
    Result<> told = server->host->tell([weak = std::weak_ptr<Server>(server), from = routing_id_,
                                        bytes = std::string(frame)]() mutable {
      if (const auto receiver = weak.lock()) receiver->handlers.on_frame(from, std::move(bytes));
    });
    ++(told ? counters_.frames_out : counters_.refused_out);
    return told;
  }

  const EndpointCounters& counters() const override { return counters_; }

 private:
  std::shared_ptr<MemoryNetwork::State> network_;
  std::string routing_id_;
  EndpointCounters counters_;
};

}  // namespace

MemoryNetwork::MemoryNetwork() : state_(std::make_shared<State>()) {}
MemoryNetwork::~MemoryNetwork() = default;

Result<std::unique_ptr<ServerEndpoint>> MemoryNetwork::open_server(actor::ActorHost& host,
                                                                   const ServerOptions& options,
                                                                   ServerHandlers handlers) {
  const std::lock_guard lock(state_->guard);
  auto server = std::make_shared<Server>(Server{&host, std::move(handlers)});
  if (!state_->servers.try_emplace(options.address, server).second) {
    return Error{ErrorCode::already_exists, "there is a server at " + options.address};
  }
  for (auto& [id, client] : state_->clients) {
    if (client->server == options.address) state_->connect(id, client);
  }
  return std::unique_ptr<ServerEndpoint>(std::make_unique<MemoryServer>(state_, options.address));
}

Result<std::unique_ptr<ClientEndpoint>> MemoryNetwork::open_client(actor::ActorHost& host,
                                                                   const ClientOptions& options,
                                                                   ClientHandlers handlers) {
  const std::lock_guard lock(state_->guard);
  auto client = std::make_shared<Client>(Client{&host, options.address, std::move(handlers)});
  if (!state_->clients.try_emplace(options.routing_id, client).second) {
    return Error{ErrorCode::already_exists, "there is a client called " + options.routing_id};
  }
  state_->connect(options.routing_id, client);
  return std::unique_ptr<ClientEndpoint>(
      std::make_unique<MemoryClient>(state_, options.routing_id));
}

void MemoryNetwork::cut(const std::string& routing_id) {
  const std::lock_guard lock(state_->guard);
  state_->cuts.insert(routing_id);
  if (const auto found = state_->clients.find(routing_id); found != state_->clients.end()) {
    state_->disconnect(found->second);
  }
}

void MemoryNetwork::heal(const std::string& routing_id) {
  const std::lock_guard lock(state_->guard);
  state_->cuts.erase(routing_id);
  if (const auto found = state_->clients.find(routing_id); found != state_->clients.end()) {
    state_->connect(routing_id, found->second);
  }
}

}  // namespace tutti::transport
