// What AddressSanitizer is told of memory that tests give out by themselves: that nobody may touch
// it, that it is in use, that it or what it points at is no leak. Nothing in a build without it.
//
// So a kernel that leaves its memory is reported at the access, with its lines, and also where it
// only reads. The looks at margins when a grid has ended find what was written; they are functions
// that AddressSanitizer leaves alone.
#pragma once

#include <cstddef>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif

namespace tutti::test {

// In a build with it.
#ifdef __SANITIZE_ADDRESS__
inline constexpr bool kWatched = true;
inline void forbid(const void* memory, std::size_t bytes) {
  __asan_poison_memory_region(memory, bytes);
}
inline void allow(const void* memory, std::size_t bytes) {
  __asan_unpoison_memory_region(memory, bytes);
}
inline void may_point(const void* memory, std::size_t bytes) {
  __lsan_register_root_region(memory, bytes);
}
inline void may_not_point(const void* memory, std::size_t bytes) {
  __lsan_unregister_root_region(memory, bytes);
}
inline void is_no_leak(const void* memory) { __lsan_ignore_object(memory); }
// Wherever reports went.
inline void report_to_stderr() { __sanitizer_set_report_path("stderr"); }
#else
inline constexpr bool kWatched = false;
inline void forbid(const void*, std::size_t) {}
inline void allow(const void*, std::size_t) {}
inline void may_point(const void*, std::size_t) {}
inline void may_not_point(const void*, std::size_t) {}
inline void is_no_leak(const void*) {}
inline void report_to_stderr() {}
#endif

}  // namespace tutti::test
