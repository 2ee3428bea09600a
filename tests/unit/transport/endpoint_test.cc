#include "protocol/transport/endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <fstream>
#include <functional>
#include <future>

#include "protocol/base/file.h"
#include "protocol/transport/liveness.h"
#include "protocol/transport/memory_network.h"
#include "protocol/wire/frame.h"
#include "tests/support/event_log.h"
#include "tests/support/on_strand.h"
#include "tests/support/patience.h"
#include "tests/support/temporary_folder.h"

namespace tutti::transport {
namespace {

using test::on_strand;
using Lines = std::vector<std::string>;

// Asks on the strand until the answer is yes, for ten seconds at most.
bool eventually(actor::ActorHost& host, const std::function<bool()>& question) {
  const Instant until = monotonic_now() + test::patient(std::chrono::seconds(10));
  for (bool yes = false; monotonic_now() < until;) {
    on_strand(host, [&] { yes = question(); });
    if (yes) return true;
  }
  return false;
}

// A server that answers "echo FRAME", and a client that says "hello" whenever it is connected.
struct Echo {
  using OpenServer = std::function<Result<std::unique_ptr<ServerEndpoint>>(
      actor::ActorHost&, const ServerOptions&, ServerHandlers)>;
  using OpenClient = std::function<Result<std::unique_ptr<ClientEndpoint>>(
      actor::ActorHost&, const ClientOptions&, ClientHandlers)>;

  void start_server(const ServerOptions& options) {
    on_strand(host, [&] {
      auto opened = open_server_with(
          host, options, {.on_frame = [this](const std::string& peer, std::string frame) {
            at_server.add(peer + ": " + frame.substr(0, 20));
            static_cast<void>(server->send(peer, "echo " + frame));
          }});
      REQUIRE(opened.ok());
      server = *std::move(opened);
    });
  }
  void start_client(const ClientOptions& options) {
    on_strand(host, [&] {
      auto opened = open_client_with(
          host, options,
          {.on_frame = [this](std::string frame) { at_client.add(std::move(frame)); },
           .on_connected = [this] { static_cast<void>(client->send("hello")); },
           .on_disconnected = [this] { at_client.add("disconnected"); }});
      REQUIRE(opened.ok());
      client = *std::move(opened);
    });
  }
  void stop() {
    on_strand(host, [&] {
      client.reset();
      server.reset();
    });
    runtime.stop();
  }

