#include "tests/support/cuda_emulation/fiber.h"

#include <sys/mman.h>

#include <cstdint>

#include "protocol/base/assert.h"
#include "tests/support/poison.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#else
// Nobody is to be told.
inline void __sanitizer_start_switch_fiber(void**, const void*, std::size_t) {}
inline void __sanitizer_finish_switch_fiber(void*, const void**, std::size_t*) {}
#endif

// void tutti_fiber_switch(void** save, void* load): keeps the callee-saved registers on the old
// stack.
asm(R"(
.text
.globl tutti_fiber_switch
.type tutti_fiber_switch,@function
tutti_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size tutti_fiber_switch,.-tutti_fiber_switch
)");
extern "C" void tutti_fiber_switch(void** save, void* load);

namespace tutti::emulation {

namespace {
thread_local Fiber* starting = nullptr;
}  // namespace

Fiber::Fiber() {
  void* const memory = ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  TUTTI_ASSERT(memory != MAP_FAILED);
  memory_ = static_cast<std::byte*>(memory);
}

Fiber::~Fiber() {
  test::allow(memory_, kStackBytes);
  ::munmap(memory_, kStackBytes);
}

void Fiber::prepare(void (*entry)(void*), void* context) {
  entry_ = entry;
  context_ = context;
  // Frames that never returned have left their margins.
  if (has_frames_) test::allow(memory_, kStackBytes);
  has_frames_ = false;
  // The first switch pops six registers and returns into start(), whose frame wants 16 n + 8.
  auto* top = reinterpret_cast<void**>(memory_ + kStackBytes - 72);
  *top-- = nullptr;
  *top-- = reinterpret_cast<void*>(&Fiber::start);
  for (int i = 0; i < 6; ++i) *top-- = nullptr;
  stack_pointer_ = top + 1;
}

void Fiber::resume() {
  starting = this;
  void* kept_frames = nullptr;
  __sanitizer_start_switch_fiber(&kept_frames, memory_, kStackBytes);
  tutti_fiber_switch(&caller_, stack_pointer_);
  __sanitizer_finish_switch_fiber(kept_frames, nullptr, nullptr);
}

void Fiber::suspend() {
  switch_back(&kept_frames_);
  __sanitizer_finish_switch_fiber(kept_frames_, &caller_stack_, &caller_stack_bytes_);
}

// With null for the frames, these are given up: the fiber has ended.
void Fiber::switch_back(void** kept_frames) {
  __sanitizer_start_switch_fiber(kept_frames, caller_stack_, caller_stack_bytes_);
  tutti_fiber_switch(&stack_pointer_, caller_);
}

void Fiber::start() {
  Fiber* const self = starting;
  __sanitizer_finish_switch_fiber(nullptr, &self->caller_stack_, &self->caller_stack_bytes_);
  self->has_frames_ = true;
  self->entry_(self->context_);
  self->has_frames_ = false;
  self->switch_back(nullptr);
  TUTTI_ASSERT(false);
}

}  // namespace tutti::emulation
