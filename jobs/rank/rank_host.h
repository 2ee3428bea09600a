// The shell around a rank's state machine: the worker's socket, the computing thread, the exit.
//
//   control thread    reads orders, tells the state machine, interrupts and reports progress
//   computing thread  the caller of run: does what the state machine begins, one task at a time
//   disk thread       commits checkpoints, which wait for nobody and which nobody waits for
//
// The process ends at once when the worker orders it or its end of the socket closes: nothing here
// is worth a clean-up that could hang. State on disk is safe at any moment.
#pragma once

#include <memory>

#include "protocol/base/file.h"

namespace tutti::rank {

class RankHost {
 public:
  // `socket`: the end of the pair that the worker left to this process.
  explicit RankHost(FileDescriptor socket);
  RankHost(const RankHost&) = delete;
  RankHost& operator=(const RankHost&) = delete;
  ~RankHost();

  // Serves the worker until it ends the process.
  [[noreturn]] void run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tutti::rank
