// NCCL's entry points between processes of one machine: a mesh of abstract Unix sockets made by a
// thread in the background, and transfers that run when their stream comes to them.
//
// A peer that dies is not noticed here, as with memory that GPUs share: the operation waits until
// it is aborted. So code that does not abort hangs in tests.
#include <nccl.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "protocol/base/file.h"

namespace {

struct Transfer {
  bool send;
  std::byte* memory;
  std::size_t bytes;
  int peer;
};

sockaddr_un address_of(const std::string& id, int rank, socklen_t& length) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string name = "tutti-emulated-nccl-" + id + "-" + std::to_string(rank);
  name.copy(address.sun_path + 1, sizeof(address.sun_path) - 1);
  length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

void nap() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }

}  // namespace

struct EmulatedNccl {
  EmulatedNccl(int ranks, std::string id_, int rank_)
      : id(std::move(id_)), rank(rank_), peers(static_cast<std::size_t>(ranks)) {
    socklen_t length = 0;
    const sockaddr_un address = address_of(id, rank, length);
    door = tutti::FileDescriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::bind(door.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
        ::listen(door.get(), ranks) != 0) {
      state = ncclSystemError;
      return;
    }
    forming = std::thread([this] { form(); });
  }

  // Calls those below, waits for those above.
  void form() {
    for (int peer = 0; peer < rank && !aborted; ++peer) {
      while (!aborted && !call(peer)) nap();
    }
    for (std::size_t missing = peers.size() - static_cast<std::size_t>(rank) - 1;
         missing > 0 && !aborted;) {
      const int accepted = ::accept4(door.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (accepted < 0) {
        nap();
        continue;
      }
      int caller = 0;
      if (::recv(accepted, &caller, sizeof(caller), MSG_WAITALL) != sizeof(caller)) continue;
      peers[static_cast<std::size_t>(caller)] = tutti::FileDescriptor(accepted);
      --missing;
    }
    if (!aborted) state = ncclSuccess;
  }

  bool call(int peer) {
    socklen_t length = 0;
    const sockaddr_un address = address_of(id, peer, length);
    tutti::FileDescriptor line(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(line.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0)
      return false;
    if (::send(line.get(), &rank, sizeof(rank), MSG_NOSIGNAL) != sizeof(rank)) return false;
    peers[static_cast<std::size_t>(peer)] = std::move(line);
    return true;
  }

  // All transfers of a group side by side; of one peer and direction one after the other.
  void run(std::vector<Transfer> transfers) {
    std::vector<std::size_t> done(transfers.size(), 0);
    for (std::size_t left = transfers.size(); left > 0 && !aborted;) {
      bool moved = false;
      for (std::size_t i = 0; i < transfers.size(); ++i) {
        const Transfer& one = transfers[i];
        if (done[i] == one.bytes || waits_for_earlier(transfers, done, i)) continue;
        const int line = peers[static_cast<std::size_t>(one.peer)].get();
        const auto count =
            one.send ? ::send(line, one.memory + done[i], one.bytes - done[i],
                              MSG_NOSIGNAL | MSG_DONTWAIT)
                     : ::recv(line, one.memory + done[i], one.bytes - done[i], MSG_DONTWAIT);
        if (count <= 0) continue;
        moved = true;
        done[i] += static_cast<std::size_t>(count);
        if (done[i] == one.bytes) --left;
      }
      if (!moved) nap();
    }
  }

  static bool waits_for_earlier(const std::vector<Transfer>& transfers,
                                const std::vector<std::size_t>& done, std::size_t i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (transfers[j].peer == transfers[i].peer && transfers[j].send == transfers[i].send &&
          done[j] < transfers[j].bytes) {
        return true;
      }
    }
    return false;
  }

  std::string id;
  int rank;
  std::vector<tutti::FileDescriptor> peers;
  tutti::FileDescriptor door;
  std::atomic<ncclResult_t> state{ncclInProgress};
  std::atomic<bool> aborted{false};
  std::atomic<int> running{0};
  std::thread forming;
  std::vector<Transfer> group;  // of the thread that groups
  cudaStream_t stream = nullptr;
};

namespace {

thread_local int group_depth = 0;
thread_local std::vector<ncclComm_t> group_members;

ncclResult_t add(ncclComm_t comm, const Transfer& transfer, cudaStream_t stream) {
  if (group_depth == 0 || comm->state != ncclSuccess) return ncclInvalidUsage;
  if (comm->group.empty()) group_members.push_back(comm);
  comm->stream = stream;
  if (transfer.bytes > 0) comm->group.push_back(transfer);
  return ncclSuccess;
}

}  // namespace

ncclResult_t ncclGetVersion(int* version) {
  *version = 0;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSuccess ? "emulation: success" : "emulation: an NCCL call failed";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  unsigned char bytes[12];
  if (::getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes)) return ncclSystemError;
  *id = {};
  for (std::size_t i = 0; i < sizeof(bytes); ++i) {
    std::snprintf(id->internal + 2 * i, 3, "%02x", static_cast<unsigned>(bytes[i]));
  }
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (config == nullptr || config->blocking != 0) return ncclInvalidArgument;  // not modelled
  *comm = new EmulatedNccl(ranks, id.internal, rank);
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  *error = comm->state;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->aborted = true;
  if (comm->forming.joinable()) comm->forming.join();
  while (comm->running > 0) nap();
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group_depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (group_depth == 0) return ncclInvalidUsage;
  if (--group_depth > 0) return ncclSuccess;
  for (const ncclComm_t comm : group_members) {
    ++comm->running;
    tutti::emulation::enqueue(comm->stream,
                              [comm, transfers = std::move(comm->group)]() -> std::string {
                                comm->run(transfers);
                                --comm->running;
                                return {};
                              });
    comm->group.clear();
  }
  group_members.clear();
  return ncclInProgress;
}

ncclResult_t ncclSend(const void* from, std::size_t count, ncclDataType_t, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  auto* const memory = const_cast<std::byte*>(static_cast<const std::byte*>(from));
  return add(comm, {true, memory, count, peer}, stream);
}

ncclResult_t ncclRecv(void* to, std::size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add(comm, {false, static_cast<std::byte*>(to), count, peer}, stream);
}
