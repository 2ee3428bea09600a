#include "ops/cli/gpus/measuring.h"

#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <utility>

#include "ops/cli/rank_tools.h"
#include "worker/launcher/launcher.h"

namespace tutti::cli {

namespace {

// One that hangs in the kernel outlives its end.
constexpr Duration kKilledWithin = std::chrono::seconds(5);
constexpr std::size_t kUnreadBytesMax = std::size_t{1} << 16;

bool is_ready(int descriptor, Instant until) {
  for (;;) {
    const Duration left = until - monotonic_now();
    pollfd wait{.fd = descriptor, .events = POLLIN, .revents = 0};
    const int count =
        ::poll(&wait, 1, left > Duration::zero() ? static_cast<int>(to_ms(left)) + 1 : 0);
    if (count > 0) return true;
    if (count < 0 && errno == EINTR) continue;
    return false;
  }
}

// One process, from its start to its end.
class Process {
 public:
  struct End {
    bool silent = false;  // it said nothing any more, and was ended
    worker::ExitStatus status = {};
  };

  Process(const Measuring& measuring, GpuCheck& check) : measuring_(measuring), check_(check) {}

  Result<End> run(std::vector<std::string> command) {
    auto started = worker::launch({.command = std::move(command),
                                   .environment = own_environment(),
                                   .folder = {},
                                   .linked = false});
    if (!started) return std::move(started).error();
    End end{.silent = !reads_to_end(started->output.get())};
    if (end.silent) worker::signal_group(started->pid, SIGKILL);
    is_ready(started->pidfd.get(), monotonic_now() + kKilledWithin);
    worker::signal_group(started->pid, SIGKILL);
    if (const auto status = worker::reap(*started)) end.status = *status;
    return end;
  }

  const std::string& last_words() const { return last_words_; }

 private:
  // Each line that says something lets the process live for the next one.
  bool reads_to_end(int output) {
    std::string text;
    Instant until = monotonic_now() + measuring_.first;
    char piece[4096];
    while (is_ready(output, until)) {
      const auto count = ::read(output, piece, sizeof piece);
      if (count == 0) return true;
      if (count < 0 && errno != EAGAIN && errno != EINTR) return true;
      if (count > 0) text.append(piece, static_cast<std::size_t>(count));
      for (auto end = text.find('\n'); end != std::string::npos; end = text.find('\n')) {
        const std::string line = text.substr(0, end);
        text.erase(0, end + 1);
        if (check_.take(line)) {
          until = monotonic_now() + measuring_.each;
        } else if (!line.empty()) {
          last_words_ = line;
        }
      }
      if (text.size() > kUnreadBytesMax) text.clear();
    }
    return false;
  }

  const Measuring& measuring_;
  GpuCheck& check_;
  std::string last_words_;  // of lines that are not for us
};

double seconds_of(Duration duration) { return std::chrono::duration<double>(duration).count(); }

std::string end_text(const Process::End& end, const std::string& last_words) {
  const std::string how = end.status.signal != 0 ? fmt::format("by signal {}", end.status.signal)
                                                 : fmt::format("with {}", end.status.code);
  return "its process ended " + how + (last_words.empty() ? "" : ": " + last_words);
}

// What the end of a process says that no line of its own did.
void note_end(const Measuring& measuring, const Result<Process::End>& end,
              const std::string& last_words, GpuCheck& check) {
  if (!end) {
    check.problem = end.error().message;
    return;
  }
  const bool failed = end->status.code != 0 || end->status.signal != 0;
  if (GpuMeasure* const open = check.open(); open != nullptr) {
    open->problem = end->silent
                        ? fmt::format("it did not end in {:g} s", seconds_of(measuring.each))
                        : end_text(*end, last_words);
  } else if (end->silent) {
    const Duration waited = check.gpus.empty() ? measuring.first : measuring.each;
    check.problem = fmt::format("the GPUs did not answer in {:g} s: see dmesg", seconds_of(waited));
  } else if (check.gpus.empty() && check.problem.empty()) {
    check.problem = last_words.empty() ? end_text(*end, last_words) : last_words;
  } else if (failed && (check.measures.empty() || check.measures.back().problem.empty())) {
    check.problem = end_text(*end, last_words);
  }
}

}  // namespace

GpuCheck measure_gpus(const Measuring& measuring) {
  GpuCheck check;
  std::vector<std::string> without;
  for (;;) {
    const std::size_t before = check.measures.size();
    std::vector<std::string> command = measuring.command;
    if (before > 0) {
      command.insert(command.end(), {"--after", std::to_string(check.measures.back().number)});
    }
    for (const std::string& uuid : without) command.insert(command.end(), {"--without", uuid});
    Process process(measuring, check);
    const auto end = process.run(std::move(command));
    note_end(measuring, end, process.last_words(), check);
    // Behind a failure another process goes on, as long as each one gets further.
    if (check.measures.size() == before || check.measures.back().problem.empty()) return check;
    const GpuMeasure& last = check.measures.back();
    if (last.gpu.empty()) return check;
    if (last.peer.empty()) without.push_back(last.gpu);
  }
}

}  // namespace tutti::cli
