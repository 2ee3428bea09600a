// Device memory for the time of one op, and pinned memory through which host data goes up; and
// memory of the host for the lists that an op makes on its way there.
//
// Both are used in stream order: what an op took is free again for the next op on the same stream,
// without waiting. Scratch grows while ops are new and is then constant: one piece, as large as
// what the op that takes most takes, which is what a plan of memory counts. A step allocates
// nothing after the first of its shape.
//
// Threads: one. Errors: exhausted, unavailable.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory_resource>
#include <utility>
#include <vector>

#include "kernels/cuda/runtime.h"

namespace tutti::kernels::cuda {

class ScratchMemory {
 public:
  // Before memory is given back: sees to it that no work uses it any more, neither what is enqueued
  // nor what may be launched again. False: this cannot be now.
  using Release = std::function<bool()>;
  void before_release(Release release) { release_ = std::move(release); }

  // 256-byte aligned; valid until reset().
  Result<void*> take(std::size_t bytes);
  void reset();
  // What was taken after the mark is free for what the same op enqueues next.
  struct Mark {
    std::size_t chunk = 0;
    std::size_t used = 0;
    std::size_t taken = 0;
  };
  Mark mark() const { return {chunk_, used_, taken_}; }
  void rewind(Mark mark) {
    chunk_ = mark.chunk;
    used_ = mark.used;
    taken_ = mark.taken;
  }
  std::size_t reserved() const { return reserved_; }

 private:
  struct Chunk {
    DeviceMemory memory;
    std::size_t bytes = 0;
  };
  void give_back();

  Release release_ = [] { return true; };
  std::vector<Chunk> chunks_;
  std::size_t chunk_ = 0;
  std::size_t used_ = 0;   // of the chunk
  std::size_t taken_ = 0;  // by the op
  std::size_t taken_most_ = 0;
  std::size_t reserved_ = 0;
};

// For containers that end with the op, in which they are given nothing back: a step allocates
// nothing once its ops have been there.
class HostScratch final : public std::pmr::memory_resource {
 public:
  void reset();

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(void*, std::size_t, std::size_t) override {}
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }

  std::vector<std::vector<std::byte>> chunks_;
  std::size_t used_ = 0;   // of the last one
  std::size_t taken_ = 0;  // by the op
};

class UploadRing {
 public:
  static constexpr std::size_t kSlots = 4;
  static constexpr std::size_t kSlotBytes = std::size_t{4} << 20;

  static Result<UploadRing> make();
  // `from` is copied before it returns.
  Result<> send(cudaStream_t stream, void* to, const void* from, std::size_t bytes);

 private:
  struct Slot {
    PinnedMemory memory;
    Event sent;
    std::size_t used = 0;
  };
  Result<> next_slot(cudaStream_t stream);

  std::array<Slot, kSlots> slots_;
  std::size_t slot_ = 0;
};

}  // namespace tutti::kernels::cuda
