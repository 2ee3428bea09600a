#include "ops/cli/gpus/measuring.h"

#include <fmt/core.h>

#include <utility>

#include "ops/cli/watched_process.h"

namespace tutti::cli {

namespace {

double seconds_of(Duration duration) { return std::chrono::duration<double>(duration).count(); }

// What the end of a process says that no line of its own did.
void note_end(const Measuring& measuring, const Result<WatchedEnd>& end, GpuCheck& check) {
  if (!end) {
    check.problem = end.error().message;
    return;
  }
  const bool failed = end->status.code != 0 || end->status.signal != 0;
  if (GpuMeasure* const open = check.open(); open != nullptr) {
    open->problem = end->silent
                        ? fmt::format("it did not end in {:g} s", seconds_of(measuring.each))
                        : text_of(*end);
  } else if (end->silent) {
    const Duration waited = check.gpus.empty() ? measuring.first : measuring.each;
    check.problem = fmt::format("the GPUs did not answer in {:g} s: see dmesg", seconds_of(waited));
  } else if (check.gpus.empty() && check.problem.empty()) {
    check.problem = end->last_words.empty() ? text_of(*end) : end->last_words;
  } else if (failed && (check.measures.empty() || check.measures.back().problem.empty())) {
    check.problem = text_of(*end);
  }
}

}  // namespace

GpuCheck measure_gpus(const Measuring& measuring) {
  GpuCheck check;
  std::vector<std::string> without;
  for (;;) {
    const std::size_t before = check.measures.size();
    Watched process{.command = measuring.command, .first = measuring.first, .each = measuring.each};
    if (before > 0) {
      process.command.insert(process.command.end(),
                             {"--after", std::to_string(check.measures.back().number)});
    }
    for (const std::string& uuid : without)
      process.command.insert(process.command.end(), {"--without", uuid});
    const auto end =
        watch_process(process, [&](std::string_view line) { return check.take(line); });
    note_end(measuring, end, check);
    // Behind a failure another process goes on, as long as each one gets further.
    if (check.measures.size() == before || check.measures.back().problem.empty()) return check;
    const GpuMeasure& last = check.measures.back();
    if (last.gpu.empty()) return check;
    if (last.peer.empty()) without.push_back(last.gpu);
  }
}

}  // namespace tutti::cli
