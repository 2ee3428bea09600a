#include "kernels/ceilings/thread_parts.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <new>

namespace tutti::kernels {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr Index kLineFloats = 16;

}  // namespace

ThreadParts::ThreadParts(ThreadPool& pool, Index floats, Pages pages)
    : pool_(pool), each_(floats / pool.threads() / kLineFloats * kLineFloats) {
  const std::size_t bytes = static_cast<std::size_t>(this->floats()) * sizeof(float);
  mapped_bytes_ = bytes + kHugePage;
  mapped_ =
      ::mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped_ == MAP_FAILED) throw std::bad_alloc();
  // Advice only: a system without huge pages gives small ones either way.
  ::madvise(mapped_, mapped_bytes_, pages == Pages::huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  const auto address = reinterpret_cast<std::uintptr_t>(mapped_);
  first_ = reinterpret_cast<float*>((address + kHugePage - 1) / kHugePage * kHugePage);
  each([](std::span<float> own) { std::fill(own.begin(), own.end(), 1.0F); });
}

ThreadParts::~ThreadParts() { ::munmap(mapped_, mapped_bytes_); }

}  // namespace tutti::kernels
