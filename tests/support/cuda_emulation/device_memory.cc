#include "tests/support/cuda_emulation/device_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "protocol/base/assert.h"
#include "tests/support/poison.h"

namespace tutti::emulation {

using test::allow, test::forbid;

namespace {

constexpr std::size_t kMarginBytes = 256;
constexpr unsigned char kMargin = 0xfe;
constexpr unsigned char kFresh = 0xff;
constexpr std::size_t kMemoryDefault = std::size_t{4} << 30;
constexpr std::size_t kPageBytes = 4096;
// Addresses only: more than any test has, with its margins.
constexpr std::size_t kRegionBytes = std::size_t{32} << 30;
// Pieces from here on are pages that are given back to the system.
constexpr std::size_t kLarge = 16 * kPageBytes;
constexpr std::size_t kEndedMax = 16;  // pieces of pinned memory that are kept

std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

struct Piece {
  std::size_t bytes = 0;
  MemoryKind kind = MemoryKind::none;

  bool has_margins() const { return kind != MemoryKind::registered; }
  std::size_t whole() const {
    const std::size_t with_margins = round_up(bytes + 2 * kMarginBytes, kMarginBytes);
    return with_margins < kLarge ? with_margins : round_up(with_margins, kPageBytes);
  }
};

void fill_margins(char* begin, const Piece& piece) {
  const std::size_t behind = piece.whole() - kMarginBytes - piece.bytes;
  for (auto [margin, bytes] :
       {std::pair(begin - kMarginBytes, kMarginBytes), std::pair(begin + piece.bytes, behind)}) {
    allow(margin, bytes);
    std::memset(margin, kMargin, bytes);
    forbid(margin, bytes);
  }
}

[[gnu::no_sanitize_address]] bool margins_are_kept(const char* begin, const Piece& piece) {
  for (std::size_t i = 0; i < kMarginBytes; ++i) {
    if (static_cast<unsigned char>(begin[piece.bytes + i]) != kMargin ||
        static_cast<unsigned char>(begin[-1 - static_cast<std::ptrdiff_t>(i)]) != kMargin) {
      return false;
    }
  }
  return true;
}

class Memory {
 public:
  Memory()
      : region_(static_cast<char*>(::mmap(nullptr, kRegionBytes, PROT_NONE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    TUTTI_ASSERT(region_ != MAP_FAILED);
    free_[0] = kRegionBytes;
  }

  void* take(std::size_t bytes, MemoryKind kind) {
    const std::lock_guard lock(mutex);
    const Piece piece{bytes, kind};
    if (kind == MemoryKind::device && used + bytes > memory_total()) return nullptr;
    char* const start = kind == MemoryKind::device
                            ? take_of_region(piece.whole())
                            : static_cast<char*>(std::aligned_alloc(kMarginBytes, piece.whole()));
    TUTTI_ASSERT(start != nullptr);
    begin_use();
    allow(start, piece.whole());
    std::memset(start + kMarginBytes, kFresh, bytes);
    fill_margins(start + kMarginBytes, piece);
    end_use();
    if (kind == MemoryKind::device) used += bytes;
    ++taken;
    pieces[start + kMarginBytes] = piece;
    return start + kMarginBytes;
  }

  bool give_back(void* memory) {
    const std::lock_guard lock(mutex);
    const auto found = pieces.find(static_cast<char*>(memory));
    if (found == pieces.end() || !found->second.has_margins()) return false;
    const Piece piece = found->second;
    pieces.erase(found);
    char* const start = static_cast<char*>(memory) - kMarginBytes;
    if (piece.kind != MemoryKind::device) {
      end_pinned(start, piece);
      return true;
    }
    used -= piece.bytes;
    forbid(start, piece.whole());
    const auto offset = static_cast<std::size_t>(start - region_);
    if (piece.whole() >= kLarge) ::madvise(start, piece.whole(), MADV_DONTNEED);
    give_to_region(offset, piece.whole());
    return true;
  }

  void begin_use() {
    const std::lock_guard lock(use_mutex_);
    if (users_++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  void end_use() {
    const std::lock_guard lock(use_mutex_);
    if (--users_ == 0) protect(PROT_NONE);
  }

  // The piece at or before the address; none: end().
  auto before(const char* address) const {
    auto found = pieces.upper_bound(address);
    return found == pieces.begin() ? pieces.end() : std::prev(found);
  }

  std::recursive_mutex mutex;
  std::map<const char*, Piece> pieces;  // by address
  std::size_t used = 0;
  std::uint64_t taken = 0;  // pieces

 private:
  // Who still reads it finds no number in it; it is kept for a while, so that they read nothing
  // else.
  void end_pinned(char* start, const Piece& piece) {
    allow(start, piece.whole());
    std::memset(start, kFresh, piece.whole());
    forbid(start, piece.whole());
    ended_.push_back(start);
    if (ended_.size() <= kEndedMax) return;
    std::free(ended_.front());
    ended_.pop_front();
  }

  char* take_of_region(std::size_t whole) {
    const std::size_t to = whole < kLarge ? kMarginBytes : kPageBytes;
    for (auto [offset, bytes] : free_) {
      const std::size_t start = round_up(offset, to);
      if (start + whole > offset + bytes) continue;
      free_.erase(offset);
      if (start > offset) free_[offset] = start - offset;
      if (start + whole < offset + bytes) free_[start + whole] = offset + bytes - start - whole;
      raise_to(start + whole);
      return region_ + start;
    }
    return nullptr;
  }

  void give_to_region(std::size_t offset, std::size_t bytes) {
    const auto next = free_.lower_bound(offset);
    if (next != free_.end() && next->first == offset + bytes) {
      bytes += next->second;
      free_.erase(next);
    }
    const auto after = free_.lower_bound(offset);
    if (after != free_.begin()) {
      const auto last = std::prev(after);
      if (last->first + last->second == offset) {
        last->second += bytes;
        return;
      }
    }
    free_[offset] = bytes;
  }

  void raise_to(std::size_t end) {
    const std::lock_guard lock(use_mutex_);
    if (end <= reached_) return;
    const std::size_t before = std::exchange(reached_, round_up(end, std::size_t{1} << 20));
    forbid(region_ + before, reached_ - before);
    if (users_ > 0) protect(PROT_READ | PROT_WRITE);
  }
  void protect(int may) const {
    TUTTI_ASSERT(reached_ == 0 || ::mprotect(region_, reached_, may) == 0);
  }

  char* region_;
  std::map<std::size_t, std::size_t> free_;  // bytes by offset
  std::deque<char*> ended_;                  // pinned memory that was given back, oldest first
  std::mutex use_mutex_;
  int users_ = 0;
  std::size_t reached_ = 0;  // no piece was ever behind this
};

// Never destroyed: stream threads may outlive static objects.
Memory& all() {
  static auto* const one = new Memory;
  return *one;
}

}  // namespace

MemoryUse::MemoryUse() { all().begin_use(); }
MemoryUse::~MemoryUse() { all().end_use(); }

void* take_memory(std::size_t bytes, MemoryKind kind) { return all().take(bytes, kind); }
bool give_memory_back(void* memory) { return all().give_back(memory); }

bool register_memory(void* memory, std::size_t bytes) {
  Memory& m = all();
  const std::lock_guard lock(m.mutex);
  const Piece piece{bytes, MemoryKind::registered};
  return m.pieces.try_emplace(static_cast<char*>(memory), piece).second;
}

bool unregister_memory(void* memory) {
  Memory& m = all();
  const std::lock_guard lock(m.mutex);
  const auto found = m.pieces.find(static_cast<char*>(memory));
  if (found == m.pieces.end() || found->second.has_margins()) return false;
  m.pieces.erase(found);
  return true;
}

MemoryKind kind_of(const void* memory, std::size_t bytes) {
  Memory& m = all();
  const std::lock_guard lock(m.mutex);
  const auto found = m.before(static_cast<const char*>(memory));
  if (found == m.pieces.end()) return MemoryKind::none;
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(memory) - found->first);
  const bool inside = offset < found->second.bytes && bytes <= found->second.bytes - offset;
  return inside ? found->second.kind : MemoryKind::none;
}

std::size_t memory_total() {
  const char* const text = std::getenv("TUTTI_EMULATION_MEMORY");
  return text == nullptr ? kMemoryDefault : std::strtoull(text, nullptr, 10);
}
std::size_t memory_used() {
  const std::lock_guard lock(all().mutex);
  return all().used;
}
std::uint64_t pieces_taken() {
  const std::lock_guard lock(all().mutex);
  return all().taken;
}
void note_memory_used(std::size_t bytes) {
  const std::lock_guard lock(all().mutex);
  all().used += bytes;
}

std::string broken_margin() {
  Memory& m = all();
  const std::lock_guard lock(m.mutex);
  const MemoryUse use;
  for (const auto& [start, piece] : m.pieces) {
    if (piece.has_margins() && !margins_are_kept(start, piece)) {
      return "memory of " + std::to_string(piece.bytes) + " bytes was written beyond its ends";
    }
  }
  return {};
}

void mend_margins() {
  Memory& m = all();
  const std::lock_guard lock(m.mutex);
  const MemoryUse use;
  for (const auto& [start, piece] : m.pieces) {
    if (piece.has_margins()) fill_margins(const_cast<char*>(start), piece);
  }
}

// A number among a kernel's arguments may look like an address: it is one where there is memory.
bool is_foreign_address(std::uintptr_t word) {
  // Below the upper one lies what AddressSanitizer keeps: there is memory for every number.
  constexpr std::uintptr_t kAddressMin = test::kWatched ? 0x10007fff8000 : 1 << 16;
  constexpr std::uintptr_t kAddressMax = std::uintptr_t{1} << 47;
  if (word < kAddressMin || word >= kAddressMax) return false;
  const auto* const address = reinterpret_cast<const char*>(word);
  {
    Memory& m = all();
    const std::lock_guard lock(m.mutex);
    const auto found = m.before(address);
    // An end, too, and what stands a little before a piece's start.
    if (found != m.pieces.end() && address <= found->first + found->second.bytes + kMarginBytes) {
      return false;
    }
    const auto next = m.pieces.upper_bound(address);
    if (next != m.pieces.end() && address + kMarginBytes >= next->first) return false;
  }
  unsigned char resident = 0;
  auto* const page = reinterpret_cast<void*>(word / kPageBytes * kPageBytes);
  return ::mincore(page, 1, &resident) == 0;
}

}  // namespace tutti::emulation
