// The threads that actors run on: one event loop (Boost.Asio), and signals.
//
// A process makes one Runtime, builds its actors on it, and calls run() on its main thread; with
// `threads` = 0 everything runs there, which is what a process that forks wants. An exception that
// escapes a handler aborts the process with its text: expected failures are values, so it is a
// broken invariant.
//
// Ownership: outlives every ActorHost, endpoint and link made on it. Threads: stop from any thread
// or signal.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace boost::asio {
class io_context;
}

namespace tutti::actor {

class Runtime {
 public:
  // `threads` beside the one that calls run().
  explicit Runtime(std::size_t threads = 0);
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  ~Runtime();

  // Serves events on this thread, too, until stop(); then waits for the others. Call once.
  void run();

  // Serves events on background threads only; at least one thread. stop() and the destructor end
  // them.
  void start();

  // No further handler begins; run() returns and what is pending is dropped.
  void stop();
  // stop(), and waits for the handlers that run on background threads: what they use may be
  // destroyed then. Not by one of them.
  void stop_and_join();

  // Calls `handler` (on some thread of the runtime, one call at a time) for each of these signals,
  // from now on.
  void on_signals(const std::vector<int>& signals, std::function<void(int)> handler);

  // For implementations on Asio.
  boost::asio::io_context& context();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tutti::actor
