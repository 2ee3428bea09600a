#include <list>
#include <memory>
#include <thread>

#include "coordinator/api/http_server.h"
#include "coordinator/api/route.h"
#include "tests/unit/api/coordinator_fixture.h"
#include "tests/unit/api/raw_connection.h"

namespace tutti {
namespace {

using test::RawConnection;
using test::RunningCoordinator;

const std::string kHealth = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

TEST_CASE("http: what is no request, or one without an end, ends the connection and nothing else") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  for (const std::string& noise :
       {std::string("\x16\x03\x01\x02\r\n\r\n"), std::string("GET\r\n\r\n"),
        std::string("GET / HTTP/9.9\r\n\r\n"),
        "GET / HTTP/1.1\r\nX: " + std::string(32 << 10, 'x') + "\r\n\r\n",
        std::string("POST /api/v1/jobs HTTP/1.1\r\nContent-Length: -1\r\n\r\n")}) {
    RawConnection connection(coordinator.url());
    connection.say(noise);
    connection.read_to_end();
    CHECK(connection.closed());
  }
  CHECK(coordinator.ask("GET", "/healthz").status == 200);
}

TEST_CASE("http: a request in pieces, and several at once, are answered one by one") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  RawConnection connection(coordinator.url());
  for (const char byte : kHealth) REQUIRE(connection.say(std::string(1, byte)));
  CHECK(connection.read_until("ok\n").starts_with("HTTP/1.1 200"));
  connection.say(kHealth + kHealth + "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string answers = connection.read_until("401");
  CHECK(answers.find("401") != std::string::npos);
  std::size_t health = 0;
  for (std::size_t at = answers.find("ok\n"); at != std::string::npos;
       at = answers.find("ok\n", at + 1))
    ++health;
  CHECK(health == 3);
}

TEST_CASE("http: who is slow with a header is let go, and others are answered meanwhile") {
  const coordinator::AccessTable access("admin", "join");
  actor::Runtime runtime;
  auto server = *api::HttpServer::open(
      runtime, {.access = &access, .header_within = std::chrono::seconds(1)});
  server->start({{"GET", "/healthz", api::Role::anyone,
                  [](const api::Call&) -> boost::asio::awaitable<api::Answer> {
                    co_return api::json_answer("ok\n");
                  }}});
  std::thread serving([&] { runtime.run(); });
  const std::string url = "http://127.0.0.1:" + std::to_string(server->port());
  std::list<RawConnection> slow;
  for (int i = 0; i < 50; ++i) {
    slow.emplace_back(url);
    slow.back().say("GET /healthz HTT");
  }
  RawConnection other(url);
  other.say(kHealth);
  CHECK(other.read_until("ok\n").starts_with("HTTP/1.1 200"));
  for (RawConnection& connection : slow) {
    connection.read_to_end();
    CHECK(connection.closed());
  }
  server->stop();
  runtime.stop();
  serving.join();
}

TEST_CASE("http: too many idle connections make room for a new one, the oldest first") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  std::list<RawConnection> idle;
  for (std::size_t i = 0; i < api::HttpServer::kConnectionsMax + 10; ++i) {
    idle.emplace_back(coordinator.url());
    if (i % 100 == 99) {  // those before have been taken once this one is answered
      idle.back().say(kHealth);
      REQUIRE(idle.back().read_until("ok\n").starts_with("HTTP/1.1 200"));
    }
  }
  RawConnection late(coordinator.url());
  late.say(kHealth);
  CHECK(late.read_until("ok\n").starts_with("HTTP/1.1 200"));
  idle.front().read_to_end();
  CHECK(idle.front().closed());
}

}  // namespace
}  // namespace tutti
