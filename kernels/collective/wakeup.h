// A descriptor that ends a poll from another thread: once raised, it stays readable for good.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

#include "protocol/base/assert.h"
#include "protocol/base/file.h"

namespace tutti::kernels {

class Wakeup {
 public:
  Wakeup() : descriptor_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    TUTTI_ASSERT(static_cast<bool>(descriptor_));
  }

  void raise() noexcept {
    const std::uint64_t one = 1;
    // It fails only when the counter is full, and then it is readable already.
    [[maybe_unused]] const auto written = ::write(descriptor_.get(), &one, sizeof(one));
  }
  int descriptor() const { return descriptor_.get(); }

 private:
  FileDescriptor descriptor_;
};

}  // namespace tutti::kernels
