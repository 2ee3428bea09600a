#include "ops/cli/client/event_stream.h"

#include <utility>

namespace tutti::cli {

std::vector<std::string> EventStream::add(std::string_view bytes) {
  std::vector<std::string> events;
  for (const char c : bytes) {
    if (c == '\r') continue;
    if (c != '\n') {
      line_ += c;
      continue;
    }
    if (line_.empty() && has_data_) {
      events.push_back(std::exchange(data_, {}));
      has_data_ = false;
    } else if (line_.compare(0, 5, "data:") == 0) {
      if (has_data_) data_ += '\n';
      data_ += line_.substr(line_.size() > 5 && line_[5] == ' ' ? 6 : 5);
      has_data_ = true;
    }
    line_.clear();
  }
  return events;
}

}  // namespace tutti::cli
