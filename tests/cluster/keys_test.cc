// Rotation of keys on real processes: a worker that has a copy of join.json, as one on another
// machine has, outlives a coordinator that is killed in the overlap.
#include <catch2/catch.hpp>

#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>

#include <boost/json/parse.hpp>

#include <filesystem>
#include <string>

#include "protocol/base/clock.h"
#include "protocol/base/file.h"
#include "tests/support/cluster.h"

using namespace tutti;
using test::Cluster;

namespace {

// A port of 127.0.0.1, as long as it is held; 0: any.
class HeldPort {
 public:
  explicit HeldPort(std::uint16_t port)
      : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(port);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    const int yes = 1;
    REQUIRE(::setsockopt(socket_.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
    // A process that was killed may have it a moment longer.
    REQUIRE(test::eventually(
        [&] { return ::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&at), size) == 0; }));
    REQUIRE(::listen(socket_.get(), 1) == 0);
    REQUIRE(::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&at), &size) == 0);
    port_ = ntohs(at.sin_port);
  }
  std::uint16_t port() const { return port_; }

 private:
  FileDescriptor socket_;
  std::uint16_t port_ = 0;
};

std::filesystem::path on_port(const test::TemporaryFolder& folder, std::uint16_t port) {
  const auto state = folder.path() / "state";
  std::filesystem::create_directories(state);
  REQUIRE(write_file_atomically(
      state / "coordinator.yaml",
      "state: " + state.string() + "\ncontrol_port: " + std::to_string(port) + "\n"));
  return state;
}

std::uint16_t control_port_of(const Cluster& cluster) {
  const auto ports = read_file(cluster.state() / "ports.json");
  REQUIRE(ports);
  return boost::json::parse(*ports).at("control").to_number<std::uint16_t>();
}

// In unix milliseconds.
std::int64_t overlap_end_of(const Cluster& cluster) {
  const auto replaced = read_file(cluster.state() / "replaced.key");
  REQUIRE(replaced);
  return boost::json::parse(*replaced).at("until_unix_ms").to_number<std::int64_t>();
}

}  // namespace

TEST_CASE("cluster: a coordinator that is killed in the overlap of two keys loses no worker") {
  const test::TemporaryFolder folder;
  const std::uint16_t port = HeldPort(0).port();
  Cluster cluster(1, on_port(folder, port));
  const auto copy = folder.path() / "join.json";
  std::filesystem::copy_file(cluster.state() / "join.json", copy);
  cluster.add_worker("far", 1, copy);
  // A rank here and one there; longer than the lease lasts after the coordinator is back.
  const auto job =
      cluster.submit("name: long\nkind: run\ncommand: [sleep, '12']\nresources: {ranks: 2}\n");
  REQUIRE(test::eventually([&] { return cluster.state_of(job) == "running"; }));
  const auto rotate_and_kill = [&](const char* overlap) {
    REQUIRE(cluster.tutti({"keys", "rotate", "--overlap", overlap}).code == 0);
    REQUIRE(test::eventually(
        [&] { return std::filesystem::exists(cluster.files() / "far" / "join.learned.json"); }));
    const pid_t coordinator = cluster.pid_of("coordinator");
    REQUIRE(coordinator > 0);
    cluster.signal(SIGSTOP);  // so that nobody starts the next one yet
    REQUIRE(::kill(coordinator, SIGKILL) == 0);
  };
  SECTION("it comes back at once") {
    rotate_and_kill("600s");
    cluster.signal(SIGCONT);
  }
  SECTION("the port of the new key cannot be had again") {
    rotate_and_kill("600s");
    const std::uint16_t new_port = control_port_of(cluster);
    REQUIRE(new_port != port);
    const HeldPort held(new_port);
    cluster.signal(SIGCONT);
    REQUIRE(test::eventually([&] { return control_port_of(cluster) != new_port; }));
    REQUIRE(cluster.wait(job) == 0);
  }
  SECTION("it comes back when the overlap is over") {
    rotate_and_kill("2s");
    REQUIRE(test::eventually([&] { return wall_now().unix_ms > overlap_end_of(cluster); }));
    cluster.signal(SIGCONT);
  }
  REQUIRE(cluster.wait(job) == 0);
  CHECK(cluster.job(job).at("generation").to_number<int>() == 1);
  CHECK(cluster.tutti({"events"}).out.find("lost") == std::string::npos);
  CHECK(cluster.stop() == 0);
}
