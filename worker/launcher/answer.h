// Asks a program something: runs it to its end within a deadline, and keeps what it said.
//
// Threads: the calling one waits; as launch(), from the thread that starts processes.
#pragma once

#include <cstddef>
#include <string>

#include "protocol/base/clock.h"
#include "protocol/base/result.h"
#include "worker/launcher/launcher.h"

namespace tutti::worker {

inline constexpr std::size_t kAnswerBytesMax = std::size_t{1} << 20;

struct Answer {
  std::string text;  // of both outputs
  ExitStatus status;
};

// The plan is not linked. Nothing of its group runs when this returns. Errors: those of launch();
// deadline_exceeded; exhausted (it said more than kAnswerBytesMax).
Result<Answer> answer_of(const LaunchPlan& plan, Duration within);

}  // namespace tutti::worker
