// The group that a rank is in, and the door to the next one: what the computing thread works with
// and other threads look at and interrupt.
//
// A group may take seconds to end, as its peers and its device do; whoever interrupts or looks does
// not wait for that: a rank takes orders all the while.
//
// Ownership: of the listener and the group. Threads: interrupt() and operations() from any; the
// rest on the computing thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "kernels/collective/communicator.h"

namespace tutti::rank {

class OpenGroup {
 public:
  // Ends the group, if there is one, and what it was interrupted by; its successor meets here.
  void listen(std::unique_ptr<kernels::Listener> listener);
  // Valid until the next listen().
  kernels::Listener& listener() const { return *listener_; }

  // Aborted at once if it was interrupted meanwhile. Valid until listen() or end().
  kernels::Communicator& hold(std::unique_ptr<kernels::Communicator> group);
  kernels::Communicator* get() const { return group_.get(); }
  void end();

  // What it is in ends soon, also if that is connecting; the first reason is kept.
  void interrupt(const std::string& reason);
  std::uint64_t operations() const;

 private:
  mutable std::mutex mutex_;  // of pointers and the reason; nothing is ended under it
  std::unique_ptr<kernels::Listener> listener_;
  std::unique_ptr<kernels::Communicator> group_;
  std::optional<std::string> interrupted_;
};

}  // namespace tutti::rank
