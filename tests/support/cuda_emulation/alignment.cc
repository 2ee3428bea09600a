// What gcc's -fsanitize=alignment calls in emulated kernels: a GPU faults on such an address, where
// an x86-64 processor reads it.
#include <cstddef>
#include <cstdint>

#include "tests/support/cuda_emulation/grid.h"

namespace {

// As the compiler lays it out (libubsan's TypeMismatchData).
struct Mismatch {
  const char* file;
  std::uint32_t line, column;
  const void* type;
  unsigned char log_alignment;
  unsigned char kind;
};

}  // namespace

extern "C" void __ubsan_handle_type_mismatch_v1(const Mismatch* found, std::uintptr_t address) {
  const std::size_t alignment = std::size_t{1} << found->log_alignment;
  tutti::emulation::require_aligned(reinterpret_cast<const void*>(address), alignment, "a use");
}
