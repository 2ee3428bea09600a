#include <arpa/inet.h>
#include <sys/socket.h>

#include <boost/json/parse.hpp>

#include <thread>

#include "tests/unit/api/coordinator_fixture.h"
#include "tests/unit/api/fake_worker.h"

namespace tutti {
namespace {

using test::FakeWorker;
using test::RunningCoordinator;

std::string text_in(const std::string& json, std::string_view name) {
  return boost::json::parse(json).at(name).as_string().c_str();
}

std::string join_token(RunningCoordinator& coordinator, const std::string& more) {
  const auto made =
      coordinator.ask("POST", "/api/v1/tokens", R"({"user": "rack", "kind": "join")" + more + "}");
  REQUIRE(made.status == 200);
  return text_in(made.body, "token");
}

bool is_let_in(const std::string& join, const test::FakeWorkerOptions& own,
               const std::string& token) {
  FakeWorker worker(join, own);
  REQUIRE(worker.connected());
  worker.hello().join_token = token;
  worker.say(worker.hello());
  return worker.expect<wire::Welcome>().has_value();
}

// A port of 127.0.0.1 that was free, in the test's hand beside whoever listens there.
class OwnPort {
 public:
  OwnPort() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    share(1);
    REQUIRE(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&at), size) == 0);
    REQUIRE(::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&at), &size) == 0);
    port_ = ntohs(at.sin_port);
  }
  std::uint16_t port() const { return port_; }
  // Nobody can begin to listen there; who listens already is not disturbed.
  void hold() { share(0); }
  void give_up() { share(1); }

 private:
  void share(int yes) {
    REQUIRE(::setsockopt(socket_.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
  }

  FileDescriptor socket_;
  std::uint16_t port_ = 0;
};

template <class Holds>
bool eventually(Holds holds) {
  const Instant until = monotonic_now() + test::patient(std::chrono::seconds(20));
  while (!holds()) {
    if (monotonic_now() >= until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

bool is_on(const std::string& join, std::uint16_t port) {
  return text_in(join, "endpoint").ends_with(":" + std::to_string(port));
}

TEST_CASE("keys: a join token lets workers in until it is revoked, and a key let in stays so") {
  const test::TemporaryFolder folder;
  const transport::KeyPair keys = transport::make_keys();
  std::string token;
  {
    RunningCoordinator coordinator(folder.path());
    token = join_token(coordinator, "");
    CHECK(is_let_in(coordinator.line_of("join.json"), {"node-a", keys}, token));
    CHECK(coordinator.ask("POST", "/api/v1/tokens/1/revoke", "{}").status == 200);
  }
  RunningCoordinator successor(folder.path());
  const std::string join = successor.line_of("join.json");
  CHECK(is_let_in(join, {"node-a", keys}, token));
  FakeWorker stranger(join, {"node-b", {}});
  REQUIRE(stranger.connected());
  stranger.hello().join_token = token;
  stranger.say(stranger.hello());
  const auto refused = stranger.expect<wire::Refused>();
  REQUIRE(refused.has_value());
  CHECK(refused->code == "permission_denied");
  // A key is good for the name it was let in with.
  FakeWorker other(join, {"node-c", keys});
  REQUIRE(other.connected());
  other.hello().join_token = "";
  other.say(other.hello());
  CHECK(other.expect<wire::Refused>().has_value());
  CHECK(successor.ask("GET", "/api/v1/tokens").body.find("\"worker\"") != std::string::npos);
}

TEST_CASE("keys: a revoked one ends the session that is open with it, at once") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  const std::string join = coordinator.line_of("join.json");
  const transport::KeyPair keys = transport::make_keys();
  const std::string token = join_token(coordinator, "");
  FakeWorker worker(join, {"node-a", keys});
  REQUIRE(worker.connected());
  worker.hello().join_token = token;
  worker.say(worker.hello());
  REQUIRE(worker.expect<wire::Welcome>().has_value());
  FakeWorker other(join, {"node-b", {}});
  REQUIRE(other.connected());
  other.say(other.hello());
  REQUIRE(other.expect<wire::Welcome>().has_value());
  // Record 1 is the join token, 2 the key that it let in.
  CHECK(coordinator.ask("POST", "/api/v1/tokens/1/revoke", "{}").status == 200);
  CHECK(coordinator.ask("POST", "/api/v1/tokens/2/revoke", "{}").status == 200);
  const auto refused = worker.expect<wire::Refused>();
  REQUIRE(refused.has_value());
  CHECK(refused->code == "permission_denied");
  const std::string nodes = coordinator.ask("GET", "/api/v1/nodes").body;
  const auto state_of = [&](std::size_t index) {
    return std::string(boost::json::parse(nodes).at("nodes").at(index).at("state").as_string());
  };
  CHECK(state_of(0) == "lost");
  CHECK(state_of(1) == "ready");
  // And its key opens nothing any more.
  ++worker.hello().greeting;
  worker.say(worker.hello());
  CHECK(worker.expect<wire::Refused>().has_value());
}

TEST_CASE("keys: each that is let in is on record, with the token that let it in") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  const std::string token = join_token(coordinator, "");
  const std::string join = coordinator.line_of("join.json");
  CHECK(is_let_in(join, {"node-a", {}}, token));
  CHECK(is_let_in(join, {"node-b", {}}, token));
  const auto audit = boost::json::parse(coordinator.ask("GET", "/api/v1/audit?after=1").body);
  const auto& changes = audit.at("changes").as_array();
  REQUIRE(changes.size() == 2);
  CHECK(changes[0].at("action") == "worker admit");
  CHECK(changes[0].at("target") == "node node-a");
  CHECK(changes[0].at("token") == 1);
  CHECK(changes[0].at("detail") == "its first key");
  CHECK(changes[1].at("target") == "node node-b");
}

TEST_CASE("keys: new ones come with no restart, and who is connected learns them") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  const std::string before = coordinator.line_of("join.json");
  FakeWorker worker(before);
  REQUIRE(worker.connected());
  worker.say(worker.hello());
  REQUIRE(worker.expect<wire::Welcome>().has_value());
  REQUIRE(coordinator.ask("POST", "/api/v1/keys/rotate", R"({"overlap_s": 600})").status == 200);
  CHECK(coordinator.ask("POST", "/api/v1/keys/rotate", "{}").status == 409);
  const std::string after = coordinator.line_of("join.json");
  CHECK(text_in(after, "server_key") != text_in(before, "server_key"));

  worker.say(wire::Heartbeat{});
  const auto told = worker.expect<wire::HeartbeatAnswered>();
  REQUIRE(told.has_value());
  CHECK(told->server_key == text_in(after, "server_key"));
  CHECK(text_in(after, "endpoint").ends_with(":" + std::to_string(told->control_port)));

  FakeWorker late(after, {"node-b", {}});
  REQUIRE(late.connected());
  late.say(late.hello());
  CHECK(late.expect<wire::Welcome>().has_value());
  CHECK(coordinator.ask("GET", "/api/v1/audit").body.find("keys rotate") != std::string::npos);
}

TEST_CASE("keys: after the overlap nothing listens with the old ones") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  const std::string before = coordinator.line_of("join.json");
  REQUIRE(coordinator.ask("POST", "/api/v1/keys/rotate", R"({"overlap_s": 1})").status == 200);
  const Instant until = monotonic_now() + test::patient(std::chrono::seconds(20));
  bool ended = false;
  while (!ended && monotonic_now() < until) {
    FakeWorker old(before, {"node-c", {}});
    ended = !old.connected_within(std::chrono::milliseconds(500));
  }
  CHECK(ended);
}

