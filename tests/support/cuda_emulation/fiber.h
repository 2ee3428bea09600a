// A stack of its own for one emulated GPU thread, and the switch between stacks.
//
// A launch runs thousands of threads, so a switch is a dozen instructions (x86-64: the registers
// that a call preserves) and stacks are kept and used again.
//
// Threads: a fiber stays on the operating system's thread that first resumed it.
#pragma once

#include <cstddef>

namespace tutti::emulation {

class Fiber {
 public:
  static constexpr std::size_t kStackBytes = 128 * 1024;

  Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber();

  // Makes the fiber ready to run `entry(context)` from its start; what it was in is forgotten.
  void prepare(void (*entry)(void*), void* context);
  // Runs the fiber until it suspends.
  void resume();
  // From inside the fiber: back to who resumed it. The entry must end with a call of this.
  void suspend();

 private:
  static void start();

  std::byte* memory_ = nullptr;
  void* stack_pointer_ = nullptr;
  void* caller_ = nullptr;
  void (*entry_)(void*) = nullptr;
  void* context_ = nullptr;
};

}  // namespace tutti::emulation
