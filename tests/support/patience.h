// How long a test waits for what must come: deadlines only, never something that has to pass.
//
// Builds with a sanitizer and machines with much else to do are slower by a factor, which is named
// in $TUTTI_TEST_PATIENCE (ops/sanitize sets it; 1 where nothing is said). A deadline costs nothing
// while the test passes.
#pragma once

#include <chrono>
#include <cstdlib>

namespace tutti::test {

inline int patience() {
  static const int factor = [] {
    const char* text = std::getenv("TUTTI_TEST_PATIENCE");
    const int value = text == nullptr ? 1 : std::atoi(text);
    return value < 1 ? 1 : value;
  }();
  return factor;
}

template <class Rep, class Period>
std::chrono::duration<Rep, Period> patient(std::chrono::duration<Rep, Period> deadline) {
  return deadline * patience();
}

}  // namespace tutti::test