TEST_CASE("keys: a coordinator that starts anew in the overlap listens with the old and the new") {
  const test::TemporaryFolder folder;
  const std::uint16_t port = GENERATE(0, 1) == 0 ? std::uint16_t{0} : OwnPort().port();
  std::string before;
  std::string after;
  {
    RunningCoordinator coordinator(folder.path(), 5'000, port);
    before = coordinator.line_of("join.json");
    REQUIRE(coordinator.ask("POST", "/api/v1/keys/rotate", R"({"overlap_s": 5})").status == 200);
    after = coordinator.line_of("join.json");
  }
  RunningCoordinator successor(folder.path(), 5'000, port);
  CHECK(successor.line_of("join.json") == after);
  CHECK(std::filesystem::status(folder.path() / "replaced.key").permissions() ==
        (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));
  CHECK(successor.ask("POST", "/api/v1/keys/rotate", "{}").status == 409);
  FakeWorker old(before);
  REQUIRE(old.connected());
  old.say(old.hello());
  REQUIRE(old.expect<wire::Welcome>().has_value());
  old.say(wire::Heartbeat{});
  const auto told = old.expect<wire::HeartbeatAnswered>();
  REQUIRE(told.has_value());
  CHECK(told->server_key == text_in(after, "server_key"));
  CHECK(is_on(after, told->control_port));
  FakeWorker late(after, {"node-b", {}});
  CHECK(late.connected());
  // Until it is over, as if there had been no restart.
  CHECK(eventually([&] { return !std::filesystem::exists(folder.path() / "replaced.key"); }));
  if (port != 0) {
    CHECK(eventually([&] { return is_on(successor.line_of("join.json"), port); }));
    FakeWorker last(successor.line_of("join.json"), {"node-c", {}});
    CHECK(last.connected());
  }
  FakeWorker none(before, {"node-d", {}});
  CHECK_FALSE(none.connected_within(std::chrono::milliseconds(500)));
}

TEST_CASE("keys: none are rotated while the last ones are on their way back to the port") {
  const test::TemporaryFolder folder;
  OwnPort own;
  RunningCoordinator coordinator(folder.path(), 5'000, own.port());
  const auto rotated = [&] {
    return coordinator.ask("POST", "/api/v1/keys/rotate", R"({"overlap_s": 1})");
  };
  const auto join = [&] { return coordinator.line_of("join.json"); };
  REQUIRE(rotated().status == 200);
  const std::string key = text_in(join(), "server_key");
  own.hold();
  REQUIRE(eventually([&] { return !std::filesystem::exists(folder.path() / "replaced.key"); }));
  const auto refused = rotated();
  CHECK(refused.status == 409);
  CHECK(refused.body.find("port " + std::to_string(own.port())) != std::string::npos);
  own.give_up();
  CHECK(eventually([&] { return is_on(join(), own.port()); }));
  CHECK(text_in(join(), "server_key") == key);
  CHECK(eventually([&] { return rotated().status == 200; }));
  CHECK(text_in(join(), "server_key") != key);
}

TEST_CASE("keys: new ones are in the file and announced, or they are not made") {
  const test::TemporaryFolder folder;
  RunningCoordinator coordinator(folder.path());
  const std::string before = coordinator.line_of("join.json");
  const auto in_the_way = [&](const char* file) {
    std::filesystem::remove(folder.path() / file);
    std::filesystem::create_directories(folder.path() / file / "in the way");
  };
  FakeWorker worker(before);
  REQUIRE(worker.connected());
  worker.say(worker.hello());
  REQUIRE(worker.expect<wire::Welcome>().has_value());
  SECTION("join.json cannot be written: it comes later") {
    in_the_way("join.json");
    REQUIRE(coordinator.ask("POST", "/api/v1/keys/rotate", "{}").status == 200);
    worker.say(wire::Heartbeat{});
    const auto told = worker.expect<wire::HeartbeatAnswered>();
    REQUIRE(told.has_value());
    CHECK(coordinator.line_of("coordinator.key").starts_with(told->server_key));
    CHECK(told->server_key != text_in(before, "server_key"));
    std::filesystem::remove_all(folder.path() / "join.json");
    REQUIRE(eventually([&] { return std::filesystem::exists(folder.path() / "join.json"); }));
    CHECK(text_in(coordinator.line_of("join.json"), "server_key") == told->server_key);
  }
  SECTION("the file of keys cannot be written: all is as it was") {
    in_the_way("coordinator.key");
    CHECK(coordinator.ask("POST", "/api/v1/keys/rotate", "{}").status != 200);
    CHECK_FALSE(std::filesystem::exists(folder.path() / "replaced.key"));
    CHECK(coordinator.line_of("join.json") == before);
    worker.say(wire::Heartbeat{});
    const auto told = worker.expect<wire::HeartbeatAnswered>();
    REQUIRE(told.has_value());
    CHECK(told->control_port == 0);
  }
}

}  // namespace
}  // namespace tutti
