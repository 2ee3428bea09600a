// Addresses of the data plane and the non-blocking stream sockets behind them.
//
//   unix:@NAME       an abstract Unix socket: it lives in the kernel only and ends with its last
//   descriptor tcp:HOST:PORT    HOST as getaddrinfo takes it, numbers preferred
//
// All sockets are non-blocking and close-on-exec; TCP ones have Nagle's delay off.
#pragma once

#include <string>
#include <string_view>

#include "protocol/base/file.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

struct ListeningSocket {
  FileDescriptor socket;
  std::string address;
};

// Listens on an abstract Unix socket with a random name.
Result<ListeningSocket> listen_local();

// Listens on a port of `host` that the system chooses.
Result<ListeningSocket> listen_tcp(const std::string& host);

// A connection in the making: writable once it stands. Errors: invalid_argument (not an address),
// unavailable.
Result<FileDescriptor> dial(std::string_view address);

// What became of a connection in the making. Errors: unavailable (refused, unreachable).
Result<> dial_outcome(const FileDescriptor& socket, std::string_view address);

// The next waiting connection; an empty descriptor if there is none.
FileDescriptor accept_waiting(const FileDescriptor& listening);

// Whether both ends are on this machine for certain: a Unix socket.
bool is_local(const FileDescriptor& socket);

}  // namespace tutti::kernels
