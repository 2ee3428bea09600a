// Memory of the emulated device, and what the device knows of the host's.
//
// The device's own memory is a region of the address space in which the host can neither read nor
// write while the device does nothing: host code that takes a device pointer for its own ends with
// a fault. A piece stands between margins, which must stay as they are; fresh memory is full of
// NaNs. The other way round, an address that a kernel is handed must be one of these pieces, or
// memory of the host that the device was told of.
//
// Threads: any; what is allocated under the lock may come here again (tests have this memory behind
// operator new).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace tutti::emulation {

enum class MemoryKind { none, device, pinned, registered };

// Null: there is not so much left of `TUTTI_EMULATION_MEMORY`, which is for device memory only.
void* take_memory(std::size_t bytes, MemoryKind kind);
// Whether it was taken here.
bool give_memory_back(void* memory);
// Memory of the host that the device sees from now on, or no longer. False: it does already, or
// did not.
bool register_memory(void* memory, std::size_t bytes);
bool unregister_memory(void* memory);

// Of a piece that holds all these bytes.
MemoryKind kind_of(const void* memory, std::size_t bytes);
std::size_t memory_total();
std::size_t memory_used();
// Ever, of the device and pinned.
std::uint64_t pieces_taken();
// So much is another process's from now on.
void note_memory_used(std::size_t bytes);

// Copies between host and device that this process has asked for.
struct CopiedBytes {
  std::uint64_t up = 0;
  std::uint64_t down = 0;
};
CopiedBytes copied_bytes();

// "memory of 12 bytes was written beyond its ends"; empty: all margins are as they were.
std::string broken_margin();
void mend_margins();

// Whether the word is an address of memory, but of none that the device knows.
bool is_foreign_address(std::uintptr_t word);

// While one is there the device's memory can be used by all threads: of work of the device, and of
// tests that look into it.
class MemoryUse {
 public:
  MemoryUse();
  ~MemoryUse();
  MemoryUse(const MemoryUse&) = delete;
  MemoryUse& operator=(const MemoryUse&) = delete;
};

}  // namespace tutti::emulation
