#include "kernels/collective/socket_address.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "protocol/base/secret.h"

namespace tutti::kernels {
namespace {

constexpr int kSocketFlags = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
constexpr int kBacklog = 256;
// What the kernel may buffer for one direction of a link; it clips this to its own limit.
constexpr int kBufferBytes = 4 << 20;

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  int family = AF_UNSPEC;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Result<SocketAddress> local_address(std::string_view name) {
  sockaddr_un path{};
  if (name.empty() || name.size() + 1 > sizeof(path.sun_path)) {
    return Error{ErrorCode::invalid_argument, "the name of a Unix socket is empty or too long"};
  }
  path.sun_family = AF_UNIX;  // a zero byte first marks an abstract name
  std::memcpy(path.sun_path + 1, name.data(), name.size());
  SocketAddress address;
  std::memcpy(&address.storage, &path, sizeof(path));
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  address.family = AF_UNIX;
  return address;
}

Result<SocketAddress> tcp_address(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failure = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (failure != 0) {
    return Error{ErrorCode::unavailable, "cannot resolve " + host + ": " + ::gai_strerror(failure)};
  }
  SocketAddress address;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  address.length = found->ai_addrlen;
  address.family = found->ai_family;
  ::freeaddrinfo(found);
  return address;
}

Result<SocketAddress> parse_address(std::string_view text) {
  if (text.starts_with("unix:@")) return local_address(text.substr(6));
  if (text.starts_with("tcp:")) {
    const std::string_view rest = text.substr(4);
    const std::size_t colon = rest.rfind(':');
    if (colon != std::string_view::npos && colon > 0) {
      return tcp_address(std::string(rest.substr(0, colon)), std::string(rest.substr(colon + 1)));
    }
  }
  return Error{ErrorCode::invalid_argument,
               "\"" + std::string(text) + "\" is no address (unix:@NAME or tcp:HOST:PORT)"};
}

// Larger buffers let a rank hand over its part and go on; failing to get them costs speed only.
void tune(const FileDescriptor& socket, int family) {
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUF, &kBufferBytes, sizeof(kBufferBytes));
  if (family == AF_UNIX) return;
  const int on = 1;
  (void)::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

Result<FileDescriptor> bind_and_listen(const SocketAddress& address, std::string_view what) {
  FileDescriptor socket(::socket(address.family, kSocketFlags, 0));
  if (!socket) return errno_error("cannot make a socket", errno);
  if (::bind(socket.get(), address.get(), address.length) != 0 ||
      ::listen(socket.get(), kBacklog) != 0) {
    return errno_error("cannot listen on " + std::string(what), errno);
  }
  return socket;
}

}  // namespace

Result<ListeningSocket> listen_local() {
  const std::string name = "tutti-" + random_hex(16);
  auto address = local_address(name);
  if (!address) return address.error();
  auto socket = bind_and_listen(*address, name);
  if (!socket) return socket.error();
  return ListeningSocket{*std::move(socket), "unix:@" + name};
}

Result<ListeningSocket> listen_tcp(const std::string& host) {
  auto address = tcp_address(host, "0");
  if (!address) return address.error();
  auto socket = bind_and_listen(*address, host);
  if (!socket) return socket.error();
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  if (::getsockname(socket->get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0) {
    return errno_error("cannot tell the port of a socket on " + host, errno);
  }
  const auto port = bound.ss_family == AF_INET6
                        ? ntohs(reinterpret_cast<const sockaddr_in6&>(bound).sin6_port)
                        : ntohs(reinterpret_cast<const sockaddr_in&>(bound).sin_port);
  return ListeningSocket{*std::move(socket), "tcp:" + host + ":" + std::to_string(port)};
}

Result<FileDescriptor> dial(std::string_view text) {
  auto address = parse_address(text);
  if (!address) return address.error();
  FileDescriptor socket(::socket(address->family, kSocketFlags, 0));
  if (!socket) return errno_error("cannot make a socket", errno);
  tune(socket, address->family);
  if (::connect(socket.get(), address->get(), address->length) != 0 && errno != EINPROGRESS) {
    return Error{ErrorCode::unavailable,
                 errno_error("cannot connect to " + std::string(text), errno).message};
  }
  return socket;
}

Result<> dial_outcome(const FileDescriptor& socket, std::string_view address) {
  int outcome = 0;
  socklen_t length = sizeof(outcome);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &outcome, &length) != 0) outcome = errno;
  if (outcome == 0) return {};
  return Error{ErrorCode::unavailable,
               errno_error("cannot connect to " + std::string(address), outcome).message};
}

FileDescriptor accept_waiting(const FileDescriptor& listening) {
  sockaddr_storage from{};
  socklen_t length = sizeof(from);
  FileDescriptor socket(::accept4(listening.get(), reinterpret_cast<sockaddr*>(&from), &length,
                                  SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (socket) tune(socket, from.ss_family);
  return socket;
}

bool is_local(const FileDescriptor& socket) {
  int family = AF_UNSPEC;
  socklen_t length = sizeof(family);
  const bool known = ::getsockopt(socket.get(), SOL_SOCKET, SO_DOMAIN, &family, &length) == 0;
  return known && family == AF_UNIX;
}

}  // namespace tutti::kernels
