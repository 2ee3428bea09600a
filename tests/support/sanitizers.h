// What ops/sanitize tells the sanitizers in the processes that a test starts with an environment of
// its own.
#pragma once

#include <cstdlib>
#include <string>
#include <vector>

namespace tutti::test {

inline void add_sanitizer_options(std::vector<std::string>& environment) {
  for (const char* name : {"ASAN_OPTIONS", "TSAN_OPTIONS"}) {
    if (const char* value = std::getenv(name)) {
      environment.push_back(std::string(name) + '=' + value);
    }
  }
}

}  // namespace tutti::test
