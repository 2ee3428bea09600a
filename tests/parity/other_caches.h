// While it lives, ops see the caches of another machine: products take the other tile of many rows
// and cut smaller blocks, and every output that may be written past the caches is.
#pragma once

#include "kernels/cpu/caches/caches.h"

namespace tutti::kernels::parity {

class OtherCaches {
 public:
  OtherCaches() : before_(caches()) {
    choose_caches({.first_ways = before_.first_ways > 8 ? 8 : 12,
                   .second_bytes = before_.second_bytes / 4,
                   .third_bytes = 0});
  }
  OtherCaches(const OtherCaches&) = delete;
  OtherCaches& operator=(const OtherCaches&) = delete;
  ~OtherCaches() { choose_caches(before_); }

 private:
  Caches before_;
};

}  // namespace tutti::kernels::parity
