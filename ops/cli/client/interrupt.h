// Ctrl-C while something of ours goes on in the cluster: do one last thing, then end as a shell
// expects (128 + signal). A second Ctrl-C ends the program without waiting for that.
//
// Ownership: make one on the main thread before others are started, so that they inherit the
// blocked signals. Threads: the action runs on a thread of its own while the main thread may be in
// the middle of anything.
#pragma once

#include <functional>
#include <thread>

#include "protocol/base/file.h"

namespace tutti::cli {

class OnInterrupt {
 public:
  explicit OnInterrupt(std::function<void()> action);
  OnInterrupt(const OnInterrupt&) = delete;
  OnInterrupt& operator=(const OnInterrupt&) = delete;
  ~OnInterrupt();

 private:
  void wait(const std::function<void()>& action) const;

  FileDescriptor signals_;
  FileDescriptor over_;
  std::thread thread_;
};

}  // namespace tutti::cli
