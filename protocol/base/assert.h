// TUTTI_ASSERT: what must hold in every build. A failure prints the expression and its place, and
// aborts.
#pragma once

namespace tutti {

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace tutti

#define TUTTI_ASSERT(condition)                        \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : ::tutti::assertion_failed(#condition, __FILE__, __LINE__))
