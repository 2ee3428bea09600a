// Runs a program that writes a line before and after each thing that may hang, and ends it once it
// has said nothing for too long.
//
// Threads: the main one (it forks). What the kernel does not let go of is left behind.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/result.h"
#include "worker/launcher/launcher.h"

namespace tutti::cli {

struct Watched {
  std::vector<std::string> command;
  Duration first;  // until its first line
  Duration each;   // from one to the next
};

struct WatchedEnd {
  bool silent = false;  // it said nothing any more, and was ended
  worker::ExitStatus status = {};
  std::string last_words = {};  // of lines that were not taken
};

// `take` says whether a line is one of those that are waited for. Errors: of starting it.
Result<WatchedEnd> watch_process(const Watched& watched,
                                 const std::function<bool(std::string_view line)>& take);

// How it ended, and what it said.
std::string text_of(const WatchedEnd& end);

}  // namespace tutti::cli
