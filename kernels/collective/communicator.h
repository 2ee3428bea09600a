// One generation's group of ranks on the data plane: grouped point-to-point transfers, and an abort
// from outside.
//
// A peer that dies is seen by every rank at once, whoever it waits for; any operation can be
// aborted from any thread at once; an aborted communicator is thrown away and the next generation
// makes a new one. Collectives stand on top (collectives.h) and never sum in an order that depends
// on the transport.
//
//   auto listener = Listener::open(options);           before RankReady, which tells its address()
//   auto group = listener->connect(FormOptions{...});  all ranks, with the addresses of FormGroup
//   group->exchange(transfers);
//
// Ownership: the caller owns the communicator and the buffers; buffers stay valid until the call
// returns.
// Threads: one thread calls the operations; abort(), aborted(), lost_peer(), operations() from any.
// Errors: aborted (abort() was called), unavailable (a peer is gone: `lost_peer()` names it),
// deadline_exceeded, permission_denied (wrong secret), stale (wrong generation), corrupt (a peer is
// at another group or length, or its rings are not in order). After any error the group is broken
// for good.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

// More ranks than this in one full mesh is a planning error: descriptors grow with the square.
inline constexpr std::uint32_t kMeshRanksMax = 256;

// Large enough that ranks which share cores with others seldom wait for each other, small enough
// for the caches (kernels/lab/collective.md).
inline constexpr std::uint64_t kRingBytes = 1 << 20;

struct Transfer {
  enum class Direction { send, receive };
  Direction direction = Direction::send;
  std::uint32_t peer = 0;      // a rank; never the own one
  std::span<std::byte> bytes;  // receive: filled completely; send: not written to
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual std::uint32_t rank() const = 0;
  virtual std::uint32_t size() const = 0;

  // All transfers, together; returns when all are done. Between one pair of ranks, the k-th send of
  // a group meets the k-th receive, and both must agree on the length. Ranks must perform the same
  // sequence of groups; each is numbered, and a peer that is at another number or length is an
  // error (corrupt), never a mix-up.
  virtual Result<> exchange(std::span<const Transfer> transfers) = 0;

  // As exchange(), but where the group moves device memory, it moves when what the device was given
  // before is done, while the caller goes on: the buffers are the group's until finish() returns,
  // which waits for all that was begun; after an error, until the group ends.
  virtual Result<> begin(std::span<const Transfer> transfers) { return exchange(transfers); }
  virtual Result<> finish() { return {}; }

  // Whether the group still stands, without waiting; for a thread whose transfers go another way.
  // Errors: those of exchange(), and the group is broken then.
  virtual Result<> look() {
    if (aborted()) return Error{ErrorCode::aborted, "the group is left"};
    return {};
  }

  // Where the group moves device memory: until what the device was given before is done, or the
  // group does not stand; what was begun may go on. Elsewhere there is nothing to wait for. Errors:
  // those of look(), and the device's.
  virtual Result<> wait_for_device() { return {}; }

  // Ends the operation in progress and all later ones, at once. Idempotent; the first reason is
  // kept.
  virtual void abort(std::string_view reason) noexcept = 0;
  virtual bool aborted() const noexcept = 0;

  // The peer that was seen gone first, or -1.
  virtual std::int32_t lost_peer() const noexcept = 0;

  // Whether transfers may be memory of the rank's device.
  virtual bool moves_device_memory() const noexcept { return false; }

  // Number of groups exchanged so far; read by progress reports from any thread.
  virtual std::uint64_t operations() const noexcept = 0;
};

struct ListenOptions {
  // TCP on this address; empty: an abstract Unix socket, which leaves no file behind.
  std::string host = {};
};

struct FormOptions {
  std::uint32_t rank = 0;
  std::vector<std::string> addresses = {};  // by rank, ours included
  std::uint64_t generation = 0;
  // At most kSecretBytesMax; both sides prove that they know it; strangers are turned away.
  std::string secret = {};
  Duration deadline = std::chrono::seconds(30);            // to have the full mesh
  Duration operation_deadline = std::chrono::seconds(60);  // without any byte moving; 0: none
  // Ranks that meet over a Unix socket exchange through rings in shared memory of this size for
  // each direction (a power of two, 4 KiB to 64 MiB; less in a large group), unless either has 0.
  std::uint64_t ring_bytes = kRingBytes;
  // How long a rank looks again before it sleeps. None where ranks outnumber the machine's cores.
  Duration spin = std::chrono::microseconds(20);
};

inline constexpr std::size_t kSecretBytesMax = 128;

// A rank's door for one generation.
class Listener {
 public:
  // Errors: from the system (address in use, host unknown).
  static Result<std::unique_ptr<Listener>> open(const ListenOptions& options);
  virtual ~Listener() = default;

  virtual const std::string& address() const = 0;  // unix:@NAME | tcp:HOST:PORT

  // The full mesh with all ranks of `options.addresses`; size 1 gives a group that needs no peer.
  // May be ended by cancel() from any thread (aborted). A peer that refuses the connection is gone
  // (unavailable), since every rank listens before the addresses are known. The listener is used
  // up.
  virtual Result<std::unique_ptr<Communicator>> connect(const FormOptions& options) = 0;
  virtual void cancel() noexcept = 0;

  // The peer that was seen gone while connecting, or -1; and how many strangers were turned away.
  virtual std::int32_t lost_peer() const noexcept = 0;
  virtual std::uint64_t refused() const noexcept = 0;
};

}  // namespace tutti::kernels
