#include "jobs/serving/answer_text.h"

#include <algorithm>

namespace tutti::serving {

std::string AnswerText::push(std::string_view bytes) {
  if (stopped_) return {};
  held_.append(bytes);
  std::size_t end = std::string::npos;
  for (const std::string& stop : stop_) end = std::min(end, held_.find(stop));
  if (end != std::string::npos) {
    stopped_ = true;
    std::string text = characters_.push(std::string_view(held_).substr(0, end));
    text += characters_.finish();
    held_.clear();
    return text;
  }
  const std::size_t certain = held_.size() - bytes_in_doubt();
  std::string text = characters_.push(std::string_view(held_).substr(0, certain));
  held_.erase(0, certain);
  return text;
}

std::string AnswerText::finish() {
  if (stopped_) return {};
  std::string text = characters_.push(held_);
  held_.clear();
  return text + characters_.finish();
}

std::size_t AnswerText::bytes_in_doubt() const {
  std::size_t longest = 0;
  for (const std::string& stop : stop_) {
    std::size_t length = std::min(stop.size() - 1, held_.size());
    while (length > longest && !held_.ends_with(std::string_view(stop).substr(0, length))) --length;
    longest = std::max(longest, length);
  }
  return longest;
}

}  // namespace tutti::serving
