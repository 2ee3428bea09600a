#include "ops/cli/client/progress_writer.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ops/cli/text/table.h"

namespace tutti::cli {

namespace {

constexpr std::chrono::milliseconds kLineEvery{5'000};  // where the output is no terminal

std::size_t terminal_columns() {
  winsize size{};
  const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

}  // namespace

void ProgressWriter::update(Progress& progress, std::string_view more) {
  if (session_.json()) return;
  for (const std::string& notice : progress.take_notices()) say(notice);
  std::string line = progress.line();
  if (!more.empty()) line += fmt::format("  {}", more);
  if (session_.out_is_terminal) {
    line = shortened(line, terminal_columns());  // a line that wraps cannot be rewritten
    print(fmt::format("\r{}\x1b[K", line));
    open_ = true;
    return;
  }
  const Instant now = monotonic_now();
  if (line == shown_ || now < next_) return;
  print(line + '\n');
  shown_ = line;
  next_ = now + kLineEvery;
}

void ProgressWriter::say(std::string_view line) {
  if (session_.json()) return;
  print(fmt::format("{}{}\n", open_ ? "\r\x1b[K" : "", line));
  open_ = false;
}

void ProgressWriter::close(Progress& progress) {
  next_ = {};
  update(progress);
  if (open_) print("\n");
  open_ = false;
}

}  // namespace tutti::cli
