#include "worker/launcher/answer.h"

#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>

#include "protocol/base/file.h"

namespace tutti::worker {

namespace {

// A process that hangs in the kernel outlives its end; whoever adopts it reaps it.
constexpr Duration kKilledWithin = std::chrono::seconds(5);

// Whether the descriptor is readable, or at its end, by then.
bool is_ready(int descriptor, Instant until) {
  while (true) {
    const Duration left = until - monotonic_now();
    if (left <= Duration::zero()) return false;
    pollfd wait{.fd = descriptor, .events = POLLIN, .revents = 0};
    const int count = ::poll(&wait, 1, static_cast<int>(to_ms(left)) + 1);
    if (count > 0) return true;
    if (count < 0 && errno != EINTR) return false;
  }
}

Result<std::string> read_to_end(int output, Instant until) {
  std::string text;
  char piece[4096];
  while (is_ready(output, until)) {
    const auto count = ::read(output, piece, sizeof piece);
    if (count == 0) return text;
    if (count > 0) text.append(piece, static_cast<std::size_t>(count));
    if (count < 0 && errno != EAGAIN && errno != EINTR) return errno_error("cannot read", errno);
    if (text.size() > kAnswerBytesMax)
      return Error{ErrorCode::exhausted,
                   fmt::format("it said more than {} bytes", kAnswerBytesMax)};
  }
  return Error{ErrorCode::deadline_exceeded, "it did not end in its time"};
}

}  // namespace

Result<Answer> answer_of(const LaunchPlan& plan, Duration within) {
  const Instant until = monotonic_now() + within;
  auto started = launch(plan);
  if (!started) return std::move(started).error();
  Result<std::string> text = read_to_end(started->output.get(), until);
  const bool ended = text && is_ready(started->pidfd.get(), until);
  // Also what it left behind; its own end, if it has come, stays as it was.
  signal_group(started->pid, SIGKILL);
  if (!ended) is_ready(started->pidfd.get(), monotonic_now() + kKilledWithin);
  const std::optional<ExitStatus> status = reap(*started);
  if (!text) return std::move(text).error().with_context(plan.command.front());
  if (!ended || !status) {
    return Error{ErrorCode::deadline_exceeded,
                 plan.command.front() + ": it did not end in its time"};
  }
  return Answer{.text = *std::move(text), .status = *status};
}

}  // namespace tutti::worker
