#include "kernels/tensor/buffer.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

namespace tutti::kernels {

namespace {
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
std::atomic<long> made{0};
}  // namespace

AlignedBytes::AlignedBytes(std::size_t bytes) {
  if (bytes == 0) return;
  const std::size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  bytes_ = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  made.fetch_add(1, std::memory_order_relaxed);
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes_) != 0) throw std::bad_alloc();
  // Advice only: without huge pages everything works, slower.
  if (bytes >= kHugePage) madvise(memory, bytes_, MADV_HUGEPAGE);
  std::memset(memory, 0, bytes_);
  data_ = static_cast<std::byte*>(memory);
}

long AlignedBytes::allocations() { return made.load(std::memory_order_relaxed); }

AlignedBytes::~AlignedBytes() { std::free(data_); }

}  // namespace tutti::kernels
