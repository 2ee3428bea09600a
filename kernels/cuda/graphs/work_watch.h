// What stands between ops and their stream while work is captured or replayed (step_graphs.h): it
// hears of all work that ops would enqueue, and may keep it from the stream.
//
// Threads: of the thread that enqueues.
#pragma once

#include <cstdint>
#include <string_view>

namespace tutti::kernels::cuda {

struct WorkWatch {
  bool muted = false;
  std::uint64_t signature = 0;  // of what was heard

  void hear(std::uint64_t number) {
    signature = (signature ^ number) * 0x9E3779B97F4A7C15ULL;
    signature ^= signature >> 29;
  }
};
inline thread_local WorkWatch* work_watch = nullptr;

// Whether the work is to be enqueued. `sizes` are what it depends on beside the memory.
template <class... Sizes>
bool enqueues(std::string_view what, Sizes... sizes) {
  if (work_watch == nullptr) return true;
  for (const char letter : what) work_watch->hear(static_cast<unsigned char>(letter));
  (work_watch->hear(static_cast<std::uint64_t>(sizes)), ...);
  return !work_watch->muted;
}

}  // namespace tutti::kernels::cuda
