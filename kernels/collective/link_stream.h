// The bytes between two ranks, in both directions: a connected socket, or two rings in shared
// memory beside it.
//
// With rings the socket carries no data. It tells that the other process is gone, which nothing in
// memory could, and wakes a rank that waits: one byte from whoever moved an index meanwhile.
//
// Threads: one. Errors: unavailable (the other side closed), corrupt (its indices cannot be).
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>

#include "kernels/collective/ring_pair.h"
#include "protocol/base/file.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

class LinkStream {
 public:
  LinkStream() = default;
  explicit LinkStream(FileDescriptor socket, std::unique_ptr<RingPair> rings = nullptr)
      : socket_(std::move(socket)), rings_(std::move(rings)) {}

  explicit operator bool() const { return static_cast<bool>(socket_); }
  const FileDescriptor& socket() const { return socket_; }
  bool in_memory() const { return rings_ != nullptr; }
  // The other side did not take the memory.
  void drop_rings() { rings_.reset(); }
  void release_memory() { rings_->release_memory(); }

  // How many bytes of `parts`, in order, were taken; 0 means none now.
  Result<std::size_t> send(std::span<const iovec> parts);
  // How many bytes came; 0 means none now.
  Result<std::size_t> receive(std::span<std::byte> target);
  // Whether the next `target.size()` bytes are there; they stay.
  bool peek(std::span<std::byte> target);

  // The socket was seen to hang up: what is there can still be read, and no more will come.
  void on_hang_up() { hung_up_ = true; }
  // The socket of rings has something to read.
  void take_rings_of_bell();

  // Rings only. After begin_waiting() the caller looks once more before it waits.
  void begin_waiting() { rings_->begin_waiting(); }
  void end_waiting() { rings_->end_waiting(); }
  bool readable() { return rings_->readable(); }
  bool writable() { return rings_->writable(); }

  // Last words, if there is room for them, and the end.
  void close(std::span<std::byte> last) noexcept;

 private:
  void ring_if_waiting();

  FileDescriptor socket_;
  std::unique_ptr<RingPair> rings_;
  bool hung_up_ = false;
};

}  // namespace tutti::kernels
