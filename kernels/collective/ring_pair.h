// Two rings of bytes in memory that two processes share, one for each direction of a link between
// ranks of one machine.
//
//   [ control | bytes of the first side's ring | bytes of the second side's ]
//
// The memory is a sealed memfd: it has no name, ends with its last holder, and nobody can shrink it
// under a reader. Each ring has one writer, who alone moves its head, and one reader, who alone
// moves its tail; both count bytes since the beginning. A side believes its own index as it keeps
// it, and checks the other's: one that cannot be is `corrupt`, never an access out of bounds.
//
// A side that is about to wait says so first and looks once more; the other, after it has moved an
// index, sees that and is told to ring (`wants_ringing`). Both orders of the two meet in one total
// order, so that no wake-up is lost.
//
// Threads: one per side. Errors: corrupt; those of the system where the memory is made.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "protocol/base/file.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

// Of one direction; sizes are powers of two.
inline constexpr std::uint64_t kRingBytesMin = 4096;
inline constexpr std::uint64_t kRingBytesMax = std::uint64_t{64} << 20;

class RingPair {
 public:
  enum class Side : std::uint32_t { maker, taker };

  // New memory of two rings of `bytes`, and the maker's side of it.
  static Result<std::unique_ptr<RingPair>> make(std::uint64_t bytes);
  // The taker's side of memory that another process made. Errors: corrupt (not sealed, or not of
  // that size).
  static Result<std::unique_ptr<RingPair>> take(const FileDescriptor& memory, std::uint64_t bytes);

  RingPair(const RingPair&) = delete;
  RingPair& operator=(const RingPair&) = delete;
  ~RingPair();

  // Of a maker, until it is released once the other side has it.
  const FileDescriptor& memory() const { return memory_; }
  void release_memory() { memory_.reset(); }

  // How many bytes of `parts`, in order, found room; the other side sees them at once.
  Result<std::size_t> write(std::span<const iovec> parts);
  // How many bytes were there for `target`.
  Result<std::size_t> read(std::span<std::byte> target);
  // Whether `target` could be filled without taking the bytes out.
  bool peek(std::span<std::byte> target);

  bool readable();
  bool writable();

  void begin_waiting() { waits(own_).store(1); }
  void end_waiting() { waits(own_).store(0); }
  // Whether the other side waits, which it then need not be told twice.
  bool wants_ringing();

  // The side is gone for good. What it has written can still be read.
  void close() { closed(own_).store(1); }
  bool other_closed() { return closed(other_).load() != 0; }

 private:
  using Counter = std::atomic<std::uint64_t>;
  struct Control;

  RingPair(std::byte* mapped, std::uint64_t bytes, Side side);
  static Result<std::unique_ptr<RingPair>> map(const FileDescriptor& memory, std::uint64_t bytes,
                                               Side side);

  Counter& head(std::uint32_t side);
  Counter& tail(std::uint32_t side);
  Counter& waits(std::uint32_t side);
  Counter& closed(std::uint32_t side);
  Result<std::uint64_t> room();
  Result<std::uint64_t> waiting();
  void copy_in(std::uint64_t at, const std::byte* from, std::size_t count);
  void copy_out(std::uint64_t at, std::byte* to, std::size_t count) const;

  std::byte* const mapped_;
  const std::uint64_t bytes_;
  const std::uint32_t own_;
  const std::uint32_t other_;
  std::byte* const outgoing_;
  const std::byte* const incoming_;
  std::uint64_t written_ = 0;    // own head
  std::uint64_t seen_tail_ = 0;  // what the other has read of it, when last looked
  std::uint64_t read_ = 0;       // own tail
  std::uint64_t seen_head_ = 0;
  FileDescriptor memory_;
};

}  // namespace tutti::kernels
