// Where one actor lives: a strand (no two of its handlers run at once), a bounded mailbox, timers
// and descriptors.
//
//   host.tell([&] { state.on(message); ... })   any thread; a full mailbox is an answer, not a wait
//   host.arm(500ms, [&] { ... })                 handlers of timers and descriptors run on the
//   strand too
//
// Ownership: destroy it on its own strand or once the runtime has stopped; nothing of it runs after
// that. What handlers capture must live as long. Limits: `mailbox_max` messages told and not yet
// begun.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "protocol/actor/runtime.h"
#include "protocol/base/clock.h"
#include "protocol/base/result.h"

namespace tutti::actor {

using TimerId = std::uint64_t;  // 0: none

struct HostOptions {
  std::string name = "actor";  // in errors
  std::size_t mailbox_max = 4096;
};

class ActorHost {
 public:
  explicit ActorHost(Runtime& runtime, HostOptions options = {});
  ActorHost(const ActorHost&) = delete;
  ActorHost& operator=(const ActorHost&) = delete;
  ~ActorHost();

  // Runs `message` on the strand, after those told before. Any thread. Errors: exhausted when the
  // mailbox is full, aborted after close(); then it never runs.
  Result<> tell(std::function<void()> message);

  // The same from a handler that has nothing left to do: the message runs on the caller's thread
  // once that handler has returned, which saves the wake-up of another thread (some 50 us). What
  // the caller still does delays it.
  Result<> tell_last(std::function<void()> message);

  // Whether messages have been told that have not begun.
  bool has_mail() const;

  // Runs `handler` on the strand once `after` has passed, unless cancelled. On the strand (or
  // before the runtime runs).
  TimerId arm(Duration after, std::function<void()> handler);
  void cancel(TimerId timer);

  // Calls `handler` on the strand whenever `descriptor` can be read or has ended, until unwatch.
  // The handler reads what there is. The descriptor stays the caller's, who unwatches before
  // closing it. On the strand.
  Result<> watch_readable(int descriptor, std::function<void()> handler);
  void unwatch(int descriptor);

  // From here on nothing is taken and nothing more of it runs: timers, watches, messages. On the
  // strand, idempotent.
  void close();

  // Whether the calling thread is inside a handler of this host.
  bool on_strand() const;

  Runtime& runtime();

  // Implementations on Asio get the strand by strand_of (strand.h).
  struct State;
  const std::shared_ptr<State>& state() const { return state_; }

 private:
  std::shared_ptr<State> state_;
};

}  // namespace tutti::actor
