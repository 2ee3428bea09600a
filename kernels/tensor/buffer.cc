#include "kernels/tensor/buffer.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/tensor/device.h"
#include "kernels/tensor/huge_pages.h"

namespace tutti::kernels {

namespace {
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
std::atomic<long> made{0};
std::atomic<std::size_t> huge_asked{0};  // bytes of buffers that are held
}  // namespace

std::size_t huge_bytes_asked() { return huge_asked.load(std::memory_order_relaxed); }

AlignedBytes::AlignedBytes(std::size_t bytes, Device* device) : device_(device) {
  if (bytes == 0) return;
  if (device != nullptr) {
    bytes_ = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    auto allocated = device->allocate(bytes_);
    if (!allocated) throw AllocationFailure(std::move(allocated).error());
    if (auto zeroed = device->zero(*allocated, bytes_); !zeroed) {
      throw AllocationFailure(std::move(zeroed).error());
    }
    data_ = static_cast<std::byte*>(*allocated);
    return;
  }
  bytes_ = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t alignment = bytes_ >= kHugePage ? kHugePage : kAlignment;
  made.fetch_add(1, std::memory_order_relaxed);
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes_) != 0) throw std::bad_alloc();
  // Advice only: without huge pages everything works, slower.
  if (bytes_ >= kHugePage) {
    madvise(memory, bytes_, MADV_HUGEPAGE);
    huge_asked.fetch_add(bytes_, std::memory_order_relaxed);
  }
  std::memset(memory, 0, bytes_);
  data_ = static_cast<std::byte*>(memory);
}

long AlignedBytes::allocations() { return made.load(std::memory_order_relaxed); }

AlignedBytes::~AlignedBytes() {
  if (device_ != nullptr && data_ != nullptr) {
    device_->release(data_);
  } else {
    if (bytes_ >= kHugePage) huge_asked.fetch_sub(bytes_, std::memory_order_relaxed);
    std::free(data_);
  }
}

}  // namespace tutti::kernels
