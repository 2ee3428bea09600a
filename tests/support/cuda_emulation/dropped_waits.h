// The barriers and waits of kernels, each by its place in the source: a test leaves out one at a
// time and sees that something notices.
//
// Threads: tests change what is dropped while no kernel runs; kernels ask from their streams.
#pragma once

#include <atomic>
#include <set>
#include <string>

namespace tutti::emulation {

// Where a barrier stands; made by its default argument.
struct WaitPlace {
  explicit(false) WaitPlace(unsigned = ~0U, const char* file_in = __builtin_FILE(),
                            int line_in = __builtin_LINE())
      : file(file_in), line(line_in) {}
  const char* file;
  int line;
};

// "attention_forward.cu:190"
using WaitName = std::string;

// From now on places are noted, and the one with the name, if any, is passed without waiting.
void watch_waits(const WaitName& dropped = {});
// Ends that; the places that were met.
std::set<WaitName> end_watching();

extern std::atomic<bool> watching_waits;
bool is_kept_while_watched(const WaitPlace& place);

// Whether a thread waits here.
inline bool is_kept(const WaitPlace& place) {
  return !watching_waits.load(std::memory_order_relaxed) || is_kept_while_watched(place);
}

}  // namespace tutti::emulation
