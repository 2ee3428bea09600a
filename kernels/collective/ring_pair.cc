#include "kernels/collective/ring_pair.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>

namespace tutti::kernels {
namespace {

constexpr std::uint64_t kControlBytes = 4096;
constexpr std::size_t kLine = 64;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
// The other side may go on with a part while the rest is being copied.
constexpr std::size_t kPublishBytes = 64 << 10;

std::uint64_t mapped_bytes(std::uint64_t bytes) { return kControlBytes + 2 * bytes; }

}  // namespace

// Each word has a cache line of its own: who polls one does not slow the writer of another.
struct RingPair::Control {
  struct alignas(kLine) Word {
    Counter value{0};
  };
  Word head[2];
  Word tail[2];
  Word waits[2];
  Word closed[2];
};

RingPair::RingPair(std::byte* mapped, std::uint64_t bytes, Side side)
    : mapped_(mapped),
      bytes_(bytes),
      own_(static_cast<std::uint32_t>(side)),
      other_(1 - own_),
      outgoing_(mapped + kControlBytes + own_ * bytes),
      incoming_(mapped + kControlBytes + other_ * bytes) {}

RingPair::~RingPair() { ::munmap(mapped_, mapped_bytes(bytes_)); }

Result<std::unique_ptr<RingPair>> RingPair::map(const FileDescriptor& memory, std::uint64_t bytes,
                                                Side side) {
  void* const mapped = ::mmap(nullptr, mapped_bytes(bytes), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_POPULATE, memory.get(), 0);
  if (mapped == MAP_FAILED) return errno_error("cannot map the rings of a link", errno);
  return std::unique_ptr<RingPair>(new RingPair(static_cast<std::byte*>(mapped), bytes, side));
}

Result<std::unique_ptr<RingPair>> RingPair::make(std::uint64_t bytes) {
  static_assert(sizeof(Control) <= kControlBytes);
  static_assert(Counter::is_always_lock_free);
  if (!std::has_single_bit(bytes) || bytes < kRingBytesMin || bytes > kRingBytesMax) {
    return Error{ErrorCode::invalid_argument, "a ring has a power of two of bytes"};
  }
  FileDescriptor memory(::memfd_create("tutti-link", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  // Taken now, so that a machine without memory is told here and not by a signal later.
  const auto size = static_cast<off_t>(mapped_bytes(bytes));
  if (!memory || ::ftruncate(memory.get(), size) != 0 ||
      ::fallocate(memory.get(), 0, 0, size) != 0 ||
      ::fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0) {
    return errno_error("cannot make the rings of a link", errno);
  }
  auto pair = map(memory, bytes, Side::maker);
  if (!pair) return pair;
  new ((*pair)->mapped_) Control;
  (*pair)->memory_ = std::move(memory);
  return pair;
}

Result<std::unique_ptr<RingPair>> RingPair::take(const FileDescriptor& memory,
                                                 std::uint64_t bytes) {
  const Error strange{ErrorCode::corrupt, "the memory of a link is not what was said of it"};
  if (!std::has_single_bit(bytes) || bytes < kRingBytesMin || bytes > kRingBytesMax) {
    return strange;
  }
  struct stat about {};
  if (::fstat(memory.get(), &about) != 0) return errno_error("cannot read a link's memory", errno);
  const int seals = ::fcntl(memory.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals ||
      about.st_size != static_cast<off_t>(mapped_bytes(bytes))) {
    return strange;
  }
  return map(memory, bytes, Side::taker);
}

RingPair::Counter& RingPair::head(std::uint32_t side) {
  return std::launder(reinterpret_cast<Control*>(mapped_))->head[side].value;
}
RingPair::Counter& RingPair::tail(std::uint32_t side) {
  return std::launder(reinterpret_cast<Control*>(mapped_))->tail[side].value;
}
RingPair::Counter& RingPair::waits(std::uint32_t side) {
  return std::launder(reinterpret_cast<Control*>(mapped_))->waits[side].value;
}
RingPair::Counter& RingPair::closed(std::uint32_t side) {
  return std::launder(reinterpret_cast<Control*>(mapped_))->closed[side].value;
}

// Looks at the other's index only when what was seen of it is used up.
Result<std::uint64_t> RingPair::room() {
  if (written_ - seen_tail_ == bytes_) {
    const std::uint64_t seen = tail(own_).load();
    if (seen - seen_tail_ > written_ - seen_tail_) {
      return Error{ErrorCode::corrupt, "it has read more than there was"};
    }
    seen_tail_ = seen;
  }
  return bytes_ - (written_ - seen_tail_);
}

Result<std::uint64_t> RingPair::waiting() {
  if (seen_head_ == read_) {
    const std::uint64_t seen = head(other_).load();
    if (seen - read_ > bytes_) {
      return Error{ErrorCode::corrupt, "it has written more than there was room"};
    }
    seen_head_ = seen;
  }
  return seen_head_ - read_;
}

void RingPair::copy_in(std::uint64_t at, const std::byte* from, std::size_t count) {
  const std::size_t first = std::min<std::size_t>(count, bytes_ - (at & (bytes_ - 1)));
  std::memcpy(outgoing_ + (at & (bytes_ - 1)), from, first);
  if (count > first) std::memcpy(outgoing_, from + first, count - first);
}

void RingPair::copy_out(std::uint64_t at, std::byte* to, std::size_t count) const {
  const std::size_t first = std::min<std::size_t>(count, bytes_ - (at & (bytes_ - 1)));
  std::memcpy(to, incoming_ + (at & (bytes_ - 1)), first);
  if (count > first) std::memcpy(to + first, incoming_, count - first);
}

Result<std::size_t> RingPair::write(std::span<const iovec> parts) {
  const std::uint64_t begin = written_;
  std::uint64_t published = written_;
  for (const iovec& part : parts) {
    const auto* from = static_cast<const std::byte*>(part.iov_base);
    std::size_t left = part.iov_len;
    while (left > 0) {
      auto free = room();
      if (!free) return std::move(free).error();
      if (*free == 0) break;
      const std::size_t count = std::min({left, static_cast<std::size_t>(*free), kPublishBytes});
      copy_in(written_, from, count);
      written_ += count;
      from += count;
      left -= count;
      if (written_ - published < kPublishBytes) continue;
      head(own_).store(written_);
      published = written_;
    }
    if (left > 0) break;
  }
  if (published != written_) head(own_).store(written_);
  return static_cast<std::size_t>(written_ - begin);
}

Result<std::size_t> RingPair::read(std::span<std::byte> target) {
  std::size_t got = 0;
  while (got < target.size()) {
    auto there = waiting();
    if (!there) return std::move(there).error();
    if (*there == 0) break;
    const std::size_t count =
        std::min({target.size() - got, static_cast<std::size_t>(*there), kPublishBytes});
    copy_out(read_, target.data() + got, count);
    read_ += count;
    got += count;
    tail(other_).store(read_);
  }
  return got;
}

bool RingPair::peek(std::span<std::byte> target) {
  seen_head_ = read_;  // as new as can be: a part of it may have been seen before
  const auto there = waiting();
  if (!there || *there < target.size()) return false;
  copy_out(read_, target.data(), target.size());
  return true;
}

// A broken index counts as something to do: the next read or write says what is wrong.
bool RingPair::readable() {
  const auto there = waiting();
  return !there || *there > 0;
}

bool RingPair::writable() {
  const auto free = room();
  return !free || *free > 0;
}

bool RingPair::wants_ringing() {
  return waits(other_).load() != 0 && waits(other_).exchange(0) != 0;
}

}  // namespace tutti::kernels
