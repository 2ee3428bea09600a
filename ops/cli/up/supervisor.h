// Keeps a few child processes running: started, restarted when they die, ended together.
//
// Children run in a process group of their own (Ctrl-C reaches the supervisor alone), write to a
// log file each, and get a parent-death signal. A child that ends again and again within a short
// life waits longer each time, and ends the supervisor at last if that was its own doing: not if
// somebody killed it. One that says by its exit code that its configuration is wrong ends it at
// once.
//
// Threads: all on the thread that called run(), which must be the main thread (the parent-death
// signal is tied to it).
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "protocol/base/clock.h"

namespace tutti::cli {

struct Part {
  std::string name;
  std::vector<std::string> command;  // program first
  std::filesystem::path log;
  Duration grace = std::chrono::seconds(5);  // from SIGTERM to SIGKILL
  // Ends what it left behind, where it could not do so itself any more. Its process is gone.
  std::function<void()> clean_up = {};
};

// How long to wait before the next start of a part that ended, or nothing: give up.
class RestartPolicy {
 public:
  // killed: by a signal that only others send. refused: what it was given is wrong, and so is the
  // next try; but what had worked was refused for a change, as when a worker's key is revoked: it
  // joins anew, or is refused at once.
  enum class Cause { own, killed, refused };
  std::optional<Duration> after_exit(Duration lived, Cause cause);

 private:
  int quick_deaths_ = 0;  // in a row; they decide how long to wait
  int own_deaths_ = 0;    // of them; they decide when to give up
};

class Supervisor {
 public:
  struct Events {
    std::function<void()> changed;  // pids are others now
    std::function<void()> idle;     // several times a second; must not wait
    std::function<void(std::string_view line)> say;
  };

  // Parts are started in this order and ended in the reverse of it, each before the next. Who asks
  // a second time does not wait out any grace.
  Supervisor(std::vector<Part> parts, Events events);
  ~Supervisor();

  // Until SIGINT, SIGTERM or SIGHUP, or until a part cannot be kept running. Gives the exit code.
  int run();

  // 0 while it does not run.
  pid_t pid_of(std::string_view name) const;

 private:
  struct Child;

  void start(Child& child);
  std::optional<int> reap(Child& child);
  std::optional<int> on_exit(Child& child, int status);
  void stop_all();

  enum class Wait { ended, late, asked_again };
  Wait wait_for(Child& child);
  static Wait hurry(Child& child);

  std::vector<Child> children_;
  Events events_;
};

}  // namespace tutti::cli
