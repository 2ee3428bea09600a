#include "ops/cli/text/log_lines.h"

#include <fmt/core.h>

#include "ops/cli/client/fields.h"

namespace tutti::cli {

namespace {

// A line longer than this is shown in pieces.
constexpr std::size_t kLineBytesMax = 64 << 10;

}  // namespace

std::string LogLines::add(const boost::json::value& chunk) {
  const std::string text = text_of(chunk, "text");
  if (prefix_ == LogPrefix::none) return text;
  const std::string name = fmt::format("[rank {}] ", whole_of(chunk, "rank"));
  std::string& open = open_[whole_of(chunk, "process")];
  std::string shown;
  for (const char c : text) {
    if (open.empty()) open = name;
    open += c;
    if (c != '\n' && open.size() < kLineBytesMax) continue;
    shown += open;
    if (c != '\n') shown += '\n';
    open.clear();
  }
  return shown;
}

std::string LogLines::rest() {
  std::string shown;
  for (auto& [process, open] : open_) {
    if (!open.empty()) shown += open + '\n';
    open.clear();
  }
  return shown;
}

}  // namespace tutti::cli
