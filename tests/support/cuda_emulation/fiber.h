// A stack of its own for one emulated GPU thread, and the switch between stacks.
//
// A launch runs thousands of threads, so a switch is a dozen instructions (x86-64: the registers
// that a call preserves) and stacks are kept and used again.
//
// AddressSanitizer is told of every switch: it knows one stack of a thread and would take a fiber's
// frames for wild memory.
//
// Threads: a fiber stays on the operating system's thread that first resumed it.
#pragma once

#include <cstddef>

namespace tutti::emulation {

class Fiber {
 public:
#ifdef __SANITIZE_ADDRESS__
  static constexpr std::size_t kStackBytes = 512 * 1024;  // frames have margins
#else
  static constexpr std::size_t kStackBytes = 128 * 1024;
#endif

  Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber();

  // Makes the fiber ready to run `entry(context)` from its start; what it was in is forgotten.
  void prepare(void (*entry)(void*), void* context);
  // Runs the fiber until it suspends.
  void resume();
  // From inside the fiber: back to who resumed it, who is there again, too, when the entry returns;
  // a fiber that ended must be prepared before it is resumed.
  void suspend();

 private:
  static void start();
  void switch_back(void** kept_frames);

  std::byte* memory_ = nullptr;
  void* stack_pointer_ = nullptr;
  void* caller_ = nullptr;
  void (*entry_)(void*) = nullptr;
  void* context_ = nullptr;
  bool has_frames_ = false;  // it was begun and has not ended
  // AddressSanitizer's: the stack of who resumed it, and the fiber's frames that are on none.
  const void* caller_stack_ = nullptr;
  std::size_t caller_stack_bytes_ = 0;
  void* kept_frames_ = nullptr;
};

}  // namespace tutti::emulation
