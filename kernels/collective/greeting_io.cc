#include "kernels/collective/greeting_io.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace tutti::kernels {
namespace {

// Room for one descriptor beside a message; the kernel closes what does not fit.
struct alignas(cmsghdr) OneDescriptor {
  char bytes[CMSG_SPACE(sizeof(int))] = {};
};

ssize_t receive_with_memory(Incoming& incoming, iovec part) {
  OneDescriptor room;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = room.bytes;
  message.msg_controllen = sizeof(room.bytes);
  const ssize_t got = ::recvmsg(incoming.socket.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return got;
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
      header->cmsg_len == CMSG_LEN(sizeof(int))) {
    int descriptor = -1;
    std::memcpy(&descriptor, CMSG_DATA(header), sizeof(descriptor));
    incoming.memory.reset(descriptor);
  }
  return got;
}

template <class Receive>
Reading read_with(Incoming& incoming, const Receive& receive) {
  char* const target = reinterpret_cast<char*>(&incoming.greeting);
  while (incoming.got < sizeof(Greeting)) {
    const ssize_t got = receive(iovec{target + incoming.got, sizeof(Greeting) - incoming.got});
    if (got == 0) return Reading::closed;
    if (got < 0) return errno == EAGAIN || errno == EINTR ? Reading::more : Reading::closed;
    incoming.got += static_cast<std::size_t>(got);
  }
  return Reading::complete;
}

}  // namespace

Reading read_greeting(Incoming& incoming) {
  return read_with(incoming, [&incoming](const iovec& part) {
    return ::recv(incoming.socket.get(), part.iov_base, part.iov_len, MSG_DONTWAIT);
  });
}

Reading read_answer(Incoming& incoming) {
  return read_with(incoming,
                   [&incoming](const iovec& part) { return receive_with_memory(incoming, part); });
}

bool write_greeting(const FileDescriptor& socket, const Greeting& greeting) {
  const ssize_t sent =
      ::send(socket.get(), &greeting, sizeof(greeting), MSG_NOSIGNAL | MSG_DONTWAIT);
  return sent == static_cast<ssize_t>(sizeof(greeting));
}

bool write_answer(const FileDescriptor& socket, const Greeting& greeting,
                  const FileDescriptor& memory) {
  Greeting copy = greeting;
  iovec part{&copy, sizeof(copy)};
  OneDescriptor beside;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = beside.bytes;
  message.msg_controllen = sizeof(beside.bytes);
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int descriptor = memory.get();
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof(descriptor));
  return ::sendmsg(socket.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) ==
         static_cast<ssize_t>(sizeof(greeting));
}

}  // namespace tutti::kernels
