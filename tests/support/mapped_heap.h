// Memory that the host and the GPU both see, for cases that hand ops what std::vector allocated: a
// binary that links this has it behind its operator new, from open_heap() on.
//
// It is the process's own pages, pinned and told to the GPU. Managed memory would do on many
// machines; on others a GPU hangs with it, and a sandbox's kernel does not read it in a write().
//
// Each piece stands between gaps of NaNs, which must stay so: what lies behind a vector is
// otherwise the next one, where neither a wrong number nor compute-sanitizer would show an overrun.
// Large pieces are allocations of their own; small ones are not used again once they were given
// back.
//
// Threads: any. Errors: null where the GPU is told of none; operator new then takes other memory.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace tutti::test {

// The heap's own books must not be in it.
template <class T>
struct PlainAllocator {
  using value_type = T;
  PlainAllocator() = default;
  template <class Other>
  explicit(false) PlainAllocator(const PlainAllocator<Other>&) {}
  T* allocate(std::size_t count) {
    void* const memory = std::malloc(count * sizeof(T));
    if (memory == nullptr) throw std::bad_alloc();
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t) { std::free(memory); }
  bool operator==(const PlainAllocator&) const { return true; }
};

class MappedHeap {
 public:
  static constexpr std::size_t kGapBytes = 128;

  // Aligned to 64 bytes.
  void* take(std::size_t bytes);
  // Whether it was from here. A gap of it that is not as it was is remembered.
  bool give_back(void* memory);
  // "a vector of 12 bytes was written 4 bytes behind its end"; empty: all gaps are as they were,
  // also those of pieces that are in use.
  std::string overrun();

 private:
  using Pieces = std::map<const std::byte*, std::size_t, std::less<>,
                          PlainAllocator<std::pair<const std::byte* const, std::size_t>>>;

  std::byte* take_of_chunk(std::size_t whole);
  void* enter(std::byte* start, std::size_t bytes, std::size_t whole);
  void check(const Pieces::value_type& piece);

  std::mutex mutex_;
  std::byte* chunk_ = nullptr;
  std::size_t left_ = 0;
  Pieces pieces_;  // in use
  bool broken_ = false;
  std::size_t broken_bytes_ = 0;  // of the first piece with a broken gap
  std::ptrdiff_t broken_at_ = 0;  // from its start
};

// Whether this machine lets the process tell the GPU of its memory: some sandboxes do not. The
// first kernel would end the device there.
bool heap_works();
// That of this process. Before it is open, and where there is no GPU, memory is the host's.
void open_heap();
// For a program whose cases all stand on it: where it does not work, says so in a line and ends the
// program with 77.
void open_heap_or_skip(const char* program);
std::string heap_overrun();

}  // namespace tutti::test
