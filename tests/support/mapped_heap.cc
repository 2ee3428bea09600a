#include "tests/support/mapped_heap.h"

#include <cuda_runtime.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstring>

#include "tests/support/poison.h"

namespace tutti::test {

namespace {

constexpr std::size_t kChunkBytes = std::size_t{32} << 20;
constexpr std::size_t kLarge = std::size_t{64} << 10;  // from here on an allocation of its own
constexpr std::size_t kAlignment = 64;
constexpr unsigned char kGap = 0xff;  // four of them are a NaN

// The CUDA library allocates too, and must not find itself here again.
thread_local bool asking = false;

// Pages of this process that the device has been told of. Both know them by one address, or the
// cases could not hand out what their vectors say.
std::byte* mapped(std::size_t bytes) {
  void* const pages =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return nullptr;
  asking = true;
  void* seen = nullptr;
  const bool told = cudaHostRegister(pages, bytes, cudaHostRegisterMapped) == cudaSuccess &&
                    cudaHostGetDevicePointer(&seen, pages, 0) == cudaSuccess && seen == pages;
  if (!told) static_cast<void>(cudaGetLastError());
  asking = false;
  if (told) {
    may_point(pages, bytes);
    return static_cast<std::byte*>(pages);
  }
  ::munmap(pages, bytes);
  return nullptr;
}

// From its start; `end` where all of the gap is as it was.
[[gnu::no_sanitize_address]] std::ptrdiff_t first_changed(const std::byte* start, std::ptrdiff_t at,
                                                          std::ptrdiff_t end) {
  while (at < end && start[at] == std::byte{kGap}) ++at;
  return at;
}

std::size_t whole_bytes(std::size_t bytes) {
  constexpr std::size_t kGaps = 2 * MappedHeap::kGapBytes;
  return (kGaps + bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

std::byte* MappedHeap::take_of_chunk(std::size_t whole) {
  {
    const std::lock_guard lock(mutex_);
    if (left_ >= whole) {
      left_ -= whole;
      return std::exchange(chunk_, chunk_ + whole);
    }
  }
  // Without the lock: the library takes its own.
  std::byte* const chunk = mapped(kChunkBytes);
  if (chunk == nullptr) return nullptr;
  const std::lock_guard lock(mutex_);
  chunk_ = chunk + whole;
  left_ = kChunkBytes - whole;
  return chunk;
}

void* MappedHeap::take(std::size_t bytes) {
  if (asking) return nullptr;
  const std::size_t whole = whole_bytes(bytes);
  std::byte* const start = bytes >= kLarge ? mapped(whole) : take_of_chunk(whole);
  return start == nullptr ? nullptr : enter(start, bytes, whole);
}

void* MappedHeap::enter(std::byte* start, std::size_t bytes, std::size_t whole) {
  std::byte* const piece = start + kGapBytes;
  std::memset(start, kGap, kGapBytes);
  std::memset(piece + bytes, kGap, whole - kGapBytes - bytes);
  forbid(start, kGapBytes);
  forbid(piece + bytes, whole - kGapBytes - bytes);
  const std::lock_guard lock(mutex_);
  pieces_.emplace(piece, bytes);
  return piece;
}

bool MappedHeap::give_back(void* memory) {
  std::size_t bytes = 0;
  {
    const std::lock_guard lock(mutex_);
    const auto found = pieces_.find(static_cast<const std::byte*>(memory));
    if (found == pieces_.end()) return false;
    check(*found);
    bytes = found->second;
    pieces_.erase(found);
  }
  std::byte* const start = static_cast<std::byte*>(memory) - kGapBytes;
  if (bytes < kLarge) {
    forbid(start, whole_bytes(bytes));
    return true;
  }
  allow(start, whole_bytes(bytes));
  may_not_point(start, whole_bytes(bytes));
  static_cast<void>(cudaHostUnregister(start));
  ::munmap(start, whole_bytes(bytes));
  return true;
}

void MappedHeap::check(const Pieces::value_type& piece) {
  const auto& [start, bytes] = piece;
  const auto gap = static_cast<std::ptrdiff_t>(kGapBytes);
  const auto end = static_cast<std::ptrdiff_t>(bytes);
  for (const std::ptrdiff_t from : {-gap, end}) {
    const std::ptrdiff_t changed = first_changed(start, from, from + gap);
    if (broken_ || changed == from + gap) continue;
    broken_ = true;
    broken_bytes_ = bytes;
    broken_at_ = changed;
  }
}

std::string MappedHeap::overrun() {
  std::size_t bytes = 0;
  std::ptrdiff_t at = 0;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& piece : pieces_) check(piece);
    if (!broken_) return {};
    bytes = broken_bytes_;
    at = broken_at_;
  }
  const std::string place =
      at < 0 ? std::to_string(-at) + " bytes before its start"
             : std::to_string(at - static_cast<std::ptrdiff_t>(bytes)) + " bytes behind its end";
  return "a vector of " + std::to_string(bytes) + " bytes was written " + place;
}

namespace {

// Never destroyed: static objects give back what they took of it.
MappedHeap& heap() {
  static auto* const one = [] {
    void* const memory = std::malloc(sizeof(MappedHeap));
    if (memory == nullptr) std::abort();
    return new (memory) MappedHeap;
  }();
  return *one;
}

std::atomic<bool> heap_is_open{false};

}  // namespace

bool heap_works() {
  MappedHeap other;
  void* const piece = other.take(kLarge);
  return piece != nullptr && other.give_back(piece);
}

void open_heap() { heap_is_open = true; }

void open_heap_or_skip(const char* program) {
  if (!heap_works()) {
    std::fprintf(stderr,
                 "%s: skipped: this machine does not let a process tell the GPU of its memory "
                 "(cudaHostRegister)\n",
                 program);
    std::_Exit(77);
  }
  open_heap();
}

std::string heap_overrun() { return heap().overrun(); }

}  // namespace tutti::test

void* operator new(std::size_t bytes) {
  namespace test = tutti::test;
  void* taken = test::heap_is_open ? test::heap().take(bytes) : nullptr;
  if (taken == nullptr) taken = std::malloc(bytes == 0 ? 1 : bytes);
  if (taken == nullptr) throw std::bad_alloc();
  return taken;
}
void operator delete(void* pointer) noexcept {
  namespace test = tutti::test;
  if (!test::heap_is_open || !test::heap().give_back(pointer)) std::free(pointer);
}
void operator delete(void* pointer, std::size_t) noexcept { operator delete(pointer); }
// Those of a sanitizer's library do not come by the ones above.
void* operator new[](std::size_t bytes) { return operator new(bytes); }
void operator delete[](void* pointer) noexcept { operator delete(pointer); }
void operator delete[](void* pointer, std::size_t) noexcept { operator delete(pointer); }
