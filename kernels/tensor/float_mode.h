// The floating-point mode that all numerics run in: round to nearest, denormal numbers kept.
//
// A library that was built with fast-math switches its loading thread to flush-to-zero, and then
// the same program gives other bits. So each entry into numerics checks the mode of its thread, and
// sets it for its duration where it differs.
#pragma once

#include <xmmintrin.h>

namespace tutti::kernels {

class FloatModeScope {
 public:
  FloatModeScope() : before_(_mm_getcsr()) {
    if ((before_ & kWatched) != kMasked) _mm_setcsr((before_ & ~kWatched) | kMasked);
  }
  FloatModeScope(const FloatModeScope&) = delete;
  FloatModeScope& operator=(const FloatModeScope&) = delete;
  ~FloatModeScope() {
    if ((before_ & kWatched) != kMasked) _mm_setcsr(before_);
  }

 private:
  static constexpr unsigned kMasked = 0x1f80;   // all exceptions masked, nearest
  static constexpr unsigned kWatched = 0xffc0;  // flush, rounding, masks, denormals-are-zero
  unsigned before_;
};

}  // namespace tutti::kernels
