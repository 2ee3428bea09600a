// NCCL's entry points between processes of one machine: a mesh of abstract Unix sockets made by a
// thread in the background, and transfers that run when their stream comes to them.
//
// As in NCCL, whoever makes an id also opens the place where its ranks meet: a rank comes there
// once its own door is open, and is let go when all have come. So nobody calls a door that is not
// there yet.
//
// A peer that dies is not noticed here, as with memory that GPUs share: the operation waits until
// it is aborted. So code that does not abort hangs in tests. Nothing waits by the clock: sockets
// and the bell that an abort rings are polled.
#include <nccl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sstream>
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

std::atomic<int> destroyed{0};
std::atomic<int> aborted_ones{0};
std::atomic<int> ended_elsewhere{0};
std::atomic<int> rank_with_error{-1};

int current_device() {
  int device = 0;
  static_cast<void>(cudaGetDevice(&device));
  return device;
}

bool goes_wrong(const char* what) {
  const char* const named = std::getenv("TUTTI_EMULATION_NCCL");
  return named != nullptr && std::strstr(named, what) != nullptr;
}

constexpr int kNoSocket = -1;       // that poll leaves out
constexpr int kMeetingMs = 60'000;  // ranks that have not met by then never will

// An abstract address: it ends with its socket.
struct Door {
  Door(const std::string& id, const std::string& of) {
    address.sun_family = AF_UNIX;
    const std::string name = "tutti-emulated-nccl-" + id + "-" + of;
    name.copy(address.sun_path + 1, sizeof(address.sun_path) - 1);
    length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  }

  tutti::FileDescriptor open() const {
    tutti::FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
        ::listen(socket.get(), SOMAXCONN) != 0) {
      return {};
    }
    return socket;
  }

  tutti::FileDescriptor call() const {
    tutti::FileDescriptor line(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(line.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) return {};
    return line;
  }

  sockaddr_un address = {};
  socklen_t length = 0;
};

bool say(const tutti::FileDescriptor& line, int number) {
  return ::send(line.get(), &number, sizeof(number), MSG_NOSIGNAL) == sizeof(number);
}

