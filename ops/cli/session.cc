#include "ops/cli/session.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace tutti::cli {

ExitCode exit_code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::not_found:
    case ErrorCode::already_exists:
    case ErrorCode::unsupported: return kUsage;
    case ErrorCode::permission_denied:
    case ErrorCode::exhausted: return kRefused;
    case ErrorCode::unavailable:
    case ErrorCode::deadline_exceeded:
    case ErrorCode::aborted:
    case ErrorCode::stale: return kInfrastructure;
    case ErrorCode::corrupt:
    case ErrorCode::internal: return kOwnError;
  }
  return kOwnError;
}

void print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(STDOUT_FILENO, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EPIPE) std::_Exit(kDone);  // `tutti logs 7 | head` is no error
    if (count < 0) std::_Exit(fail(errno_error("cannot write the output", errno)));
    text.remove_prefix(static_cast<std::size_t>(count));
  }
}

int fail(const Error& error) { return fail(exit_code_of(error.code), error.message); }

int fail(ExitCode code, std::string_view message) {
  const std::string line = fmt::format("tutti: {}\n", message);
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
  return code;
}

}  // namespace tutti::cli
