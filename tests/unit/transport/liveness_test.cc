#include "protocol/transport/liveness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>

#include <functional>
#include <future>
#include <vector>

#include "protocol/base/file.h"
#include "tests/support/event_log.h"
#include "tests/support/on_strand.h"
#include "tests/support/patience.h"

namespace tutti::transport {
namespace {

// A connection that says nothing.
FileDescriptor connect_to(std::uint16_t port) {
  FileDescriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
          0);
  return socket;
}

// Whether the other side has closed it.
bool is_closed(const FileDescriptor& socket) {
  char byte = 0;
  return ::recv(socket.get(), &byte, 1, MSG_DONTWAIT) == 0;
}

// A listener on a strand of its own, and what it told.
struct Listening {
  Listening() {
    runtime.start();
    on_strand([this] {
      auto opened = LivenessListener::open(
          host, "127.0.0.1", 0,
          {.on_opened = [this](const std::string& token) { opened_tokens.add(token); },
           .on_ended = [this](const std::string& token) { ended_tokens.add(token); }});
      REQUIRE(opened.ok());
      listener = *std::move(opened);
      port = listener->port();
    });
  }
  ~Listening() {
    on_strand([this] { listener.reset(); });
    runtime.stop();
  }

  void on_strand(const std::function<void()>& action) { test::on_strand(host, action); }

  // Connects and shows a token that is expected.
  FileDescriptor join(const std::string& token) {
    on_strand([&] { listener->expect(token); });
    FileDescriptor socket = connect_to(port);
    const std::string line = token + "\n";
    REQUIRE(::send(socket.get(), line.data(), line.size(), 0) == static_cast<ssize_t>(line.size()));
    return socket;
  }

  test::EventLog opened_tokens;
  test::EventLog ended_tokens;
  actor::Runtime runtime{1};
  actor::ActorHost host{runtime};
  std::unique_ptr<LivenessListener> listener;
  std::uint16_t port = 0;
};

TEST_CASE("liveness: strangers take no room from those who are known, whoever comes first") {
  constexpr std::size_t kKnown = LivenessListener::kStrangersMax + 20;  // more than of strangers
  Listening listening;
  std::vector<FileDescriptor> known;
  for (std::size_t i = 0; i < kKnown; ++i)
    known.push_back(listening.join("early " + std::to_string(i)));
  REQUIRE(listening.opened_tokens.wait_for(kKnown));
  std::vector<FileDescriptor> strangers;
  for (std::size_t i = 0; i < LivenessListener::kStrangersMax; ++i)
    strangers.push_back(connect_to(listening.port));
  known.push_back(listening.join("late"));
  REQUIRE(listening.opened_tokens.wait_for(kKnown + 1));
  // All have their place: the last one took that of the oldest stranger.
  CHECK(is_closed(strangers.front()));
  for (const FileDescriptor& socket : known) CHECK_FALSE(is_closed(socket));
  CHECK(listening.ended_tokens.lines().empty());
}

}  // namespace
}  // namespace tutti::transport