  OpenServer open_server_with = open_server;
  OpenClient open_client_with = open_client;
  test::EventLog at_server;
  test::EventLog at_client;
  actor::Runtime runtime{1};
  actor::ActorHost host{runtime};
  std::unique_ptr<ServerEndpoint> server;
  std::unique_ptr<ClientEndpoint> client;
};

ClientOptions client_of(const ServerEndpoint& server, const KeyPair& keys) {
  ClientOptions options;
  options.address = server.address();
  options.routing_id = "node-a.1";
  options.server_key = keys.public_key;
  return options;
}

TEST_CASE("endpoint: frames go both ways, and a client finds a restarted server again") {
  Echo echo;
  echo.runtime.start();
  ServerOptions options;
  options.keys = make_keys();
  // An address of its own: while the server is down, nothing else on this machine takes its port.
  const auto self = static_cast<unsigned>(::getpid());
  const std::string host = "tcp://127." + std::to_string(1 + self % 200) + '.' +
                           std::to_string(self / 200 % 256) + ".9:";
  options.address = host + '0';
  echo.start_server(options);
  CHECK(echo.server->address().starts_with(host));
  echo.start_client(client_of(*echo.server, options.keys));
  REQUIRE(echo.at_client.wait_for(1));
  on_strand(echo.host, [&] {
    for (int i = 0; i < 500; ++i) CHECK(echo.client->send(std::to_string(i)).ok());
    CHECK(echo.server->send("nobody", "x").error().code == ErrorCode::unavailable);
  });
  REQUIRE(echo.at_client.wait_for(501));
  CHECK(echo.at_client.lines()[500] == "echo 499");

  on_strand(echo.host, [&] {
    options.address = echo.server->address();
    echo.server.reset();
  });
  REQUIRE(echo.at_client.wait_for(502));
  on_strand(echo.host,
            [&] { CHECK(echo.client->send("lost").error().code == ErrorCode::unavailable); });
  echo.start_server(options);
  REQUIRE(echo.at_client.wait_for(503));
  CHECK(echo.at_client.lines()[501] == "disconnected");
  CHECK(echo.at_client.lines()[502] == "echo hello");
  on_strand(echo.host, [&] { CHECK(echo.server->counters().connected == 1); });
  echo.stop();
}

TEST_CASE(
    "endpoint: a client with the wrong server key, or without keys, never connects and is "
    "counted") {
  Echo echo;
  echo.runtime.start();
  ServerOptions options;
  options.keys = make_keys();
  echo.start_server(options);
  ClientOptions wrong = client_of(*echo.server, make_keys());
  SECTION("wrong key") {}
  SECTION("no encryption") { wrong.security = Security::open; }
  echo.start_client(wrong);
  REQUIRE(eventually(echo.host, [&] { return echo.server->counters().handshakes_failed > 0; }));
  CHECK(echo.at_server.lines().empty());
  CHECK(echo.at_client.lines().empty());
  echo.stop();
}

TEST_CASE("endpoint: plain noise and an oversized frame are counted, and others are served on") {
  Echo echo;
  echo.runtime.start();
  ServerOptions options;
  options.keys = make_keys();
  echo.start_server(options);
  const std::string& address = echo.server->address();
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port =
      htons(static_cast<std::uint16_t>(std::stoul(address.substr(address.rfind(':') + 1))));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const FileDescriptor noise(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::connect(noise.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0);
  const std::string bytes(1000, '\x7f');
  REQUIRE(::send(noise.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == 1000);
  REQUIRE(eventually(echo.host, [&] { return echo.server->counters().disconnected > 0; }));
  echo.start_client(client_of(*echo.server, options.keys));
  REQUIRE(echo.at_client.wait_for(1));
  on_strand(echo.host, [&] {
    CHECK(echo.client->send(std::string(wire::kFrameBytesMax + 1, 'x')).ok());
    CHECK(echo.client->send("after").ok());
  });
  REQUIRE(echo.at_client.wait_for(2));
  CHECK(echo.at_client.lines() == Lines{"echo hello", "echo after"});
  on_strand(echo.host, [&] { CHECK(echo.server->counters().malformed_in == 1); });
  echo.stop();
}

TEST_CASE("endpoint: a key that the server does not admit is refused and counted") {
  Echo echo;
  echo.runtime.start();
  ServerOptions options;
  options.keys = make_keys();
  const KeyPair good = make_keys();
  options.admits = [&](const std::string& key) { return key == good.public_key; };
  echo.start_server(options);
  ClientOptions other = client_of(*echo.server, options.keys);
  echo.start_client(other);
  REQUIRE(eventually(echo.host, [&] { return echo.server->counters().keys_denied > 0; }));
  CHECK(echo.at_server.lines().empty());
  on_strand(echo.host, [&] { echo.client.reset(); });
  other.keys = good;
  echo.start_client(other);
  REQUIRE(echo.at_client.wait_for(1));
  CHECK(echo.at_client.lines() == Lines{"echo hello"});
  echo.stop();
}

TEST_CASE("endpoint: a new connection with a known routing id takes it over") {
  Echo echo;
  echo.runtime.start();
  ServerOptions options;
  options.keys = make_keys();
  echo.start_server(options);
  const ClientOptions first = client_of(*echo.server, options.keys);
  echo.start_client(first);
  REQUIRE(echo.at_client.wait_for(1));
  test::EventLog at_second;
  std::unique_ptr<ClientEndpoint> second;
  on_strand(echo.host, [&] {
    auto opened =
        open_client(echo.host, first,
                    {.on_frame = [&](std::string frame) { at_second.add(std::move(frame)); },
                     .on_connected = [&] { static_cast<void>(second->send("second")); },
                     .on_disconnected = {}});
    REQUIRE(opened.ok());
    second = *std::move(opened);
  });
  REQUIRE(at_second.wait_for(1));
  CHECK(at_second.lines() == Lines{"echo second"});
  on_strand(echo.host, [&] { second.reset(); });
  echo.stop();
}

TEST_CASE("endpoint: an address that is taken or wrong, and a key that is none, are errors") {
  Echo echo;
  echo.runtime.start();
  ServerOptions options;
  options.keys = make_keys();
  echo.start_server(options);
  on_strand(echo.host, [&] {
    ServerOptions again = options;
    again.address = echo.server->address();
    CHECK(open_server(echo.host, again, {}).error().code == ErrorCode::already_exists);
    again.address = "127.0.0.1";
    CHECK(open_server(echo.host, again, {}).error().code == ErrorCode::invalid_argument);
    again.address = "tcp://127.0.0.1:0";
    again.keys.secret_key = "short";
    CHECK(open_server(echo.host, again, {}).error().code == ErrorCode::invalid_argument);
    ClientOptions client = client_of(*echo.server, options.keys);
    client.server_key = "short";
    CHECK(open_client(echo.host, client, {}).error().code == ErrorCode::invalid_argument);
  });
  echo.stop();
}

TEST_CASE("endpoint: the in-memory twin carries frames, and cuts and heals a client") {
  MemoryNetwork network;
  Echo echo;
  echo.open_server_with = [&](actor::ActorHost& host, const ServerOptions& options,
                              ServerHandlers handlers) {
    return network.open_server(host, options, std::move(handlers));
  };
  echo.open_client_with = [&](actor::ActorHost& host, const ClientOptions& options,
                              ClientHandlers handlers) {
    return network.open_client(host, options, std::move(handlers));
  };
  echo.runtime.start();
  ServerOptions server;
  server.address = "memory:coordinator";
  ClientOptions client;
  client.address = server.address;
  client.routing_id = "node-a.1";
  echo.start_client(client);
  echo.start_server(server);
  REQUIRE(echo.at_client.wait_for(1));
  network.cut("node-a.1");
  REQUIRE(echo.at_client.wait_for(2));
  on_strand(echo.host, [&] {
    CHECK(echo.client->send("lost").error().code == ErrorCode::unavailable);
    CHECK(echo.server->send("node-a.1", "lost").error().code == ErrorCode::unavailable);
  });
  network.heal("node-a.1");
  REQUIRE(echo.at_client.wait_for(3));
  CHECK(echo.at_client.lines() == Lines{"echo hello", "disconnected", "echo hello"});
  echo.stop();
}

TEST_CASE("keys: are made once, for their owner only, and checked when read") {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "curve.key";
  const auto made = load_or_make_keys(file);
  REQUIRE(made.ok());
  struct stat status {};
  REQUIRE(::stat(file.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  CHECK(*load_or_make_keys(file) == *made);
  REQUIRE(::chmod(file.c_str(), 0640) == 0);
  CHECK(load_or_make_keys(file).error().code == ErrorCode::permission_denied);
  REQUIRE(::chmod(file.c_str(), 0600) == 0);
  std::ofstream(file) << made->public_key << "\n" << make_keys().secret_key << "\n";
  CHECK(load_or_make_keys(file).error().code == ErrorCode::corrupt);
}

TEST_CASE("liveness: the end of a connection that showed its token is told, others are not") {
  test::EventLog log;
  actor::Runtime runtime(1);
  actor::ActorHost host(runtime);
  runtime.start();
  std::unique_ptr<LivenessListener> listener;
  std::unique_ptr<LivenessConnection> known;
  std::unique_ptr<LivenessConnection> unknown;
  std::unique_ptr<LivenessConnection> forgotten;
  on_strand(host, [&] {
    auto opened = LivenessListener::open(
        host, "127.0.0.1", 0,
        {.on_opened = [&](const std::string& token) { log.add("opened " + token); },
         .on_ended = [&](const std::string& token) { log.add("ended " + token); }});
    REQUIRE(opened.ok());
    listener = *std::move(opened);
    listener->expect("a");
    listener->expect("b");
    unknown = std::make_unique<LivenessConnection>(host, "127.0.0.1", listener->port(), "c",
                                                   [&](Error) { log.add("unknown refused"); });
  });
  REQUIRE(log.wait_for(1));
  on_strand(host, [&] {
    known = std::make_unique<LivenessConnection>(host, "127.0.0.1", listener->port(), "a",
                                                 [](Error) {});
  });
  REQUIRE(log.wait_for(2));
  on_strand(host, [&] {
    forgotten = std::make_unique<LivenessConnection>(host, "127.0.0.1", listener->port(), "b",
                                                     [&](Error) { log.add("forgotten ended"); });
  });
  REQUIRE(log.wait_for(3));
  on_strand(host, [&] { listener->forget("b"); });
  REQUIRE(log.wait_for(4));
  on_strand(host, [&] { known.reset(); });
  REQUIRE(log.wait_for(5));
  CHECK(log.lines() ==
        Lines{"unknown refused", "opened a", "opened b", "forgotten ended", "ended a"});
  on_strand(host, [&] {
    unknown.reset();
    forgotten.reset();
    listener.reset();
  });
  runtime.stop();
}

}  // namespace
}  // namespace tutti::transport
