// A job's progress as it is written: one line that is rewritten on a terminal, else a line now and
// then; nothing with -o json.
#pragma once

#include <string>
#include <string_view>

#include "ops/cli/session.h"
#include "ops/cli/text/progress.h"
#include "protocol/base/clock.h"

namespace tutti::cli {

class ProgressWriter {
 public:
  explicit ProgressWriter(const Session& session) : session_(session) {}

  // What happened since the last time, each on a line of its own, then where the job is; `more`
  // follows it.
  void update(Progress& progress, std::string_view more = "");
  // A line of its own.
  void say(std::string_view line);
  // The last state stays on the screen.
  void close(Progress& progress);

 private:
  const Session& session_;
  std::string shown_;
  Instant next_{};
  bool open_ = false;
};

}  // namespace tutti::cli
