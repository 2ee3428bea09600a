// Looks at programs and folders from threads that may hang, so that the worker's own never does.
//
// A network file system that does not answer holds up whoever asks it, for hours. A scout asks in
// another thread and says what it found, or that there was no answer within the deadline; the
// thread is then left behind, and the next question gets another one. What was found is believed
// for a few seconds: thousands of short programs a second ask once.
//
// Threads: look() and the destructor on the owner's thread; `found` is called on a scout's thread.
// Limits: kThreadsMax hang at once, then every question is refused; kKnownMax answers are kept.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/result.h"
#include "worker/launcher/launcher.h"

namespace tutti::worker {

class PathScout {
 public:
  static constexpr std::size_t kThreadsMax = 8;
  static constexpr std::size_t kKnownMax = 256;
  static constexpr Duration kBelievedFor = std::chrono::seconds(5);

  struct Question {
    std::vector<std::string> command;
    std::vector<std::string> environment;  // its PATH
    std::string folder;                    // empty: none
    bool makes_folder = false;             // if it is missing
    std::string program;                   // command[0], if it was found already
  };
  struct Sight {
    std::string program;       // its path
    bool made_folder = false;  // just now, on a disk of this machine
  };
  using Found = std::function<void(Result<Sight>)>;

  PathScout();
  PathScout(const PathScout&) = delete;
  PathScout& operator=(const PathScout&) = delete;
  ~PathScout();

  // What was found a moment ago. A folder that is to be made is made, if the
  // one around it answered a moment ago.
  std::optional<Sight> known(const Question& question, Instant now) const;

  // Asks; `found` gets the answer unless abandon() came first. Errors: exhausted.
  Result<> look(Question question, Found found);

  // The thread at work did not answer in time: later questions go to another one.
  void abandon();

  // Remembers the answer to this question.
  void believe(const Question& question, const std::string& program, Instant now);

 private:
  struct Thread;
  static std::string key_of(const Question& question);

  struct Known {
    std::string program;
    Instant until;
  };
  std::map<std::string, Known> known_;
  std::shared_ptr<Thread> current_;
  std::vector<std::weak_ptr<Thread>> abandoned_;
};

// What a scout does: looks the program up, opens it, and makes and enters the folder. Tests call
// it.
Result<PathScout::Sight> look_at(const PathScout::Question& question);

}  // namespace tutti::worker
