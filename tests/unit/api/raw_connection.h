// A TCP connection on which a test says what no client would.
#pragma once

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <catch2/catch.hpp>

#include <chrono>
#include <string>

#include "protocol/base/clock.h"
#include "protocol/base/file.h"
#include "tests/support/patience.h"

namespace tutti::test {

class RawConnection {
 public:
  explicit RawConnection(const std::string& url)
      : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(url.substr(url.rfind(':') + 1))));
    ::inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    REQUIRE(::connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  }

  bool say(const std::string& bytes) const {
    return ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }

  // What has come once `what` is in it, the other side has closed, or the time is over.
  std::string read_until(const std::string& what,
                         std::chrono::seconds within = std::chrono::seconds(20)) {
    const Instant until = monotonic_now() + patient(within);
    while (seen_.find(what) == std::string::npos && !closed_ && monotonic_now() < until) {
      pollfd ready{socket_.get(), POLLIN, 0};
      if (::poll(&ready, 1, static_cast<int>(to_ms(until - monotonic_now()))) <= 0) break;
      char bytes[4096];
      const ssize_t count = ::recv(socket_.get(), bytes, sizeof bytes, 0);
      closed_ = count <= 0;
      if (count > 0) seen_.append(bytes, static_cast<std::size_t>(count));
    }
    return seen_;
  }
  std::string read_to_end(std::chrono::seconds within = std::chrono::seconds(20)) {
    return read_until(std::string(1, '\x01'), within);
  }
  bool closed() const { return closed_; }

 private:
  FileDescriptor socket_;
  std::string seen_;
  bool closed_ = false;
};

}  // namespace tutti::test
