// What the calling thread does in the place of a driver or a library: tests that count what our
// code allocates leave it out.
//
// Threads: each has its own count.
#pragma once

namespace tutti::emulation {

class OwnWork {
 public:
  OwnWork() { ++depth; }
  ~OwnWork() { --depth; }
  OwnWork(const OwnWork&) = delete;
  OwnWork& operator=(const OwnWork&) = delete;

  static bool here() { return depth > 0; }

 private:
  inline static thread_local int depth = 0;
};

}  // namespace tutti::emulation
