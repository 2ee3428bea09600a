#include "ops/cli/watched_process.h"

#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "ops/cli/rank_tools.h"

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

// Each line that is taken lets the process live for the next one. Whether it wrote to its end.
bool read_to_end(int output, const Watched& watched,
                 const std::function<bool(std::string_view)>& take, std::string& last_words) {
  std::string text;
  Instant until = monotonic_now() + watched.first;
  char piece[4096];
  while (is_ready(output, until)) {
    const auto count = ::read(output, piece, sizeof piece);
    if (count == 0) return true;
    if (count < 0 && errno != EAGAIN && errno != EINTR) return true;
    if (count > 0) text.append(piece, static_cast<std::size_t>(count));
    for (auto end = text.find('\n'); end != std::string::npos; end = text.find('\n')) {
      const std::string line = text.substr(0, end);
      text.erase(0, end + 1);
      if (take(line)) {
        until = monotonic_now() + watched.each;
      } else if (!line.empty()) {
        last_words = line;
      }
    }
    if (text.size() > kUnreadBytesMax) text.clear();
  }
  return false;
}

}  // namespace

Result<WatchedEnd> watch_process(const Watched& watched,
                                 const std::function<bool(std::string_view line)>& take) {
  auto started = worker::launch({.command = watched.command,
                                 .environment = own_environment(),
                                 .folder = {},
                                 .linked = false});
  if (!started) return std::move(started).error();
  WatchedEnd end;
  end.silent = !read_to_end(started->output.get(), watched, take, end.last_words);
  if (end.silent) worker::signal_group(started->pid, SIGKILL);
  is_ready(started->pidfd.get(), monotonic_now() + kKilledWithin);
  worker::signal_group(started->pid, SIGKILL);
  if (const auto status = worker::reap(*started)) end.status = *status;
  return end;
}

std::string text_of(const WatchedEnd& end) {
  const std::string how = end.status.signal != 0 ? fmt::format("by signal {}", end.status.signal)
                                                 : fmt::format("with {}", end.status.code);
  return "its process ended " + how + (end.last_words.empty() ? "" : ": " + end.last_words);
}

}  // namespace tutti::cli
