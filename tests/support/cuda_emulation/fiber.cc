#include "tests/support/cuda_emulation/fiber.h"

#include <sys/mman.h>

#include <cstdint>

#include "protocol/base/assert.h"

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

Fiber::~Fiber() { ::munmap(memory_, kStackBytes); }

void Fiber::prepare(void (*entry)(void*), void* context) {
  entry_ = entry;
  context_ = context;
  // The first switch pops six registers and returns into start(), whose frame wants 16 n + 8.
  auto* top = reinterpret_cast<void**>(memory_ + kStackBytes - 72);
  *top-- = nullptr;
  *top-- = reinterpret_cast<void*>(&Fiber::start);
  for (int i = 0; i < 6; ++i) *top-- = nullptr;
  stack_pointer_ = top + 1;
}

void Fiber::resume() {
  starting = this;
  tutti_fiber_switch(&caller_, stack_pointer_);
}

void Fiber::suspend() { tutti_fiber_switch(&stack_pointer_, caller_); }

void Fiber::start() {
  Fiber* const self = starting;
  self->entry_(self->context_);
  TUTTI_ASSERT(false);
}

}  // namespace tutti::emulation