// Lets all ranks go once the last has come; each says on arrival how many they are.
void hold_meeting(const tutti::FileDescriptor& door) {
  std::vector<tutti::FileDescriptor> arrived;
  for (int ranks = 1; static_cast<int>(arrived.size()) < ranks;) {
    pollfd wait{.fd = door.get(), .events = POLLIN, .revents = 0};
    if (::poll(&wait, 1, kMeetingMs) != 1) return;
    tutti::FileDescriptor line(::accept4(door.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (::recv(line.get(), &ranks, sizeof(ranks), MSG_WAITALL) != sizeof(ranks)) return;
    arrived.push_back(std::move(line));
  }
  for (const tutti::FileDescriptor& line : arrived) say(line, 0);
}

}  // namespace

struct EmulatedNccl {
  EmulatedNccl(int ranks, std::string id_, int rank_)
      : id(std::move(id_)),
        rank(rank_),
        peers(static_cast<std::size_t>(ranks)),
        bell(::eventfd(0, EFD_CLOEXEC)),
        door(Door(id, std::to_string(rank)).open()) {
    if (!door) {
      state = ncclSystemError;
      return;
    }
    background = std::thread([this] { state = form() ? ncclSuccess : ncclSystemError; });
  }

  // Calls those below, waits for those above. Whether all are there.
  bool form() {
    if (goes_wrong("forming_hangs")) return wait_for(kNoSocket);
    const tutti::FileDescriptor meeting = Door(id, "meeting").call();
    int heard = 0;
    if (!meeting || !say(meeting, static_cast<int>(peers.size())) || !hear(meeting, heard)) {
      return false;
    }
    for (int peer = 0; peer < rank; ++peer) {
      tutti::FileDescriptor line = Door(id, std::to_string(peer)).call();
      if (!line || !say(line, rank)) return false;
      peers[static_cast<std::size_t>(peer)] = std::move(line);
    }
    for (auto missing = static_cast<int>(peers.size()) - rank - 1; missing > 0; --missing) {
      if (!wait_for(door.get())) return false;
      tutti::FileDescriptor line(::accept4(door.get(), nullptr, nullptr, SOCK_CLOEXEC));
      int caller = 0;
      if (!hear(line, caller)) return false;
      peers[static_cast<std::size_t>(caller)] = std::move(line);
    }
    return true;
  }

  bool hear(const tutti::FileDescriptor& line, int& number) {
    return wait_for(line.get()) &&
           ::recv(line.get(), &number, sizeof(number), MSG_WAITALL) == sizeof(number);
  }

  // Ends once all ranks have said that they end, after all their transfers; or never.
  void finalize() {
    state = ncclInProgress;
    background.join();
    background = std::thread([this] {
      {
        std::unique_lock lock(mutex);
        idle.wait(lock, [this] { return running == 0; });
      }
      bool all = !goes_wrong("finalize_hangs");
      for (const tutti::FileDescriptor& line : peers) all = all && (!line || say(line, rank));
      int heard = 0;
      for (const tutti::FileDescriptor& line : peers) all = all && (!line || hear(line, heard));
      if (all) state = ncclSuccess;
    });
  }

  // Until there is something to read; not when it was aborted.
  bool wait_for(int socket) {
    std::array<pollfd, 2> wait{pollfd{.fd = socket, .events = POLLIN, .revents = 0},
                               pollfd{.fd = bell.get(), .events = POLLIN, .revents = 0}};
    return ::poll(wait.data(), wait.size(), -1) > 0 && wait[1].revents == 0;
  }

  void abort() {
    aborted = true;
    const std::uint64_t ring = 1;
    if (::write(bell.get(), &ring, sizeof(ring)) != sizeof(ring)) std::abort();
    if (background.joinable()) background.join();
    std::unique_lock lock(mutex);
    idle.wait(lock, [this] { return running == 0; });
  }

  void begun() {
    const std::lock_guard lock(mutex);
    ++running;
  }
  void ended() {
    const std::lock_guard lock(mutex);
    --running;
    idle.notify_all();  // under the lock: after it, an abort may remove all this
  }

  // All transfers of a group side by side; of one peer and direction one after the other.
  void run(std::vector<Transfer> transfers) {
    std::vector<std::size_t> done(transfers.size(), 0);
    std::vector<bool> gone(peers.size(), false);
    for (std::size_t left = transfers.size() - move_to_self(transfers, done);
         left > 0 && !aborted;) {
      bool moved = false;
      for (std::size_t i = 0; i < transfers.size(); ++i) {
        const Transfer& one = transfers[i];
        if (done[i] == one.bytes || waits_for_earlier(transfers, done, i)) continue;
        const int line = peers[static_cast<std::size_t>(one.peer)].get();
        const auto count =
            one.send ? ::send(line, one.memory + done[i], one.bytes - done[i],
                              MSG_NOSIGNAL | MSG_DONTWAIT)
                     : ::recv(line, one.memory + done[i], one.bytes - done[i], MSG_DONTWAIT);
        // A peer that is gone has nothing to say: only an abort is waited for.
        if (count == 0 || (count < 0 && errno != EAGAIN)) {
          gone[static_cast<std::size_t>(one.peer)] = true;
        }
        if (count <= 0) continue;
        moved = true;
        done[i] += static_cast<std::size_t>(count);
        if (done[i] == one.bytes) --left;
      }
      if (!moved) wait_to_move(transfers, done, gone);
    }
  }

  // An error that is found when all was begun; as the library, it moves nothing and waits for
  // abort.
  void break_late() {
    state = ncclRemoteError;
    static_cast<void>(wait_for(kNoSocket));
  }

  // What a rank sends itself; how many transfers these were.
  std::size_t move_to_self(const std::vector<Transfer>& transfers,
                           std::vector<std::size_t>& done) const {
    std::array<std::vector<std::size_t>, 2> own;  // receives, sends
    for (std::size_t i = 0; i < transfers.size(); ++i) {
      if (transfers[i].peer == rank) own[transfers[i].send ? 1 : 0].push_back(i);
    }
    const std::size_t pairs = std::min(own[0].size(), own[1].size());
    for (std::size_t k = 0; k < pairs; ++k) {
      const Transfer& to = transfers[own[0][k]];
      const Transfer& from = transfers[own[1][k]];
      std::memmove(to.memory, from.memory, std::min(to.bytes, from.bytes));
      done[own[0][k]] = to.bytes;
      done[own[1][k]] = from.bytes;
    }
    return 2 * pairs;
  }

  void wait_to_move(const std::vector<Transfer>& transfers, const std::vector<std::size_t>& done,
                    const std::vector<bool>& gone) {
    std::vector<pollfd> wait{{.fd = bell.get(), .events = POLLIN, .revents = 0}};
    for (std::size_t i = 0; i < transfers.size(); ++i) {
      const auto peer = static_cast<std::size_t>(transfers[i].peer);
      if (done[i] == transfers[i].bytes || gone[peer]) continue;
      const short events = transfers[i].send ? POLLOUT : POLLIN;
      wait.push_back({.fd = peers[peer].get(), .events = events, .revents = 0});
    }
    ::poll(wait.data(), wait.size(), -1);
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

  // The library goes to its device by itself, but a thread of another one has that in use, too.
  void note_end() const { ended_elsewhere += current_device() == device ? 0 : 1; }

  int device = current_device();
  std::string id;
  int rank;
  std::vector<tutti::FileDescriptor> peers;
  tutti::FileDescriptor bell;  // rung by an abort
  tutti::FileDescriptor door;
  std::atomic<ncclResult_t> state{ncclInProgress};
  std::atomic<bool> aborted{false};
  std::mutex mutex;
  std::condition_variable idle;
  int running = 0;              // groups that a stream has to run
  std::thread background;       // that forms it, or ends it
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

// TUTTI_EMULATION_NCCL_VERSIONS: a process has that of its device's number in the list, as if each
// device were in another machine.
ncclResult_t ncclGetVersion(int* version) {
  *version = 0;
  const char* const list = std::getenv("TUTTI_EMULATION_NCCL_VERSIONS");
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  const char* const digit = visible == nullptr ? nullptr : std::strstr(visible, "-2d3");
  if (list == nullptr) return ncclSuccess;
  std::istringstream versions(list);
  for (int device = digit == nullptr ? 0 : digit[4] - '0'; device >= 0; --device) {
    versions >> *version;
  }
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
  tutti::FileDescriptor meeting = Door(id->internal, "meeting").open();
  if (!meeting) return ncclSystemError;
  if (goes_wrong("tell_ids")) std::fprintf(stderr, "emulation: an NCCL identifier was made\n");
  std::thread([door = std::move(meeting)] { hold_meeting(door); }).detach();
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (config == nullptr || config->blocking != 0) return ncclInvalidArgument;  // not modelled
  *comm = new EmulatedNccl(ranks, id.internal, rank);
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  *error = comm->rank == rank_with_error ? ncclRemoteError : comm->state.load();
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  if (goes_wrong("finalize_blocks")) ::pause();
  if (comm->state != ncclSuccess) return ncclInvalidUsage;
  comm->finalize();
  return ncclInProgress;
}

// As the library where it is not finalized: it would wait for peers, so here it is refused.
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (comm->state != ncclSuccess) return ncclInvalidUsage;
  comm->background.join();
  comm->note_end();
  delete comm;
  ++destroyed;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  if (goes_wrong("abort_hangs")) ::pause();
  comm->abort();
  comm->note_end();
  delete comm;
  ++aborted_ones;
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
    if (goes_wrong("asynchronous_error")) {
      comm->state = ncclRemoteError;
      comm->group.clear();
      continue;
    }
    comm->begun();
    tutti::emulation::enqueue(
        comm->stream, [comm, transfers = std::move(comm->group)]() -> std::string {
          goes_wrong("late_error") ? comm->break_late() : comm->run(transfers);
          comm->ended();
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

namespace tutti::emulation {

NcclEnds nccl_ends() { return {destroyed, aborted_ones, ended_elsewhere}; }
void find_nccl_error(int rank) { rank_with_error = rank; }

}  // namespace tutti::emulation
